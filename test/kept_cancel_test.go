package test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

const movedURI = "sip:moved@10.0.0.77:5060"

// heldCall is a call as it was before the re-INVITE.
type heldCall struct {
	*peerCall
	before map[string]any
}

// heldReInvite is a call whose peer has sent a re-INVITE that would change all of it, and the
// 200 to it waits for the store.
func (w *world) heldReInvite(store *faultyStore, change ...func(*dialogtest.Request)) (heldCall, *peer) {
	w.t.Helper()
	s, p := w.stack(stackIP, keeping(store)), w.peer(peerIP)
	l := w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 1800;refresher=uac", "Allow: INVITE, UPDATE"))
	time.Sleep(time.Second)
	before := snapshotOf(w.t, l.d)
	store.fails(slow(200 * time.Millisecond))
	change = append(change, withBody(heldSDP), func(r *dialogtest.Request) { r.Branch = "z9hG4bKheld" })
	l.ask("INVITE", change...)
	time.Sleep(50 * time.Millisecond)
	return heldCall{l, before}, p
}

func (l *peerCall) cancelsHeld() {
	l.t.Helper()
	require.NoError(l.t, l.peer.Send(l.stack, l.peer.Request(dialogtest.Request{
		Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: l.tag, ToTag: l.stackTag, Branch: "z9hG4bKheld", CallID: l.callID, CSeq: l.seq,
	})))
	l.peer.next("200 CANCEL")
	require.Equal(l.t, 487, l.peer.final("INVITE").StatusCode)
	require.NoError(l.t, l.peer.Send(l.stack, l.peer.Request(dialogtest.Request{
		Method: "ACK", URI: l.stackURI, From: l.peerURI, FromTag: l.tag, ToTag: l.stackTag, Branch: "z9hG4bKheld", CallID: l.callID, CSeq: l.seq,
	})))
}

func snapshotOf(t *testing.T, d *dialog.Dialog) map[string]any {
	t.Helper()
	snapshot, err := d.Snapshot()
	require.NoError(t, err)
	return snapshotFields(t, snapshot)
}

// fieldsOf are the fields of a snapshot that a refused re-INVITE leaves as they are.
func snapshotFields(t *testing.T, snapshot *dialog.Snapshot) map[string]any {
	t.Helper()
	text, err := json.Marshal(snapshot)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	delete(fields, "q")  // CSeq numbers are reserved
	delete(fields, "rs") // and the peer has used some
	return fields
}

// A CANCEL of a re-INVITE whose 200 waits for the store: 487, and the call is as before the
// re-INVITE (RFC 3261 9.2, 14.1), here, in the store, and for the application.
func TestReInviteIsCanceledWhileTheCallIsSaved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := newFaultyStore()
		l, p := w.heldReInvite(store, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uac", "Contact: <"+movedURI+">"))
		require.NotEqual(t, l.before, snapshotOf(t, l.d), "it is accepted already")
		l.cancelsHeld()
		time.Sleep(time.Second)
		require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "that of the first INVITE")
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Equal(t, l.before, snapshotOf(t, l.d))
		require.Equal(t, l.before, snapshotFields(t, readSnapshot(t, store.latest().Data)))
		store.fails(nil)
		time.Sleep(5 * time.Minute)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State(), "its session timer is that of before")
		l.theirs("INVITE", 200, withBody(heldSDP))
		hangUp(t, l.d, p)
	})
}

func readSnapshot(t *testing.T, data []byte) *dialog.Snapshot {
	t.Helper()
	var snapshot dialog.Snapshot
	require.NoError(t, json.Unmarshal(data, &snapshot))
	return &snapshot
}

// Until that 200 is written the re-INVITE is open: no other exchange with an offer begins (RFC
// 3261 14.1, 14.2, RFC 3311 5.1, 5.2). What ends the call ends it.
func TestReInviteStaysOpenWhileTheCallIsSaved(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, w *world, l *peerCall, p *peer){
		"its INVITE": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			l.ask("INVITE", withBody(offerSDP))
			require.Equal(t, 500, p.final("INVITE").StatusCode)
			require.Equal(t, 200, p.final("INVITE").StatusCode)
			l.acknowledge(l.seq - 1)
			hangUp(t, l.d, p)
		},
		"its UPDATE": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			require.Equal(t, 500, l.answerTo("UPDATE", withBody(offerSDP)).StatusCode)
			require.Equal(t, 200, p.final("INVITE").StatusCode)
			l.acknowledge(l.seq - 1)
			hangUp(t, l.d, p)
		},
		"our INVITE": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			done := began(func() error {
				return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(answerSDP))})
			})
			require.Equal(t, 200, p.final("INVITE").StatusCode, "it waits")
			l.acknowledge(l.seq)
			p.reply(p.next("INVITE"), granted(answerSDP))
			require.NoError(t, <-done)
			hangUp(t, l.d, p)
		},
		"our UPDATE": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
			require.ErrorIs(t, err, dialog.ErrPending)
			require.Equal(t, 200, p.final("INVITE").StatusCode)
			l.acknowledge(l.seq)
			hangUp(t, l.d, p)
		},
		"an UPDATE without an offer, and CANCEL": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			seq := l.seq
			l.ask("UPDATE", withHeaders("Supported: timer", "Session-Expires: 600;refresher=uac", "Contact: <"+movedURI+">"))
			l.seq = seq
			l.cancelsHeld()
			require.Equal(t, 200, p.final("UPDATE").StatusCode)
			snapshot, err := l.d.Snapshot()
			require.NoError(t, err)
			require.EqualValues(t, 600, snapshot.TimerInterval)
			require.Contains(t, snapshot.RemoteTarget, "moved", "the UPDATE has refreshed the target")
		},
		"BYE": func(t *testing.T, _ *world, l *peerCall, p *peer) {
			seq := l.seq
			require.Equal(t, 200, l.answerTo("BYE").StatusCode)
			require.Equal(t, 487, p.final("INVITE").StatusCode)
			l.acknowledge(seq)
			require.Equal(t, "BYE", l.d.Cause().Method)
		},
		"Close": func(t *testing.T, w *world, l *peerCall, p *peer) {
			hangUp(t, l.d, p)
			require.Equal(t, 487, p.final("INVITE").StatusCode)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := newFaultyStore()
				l, p := w.heldReInvite(store)
				then(t, w, l.peerCall, p)
				store.fails(nil)
				time.Sleep(time.Second)
			})
		})
	}
}
