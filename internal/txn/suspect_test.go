package txn

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/transport"
)

// suspected is a rig with a connection that may be dead: which its peer has opened, or
// we have.
func suspected(t *testing.T, dialled bool) (*rig, *transport.Flow) {
	r := newRig(t, "tcp")
	r.settle()
	target := transport.Target{Transport: "TCP", Addr: r.tcp.current().LocalAddr().(*net.TCPAddr).AddrPort()}
	if dialled {
		target.Addr = netip.MustParseAddrPort(peerIP + ":5060")
	}
	flow, err := r.transport.Connect(context.Background(), target)
	require.NoError(t, err)
	flow.Doubt(0)
	require.True(t, flow.Suspect())
	require.Equal(t, dialled, flow.Dialled())
	return r, flow
}

// FN8: what may be dead is tried last, unless nothing else leads to its peer.
func TestASuspectFlowIsTriedLastUnlessNothingElseLeadsThere(t *testing.T) {
	for _, c := range []struct {
		dialled bool
		opt     RequestOptions
		last    bool
	}{
		{false, RequestOptions{}, true},
		{false, RequestOptions{NoStream: true}, false},
		{false, RequestOptions{NoStream: true, Reopen: true}, false},
		{false, RequestOptions{NoStream: true, FlowOnly: true, Reopen: true}, false},
		{true, RequestOptions{}, true},
		{true, RequestOptions{NoStream: true, FlowOnly: true}, false},
		{true, RequestOptions{NoStream: true, FlowOnly: true, Reopen: true}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, flow := suspected(t, c.dialled)
			c.opt.Flow, c.opt.NextHop = flow, r.nextHop()
			client, err := r.layer.Request(context.Background(), outgoingRequest(sip.OPTIONS, "call-1", 7), c.opt, r.user)
			require.NoError(t, err)
			require.Equal(t, c.last, !client.Flow().Same(flow), "%+v", c)
		})
	}
}

// An ACK that must not wait does not take what may be dead, unless waiting is of no use.
func TestAnACKThatMustNotWaitAvoidsASuspectFlow(t *testing.T) {
	for only, want := range map[bool]error{false: ErrWouldWait, true: nil} {
		synctest.Test(t, func(t *testing.T) {
			r, flow := suspected(t, false)
			opt := RequestOptions{Flow: flow, NextHop: r.nextHop(), NoWait: true, FlowOnly: only, NoStream: only}
			_, err := r.layer.SendAck(context.Background(), outgoingRequest(sip.ACK, "call-1", 7), opt)
			require.Equal(t, want, err)
		})
	}
}
