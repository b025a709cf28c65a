package test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// taken has another owner take the call that was saved last.
func (s *faultyStore) taken(t *testing.T) dialog.Record {
	t.Helper()
	r, err := s.kept.Take(context.Background(), s.latest().Key, "other")
	require.NoError(t, err)
	return r
}

// A process that has lost a call sends nothing that the peer has not asked for: no request of
// the application's, no refresh, no BYE. The call ends there, and stays in the store.
func TestFormerOwnerSendsNothing(t *testing.T) {
	ctx := context.Background()
	for name, act := range map[string]func(d *dialog.Dialog) error{
		"INFO":   func(d *dialog.Dialog) error { return d.SendInfo(ctx, nil) },
		"hold":   func(d *dialog.Dialog) error { return d.Hold(ctx) },
		"UPDATE": func(d *dialog.Dialog) error { _, err := d.Update(ctx, nil); return err },
		"REFER":  func(d *dialog.Dialog) error { return d.SendRefer(ctx, uri("carol", otherIP), nil) },
		"OPTIONS": func(d *dialog.Dialog) error {
			_, err := d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{}))
			return err
		},
		"re-INVITE": func(d *dialog.Dialog) error { return d.ReInvite(ctx, offer(versioned(offerSDP, 5))) },
		"NOTIFY": func(d *dialog.Dialog) error {
			return d.GetAllReferSubscriptions()[0].SendNotify(ctx, 200, "OK")
		},
		"BYE":     func(d *dialog.Dialog) error { return d.Bye(ctx, "") },
		"hang up": func(d *dialog.Dialog) error { return d.Hangup(ctx) },
		"Close": func(d *dialog.Dialog) error {
			require.NoError(t, d.Close())
			return dialog.ErrMoved
		},
		"data": func(d *dialog.Dialog) error {
			require.NoError(t, d.SetAppData([]byte("new")))
			<-d.Done()
			return dialog.ErrMoved
		},
		"their refresh, expiry": func(d *dialog.Dialog) error { <-d.Done(); return dialog.ErrMoved },
		"our refresh":           func(d *dialog.Dialog) error { <-d.Done(); return dialog.ErrMoved },
	} {
		refresher := "uac"
		if name == "our refresh" {
			refresher = "uas"
		}
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			store.nothingDue = true
			s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) { c.SessionExpires = 10 * time.Minute })
			l := w.incoming(s, p, func(r *dialogtest.Request) {
				r.Headers = append(r.Headers, "Supported: timer", "Session-Expires: 600;refresher="+refresher)
			})
			if name == "NOTIFY" {
				l.received()
			}
			seen := watch(l.d)
			store.taken(t)
			time.Sleep(31 * time.Second)
			before := len(w.flow())
			require.ErrorIs(t, act(l.d), dialog.ErrMoved, name)
			synctest.Wait()
			require.Len(t, w.flow(), before, name)
			if name != "Close" {
				require.Equal(t, dialog.Cause{By: dialog.PartyMoved, Err: dialog.ErrMoved}, l.d.Cause(), name)
				require.Equal(t, uint64(1), s.Stats().Ended[dialog.PartyMoved])
			}
			require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
			require.Equal(t, 1, store.Len(), name)
			held := testkit.Held(s)
			require.Zero(t, held.Dialogs+held.Releasing+held.Subscribed+held.Tombstones+held.Tasks+held.Byes+held.Calls, name)
			time.Sleep(20 * time.Minute)
			require.Len(t, w.flow(), before, name)
			require.Equal(t, "other", store.taken(t).Owner)
		})
	}
}

// Without an answer of the store a session that has expired is left alone until the store
// says whose it is, and a refresh is sent only within two minutes of its word. What the peer
// and the application ask for is done.
func TestOwnerIsInDoubt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store, p := newFaultyStore(), w.peer(peerIP)
		s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) { c.SessionExpires = 10 * time.Minute })
		theirs := w.incoming(s, p, func(r *dialogtest.Request) {
			r.Headers = append(r.Headers, "Supported: timer", "Session-Expires: 600;refresher=uac")
		})
		store.fails(silent)
		theirs.theirs("OPTIONS", 200)
		theirs.exchange(func(ctx context.Context) error { return theirs.d.SendInfo(ctx, nil) }, "INFO", dialogtest.Response{Code: 200})
		time.Sleep(15 * time.Minute)
		require.Empty(t, w.sent(stackIP, "BYE"))
		require.Equal(t, dialog.DialogStateEstablished, theirs.d.State())
		store.fails(nil)
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.PartyTimeout, theirs.d.Cause().By)
	})
	for age, refreshes := range map[time.Duration]bool{time.Minute: true, 4 * time.Minute: false} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) { c.SessionExpires = 10 * time.Minute })
			l := w.outgoing(s, p, "Supported: timer", "Session-Expires: 600;refresher=uac", "Allow: UPDATE")
			stop := p.answers(always(200))
			defer stop()
			time.Sleep(5*time.Minute - age)
			require.NoError(t, l.d.SendInfo(context.Background(), nil)) // asks the store
			store.fails(silent)
			time.Sleep(age + time.Second)
			require.Equal(t, refreshes, len(w.sent(stackIP, "UPDATE")) > 0, "%v", age)
			store.fails(nil)
			time.Sleep(3 * time.Minute)
			require.NotEmpty(t, w.sent(stackIP, "UPDATE"), "tried again")
			require.NoError(t, l.d.Close())
			synctest.Wait()
		})
	}
}

// A call that was moved away may come back: it has left no tombstone.
func TestMovedCallMayComeBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store, p := newFaultyStore(), w.peer(peerIP)
		s := w.stack(stackIP, keeping(store))
		l := w.incoming(s, p)
		r := store.taken(t)
		require.NoError(t, l.d.SetAppData(nil))
		<-l.d.Done()
		l.d = restoredAs(t, s, r)
		l.theirs("INFO", 200)
		l.hangUp(p)
		synctest.Wait()
		require.Zero(t, store.Len())
	})
}

// restoredAs goes on with a record that was taken.
func restoredAs(t *testing.T, s *dialog.Stack, r dialog.Record) *dialog.Dialog {
	t.Helper()
	snapshot := new(dialog.Snapshot)
	require.NoError(t, json.Unmarshal(r.Data, snapshot))
	snapshot.Fence = r.Fence
	d, err := s.Restore(context.Background(), snapshot)
	require.NoError(t, err)
	return d
}

// ceiling is the highest CSeq number that the store knows of.
func (s *faultyStore) ceiling(t *testing.T) uint32 {
	snapshot := new(dialog.Snapshot)
	require.NoError(t, json.Unmarshal(s.latest().Data, snapshot))
	return snapshot.SeqTop
}

// replies has the peer answer each request as answer says, until the returned function is
// called.
func (p *peer) replies(answer func(req *sip.Request) dialogtest.Response) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			got, err := p.Recv(ctx)
			if err != nil {
				return
			}
			if req := got.Request(); req != nil && req.Method != sip.ACK {
				if r := answer(req); r.Code != 0 {
					r.ToTag = farTag
					p.reply(got, r)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// A request of ours never has a CSeq number above that which the store has: whoever takes the
// call at that moment begins above all that the peer has seen. It holds for requests that are
// challenged (RFC 3261 22.2), for a callee that has sent nothing, and with a store that is slow.
func TestNumbersOnTheWireAreBelowTheSavedCeiling(t *testing.T) {
	const requests = 1000
	for _, ours := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			store, p := newFaultyStore(), w.peer(peerIP)
			store.fails(func(ctx context.Context, _ string) error {
				return slow(rand.N(20*time.Millisecond))(ctx, "")
			})
			s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) {
				c.Credentials = func(string) (string, string, bool) { return "us", "secret", true }
			})
			var l *peerCall
			if ours {
				l = w.outgoing(s, p)
			} else {
				l = w.incoming(s, p)
			}
			highest, seen := uint32(0), 0
			stop := p.replies(func(req *sip.Request) dialogtest.Response {
				time.Sleep(time.Millisecond) // the store is slower
				seq := req.CSeq().SeqNo
				require.Greater(t, seq, highest)
				require.LessOrEqual(t, seq, store.ceiling(t))
				highest, seen = seq, seen+1
				if ours && seen%7 == 0 { // once each: the next is the one with credentials
					challenge := fmt.Sprintf(`WWW-Authenticate: Digest realm="far", nonce="%d", stale=true, qop="auth"`, seen)
					return dialogtest.Response{Code: 401, Headers: []string{challenge}}
				}
				return dialogtest.Response{Code: 200}
			})
			for range requests {
				require.NoError(t, l.d.SendInfo(context.Background(), nil))
			}
			require.NoError(t, l.d.Bye(context.Background(), ""))
			stop()
			require.GreaterOrEqual(t, seen, requests)
			require.Zero(t, s.Stats().Unsaved)
			records := len(slices.DeleteFunc(store.did(), func(op string) bool { return op != "Save" }))
			t.Log(seen, "requests,", records, "records")
			require.Less(t, records, requests/20)
			require.Greater(t, records, requests/100)
		})
	}
}
