package dialog

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/transport"
)

// RFC 3261 13.2.2.4: a repetition of the 2xx may find the call of a further fork as soon as
// that is in the list, and its ACK goes to the target of the 2xx.
func TestAFurtherForkIsFoundWithItsTarget(t *testing.T) {
	d := &Dialog{isUAC: true, callID: "call", localTag: "ours", remoteTarget: sip.Uri{Scheme: "sip", Host: "invited"}}
	i := &inviteClient{ackSender: ackSender{d: d, seq: 1}, won: true, winner: "first"}
	res := sip.NewResponse(sip.StatusOK, "OK")
	res.AppendHeader(&sip.ToHeader{Address: sip.Uri{Scheme: "sip", Host: "invited"}, Params: sip.HeaderParams{{K: "tag", V: "second"}}})
	res.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", Host: "answered"}})
	res.AppendHeader(&sip.RecordRouteHeader{Address: sip.Uri{Scheme: "sip", Host: "proxy"}})
	d.mutex.Lock()
	fork := i.newForkLocked("second", res)
	found := i.forks["second"]
	d.mutex.Unlock()

	require.Same(t, fork, found)
	state := found.currentLocked()
	require.Equal(t, "second", state.RemoteTag())
	require.Equal(t, "answered", state.Target().Host)
	require.Equal(t, "proxy", state.RouteSet()[0].Host)
}

// movedTx counts how often its response is moved to another flow.
type movedTx struct {
	serverTx
	moved int
}

func (tx *movedTx) ReplyBy(*transport.Flow) { tx.moved++ }

// A late response of a fork that has lost moves that fork alone.
func TestALosingForkMovesNoResponseOfTheCall(t *testing.T) {
	d := &Dialog{isUAC: true, callID: "call", localTag: "ours"}
	tx := &movedTx{}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.retransmissions = []*retransmission{{tx: tx}}
	current := d.currentLocked()
	lost := &dialogState{d: d, State: current.Fork("lost", 1)}
	lost.goByLocked(nil)
	require.Zero(t, tx.moved)
	current.goByLocked(nil)
	require.Equal(t, 1, tx.moved)
}
