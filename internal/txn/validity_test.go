package txn

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

var methods = []string{
	"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "PRACK", "UPDATE", "INFO",
	"REFER", "NOTIFY", "SUBSCRIBE", "MESSAGE", "PUBLISH", "UNHEARD",
}

// without removes a header line.
func without(text, name string) string {
	var kept []string
	for _, line := range strings.Split(text, "\r\n") {
		if !strings.HasPrefix(line, name+":") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\r\n")
}

// Row B1: a request without one of these headers killed the process.
func TestRequestsWithoutAMandatoryHeaderAreRefused(t *testing.T) {
	for _, network := range both {
		for _, method := range methods {
			for _, header := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
				t.Run(network+" "+method+" without "+header, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r := newRig(t, network)
						r.wire.send(without(r.text(method, "z9hG4bK-1"), header))
						var want []string
						if method != "ACK" && header != "Via" {
							want = []string{"400"}
						}
						require.Equal(t, want, r.lines())
						require.Empty(t, r.user.take())
					})
				})
			}
		}
	}
}

func TestRequestsWithACSeqOfAnotherMethodAreRefused(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		for i, method := range methods {
			text := r.text(method, fmt.Sprint("z9hG4bK-", i))
			r.wire.send(strings.Replace(text, "CSeq: 1 "+method, "CSeq: 1 OTHER", 1))
			var want []string
			if method != "ACK" {
				want = []string{"400"}
			}
			require.Equal(t, want, r.lines(), method)
		}
		require.Empty(t, r.user.take())
	})
}

func TestRequestsOfAnotherVersionGet505(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		for i, method := range methods {
			text := r.text(method, fmt.Sprint("z9hG4bK-", i))
			r.wire.send(strings.Replace(text, " SIP/2.0\r\n", " SIP/7.0\r\n", 1))
			var want []string
			if method != "ACK" {
				want = []string{"505"}
			}
			require.Equal(t, want, r.lines(), method)
		}
		require.Empty(t, r.user.take())
	})
}

func TestRequestsWithoutFromTagOrMaxForwardsAreTaken(t *testing.T) {
	bubble(t, both, func(t *testing.T, r *rig) {
		r.wire.send(strings.Replace(r.text("OPTIONS", "z9hG4bK-1"), ";tag=peer", "", 1))
		r.settle()
		require.Equal(t, []string{"request OPTIONS"}, r.user.take())
	})
}

// A response that cannot be ours, or lacks what the layers above rely on, is
// dropped.
func TestMalformedResponsesAreDropped(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		req := r.request(sip.OPTIONS)
		text := r.udp.ep.Response(req, dialogtest.Response{Code: 200, ToTag: "a"})
		for _, header := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
			r.wire.send(without(text, header))
		}
		r.wire.send(strings.Replace(text, "Via: ", "Via: SIP/2.0/UDP other;branch=z9hG4bK-x\r\nVia: ", 1))
		r.wire.send(strings.Replace(text, "From: ", "Via: SIP/2.0/UDP other;branch=z9hG4bK-x\r\nFrom: ", 1)) // RFC 3261 8.1.3.3
		r.wire.send(strings.Replace(text, "SIP/2.0 200", "SIP/3.0 200", 1))
		r.wire.send(strings.Replace(text, "SIP/2.0 200", "SIP/2.0 700", 1))
		r.wire.send(strings.Replace(text, "1 OPTIONS", "1 BYE", 1))
		r.settle()
		require.Empty(t, r.user.take())
		r.wire.send(text)
		r.settle()
		require.Equal(t, []string{"response 200", "done: <nil>"}, r.user.take())
		require.Equal(t, uint64(1), r.layer.Stats().Unmatched)
	})
}

// messageFlow returns a flow for messages that are given to receive directly.
func messageFlow(t testing.TB, below *transport.Layer) *transport.Flow {
	flow, err := below.Connect(context.Background(), transport.Target{
		Transport: "UDP", Addr: netip.MustParseAddrPort(peerIP + ":5060"),
	})
	require.NoError(t, err)
	return flow
}

// bareMessages are what the transport would answer, or drop.
func bareMessages() []*sipmsg.Message {
	var out []*sipmsg.Message
	for _, method := range methods {
		for _, rest := range []string{"", "\r\nVia: ", "\r\nVia: SIP/2.0/UDP h", "\r\nVia: SIP/2.0/UDP h\r\nFrom: \r\nTo: \r\nCall-ID: \r\nCSeq: "} {
			out = append(out, sipmsg.Decode([]byte(method+" sip:h SIP/2.0"+rest), 10))
		}
	}
	return append(out, sipmsg.Decode([]byte("SIP/2.0 200 OK"), 10), sipmsg.Decode([]byte("SIP/2.0 700 "), 10))
}

func TestBareMessagesAreSurvived(t *testing.T) {
	bubble(t, []string{"udp"}, func(t *testing.T, r *rig) {
		flow := messageFlow(t, r.transport)
		for _, m := range bareMessages() {
			r.layer.receive(m, flow)
		}
		r.settle()
		require.Empty(t, r.user.take())
	})
}

func FuzzReceive(f *testing.F) {
	via := "UDP " + peerIP + ":5060"
	for _, method := range methods {
		text := requestText(via, "call", method, "z9hG4bK-1")
		f.Add([]byte(text))
		f.Add([]byte(strings.Replace(text, "z9hG4bK-1", "old", 1)))
		f.Add([]byte(without(text, "To")))
	}
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK-1\r\n\r\n"))
	f.Add([]byte("SIP/2.0 0 \r\nVia: \r\n\r\n"))
	user := &answering{}
	layer, _, _ := orderRig(f, user)
	flow := messageFlow(f, layer.transport)
	f.Fuzz(func(t *testing.T, data []byte) {
		head, body, _ := sipmsg.CutHead(bytes.Clone(data))
		m := sipmsg.Decode(head, 100)
		if m == nil {
			return
		}
		m.SetBody(body)
		m.Arrived("UDP", netip.MustParseAddrPort(peerIP+":5060"))
		layer.receive(m, flow)
		require.Zero(t, layer.Stats().Panics)
	})
}

// answering is a User that answers everything 200.
type answering struct{ orderUser }

func (*answering) Request(tx *Server)                     { _ = tx.Respond(tx.NewResponse(200, "")) }
func (*answering) Ack(*sipmsg.Message, *transport.Flow)   {}
func (*answering) Response(*Client, *sip.Response)        {}
func (*answering) ServerFailed(tx *Server, err error)     {}
func (*answering) Cancel(tx *Server, req *sipmsg.Message) {}
