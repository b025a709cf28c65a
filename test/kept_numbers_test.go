package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// killer is a call that may be killed at any moment: another process then goes on with what
// the store has at that moment.
type killer struct {
	*peerCall
	store *faultyStore
	other *dialog.Stack
	link  *link
	// read counts what was read of the log, and highest is the highest number in it.
	read    int
	highest uint32
	// kills counts the requests after which the call was killed.
	kills int
}

func newKiller(w *world, ours bool) *killer {
	store, p := newFaultyStore(), w.peer(peerIP)
	store.fails(func(ctx context.Context, _ string) error { return slow(rand.N(20*time.Millisecond))(ctx, "") })
	k := &killer{store: store, link: newLink(memory.New())}
	k.other = w.stack(otherIP, keeping(k.link))
	s := w.stack(stackIP, keeping(store), func(c *dialog.StackConfig) {
		c.Credentials = func(string) (string, string, bool) { return "us", "secret", true }
	})
	if ours {
		k.peerCall = w.outgoing(s, p, "Allow: INVITE, UPDATE, PRACK")
		k.next("ACK")
	} else {
		k.peerCall = w.incoming(s, p, withHeaders("Allow: INVITE, UPDATE, PRACK", "Supported: 100rel"))
	}
	return k
}

// seen is the highest number that the call's process has put on the wire.
func (k *killer) seen() uint32 {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	for ; k.read < len(k.w.log); k.read++ {
		m := k.w.log[k.read]
		if req, ok := m.msg.(*sip.Request); ok && m.from.Addr().String() == stackIP {
			k.highest = max(k.highest, req.CSeq().SeqNo)
		}
	}
	return k.highest
}

// kill has another process take the call as the store has it now, and send a request.
func (k *killer) kill() {
	k.t.Helper()
	ctx, r, here := context.Background(), k.store.latest(), k.stack
	copied := memory.New()
	require.NoError(k.t, copied.Save(ctx, r))
	k.link.mu.Lock()
	k.link.Store = copied
	k.link.mu.Unlock()
	k.stack = k.other.Addr()
	require.Equal(k.t, 200, k.answerTo("OPTIONS").StatusCode)
	d := oneCall(k.t, k.other)
	sent := began(func() error { return d.SendInfo(ctx, nil) })
	in := k.next("INFO")
	require.Equal(k.t, k.stack, in.From)
	require.Greater(k.t, in.Request().CSeq().SeqNo, k.seen())
	k.reply(in, dialogtest.Response{Code: 200})
	require.NoError(k.t, <-sent)
	_, err := copied.Take(ctx, r.Key, "third") // and lets go of it again
	require.NoError(k.t, err)
	require.NoError(k.t, d.SetAppData(nil))
	<-d.Done()
	k.stack = here
	k.kills++
}

// sends has the call send a request, after each message of which it may be killed.
func (k *killer) sends(do func(ctx context.Context) error, method string, responses ...dialogtest.Response) {
	k.t.Helper()
	sent := began(func() error { return do(context.Background()) })
	var in dialogtest.Received
	for i, r := range responses {
		if i == 0 || responses[i-1].Code >= 300 {
			in = k.next(method)
			k.kill()
		}
		k.reply(in, r)
		if r.Code < 200 {
			k.acknowledged()
		}
		if method == "INVITE" && r.Code >= 200 {
			k.next("ACK")
		}
	}
	require.NoError(k.t, <-sent)
}

// acknowledged answers a PRACK of the stack's.
func (k *killer) acknowledged() {
	in := k.next("PRACK")
	k.kill()
	k.reply(in, dialogtest.Response{Code: 200})
	synctest.Wait()
}

// notifies has the stack send NOTIFYs.
func (k *killer) notifies() {
	k.theirs("REFER", 202, withHeaders("Refer-To: <sip:carol@10.0.0.3>"))
	in := k.next("NOTIFY")
	k.kill()
	k.reply(in, dialogtest.Response{Code: 200})
	synctest.Wait()
	list := k.d.GetAllReferSubscriptions()
	k.sends(func(ctx context.Context) error { return list[len(list)-1].SendNotify(ctx, 200, "OK") }, "NOTIFY", dialogtest.Response{Code: 200})
}

// The next owner of a call begins above every number that its peer has seen, whenever the
// process dies: after a request of any method, one with credentials too (RFC 3261 22.2), and a
// PRACK to a re-INVITE (RFC 3262 4); as caller, and as a callee that has sent nothing before.
func TestNextOwnerBeginsAboveAllThatWasSeen(t *testing.T) {
	const requests = 1000
	for _, ours := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			k := newKiller(w, ours)
			ok, round := dialogtest.Response{Code: 200}, 0
			challenged := func(responses ...dialogtest.Response) []dialogtest.Response {
				if !ours {
					return responses // a callee has no credentials for its caller
				}
				header := fmt.Sprintf(`WWW-Authenticate: Digest realm="far", nonce="%d", stale=true, qop="auth"`, round)
				return append([]dialogtest.Response{{Code: 401, Headers: []string{header}}}, responses...)
			}
			holds := func(ctx context.Context) error {
				if round%2 == 1 {
					return k.d.Hold(ctx)
				}
				return k.d.Resume(ctx)
			}
			for k.kills < requests {
				round++
				info := func(ctx context.Context) error { return k.d.SendInfo(ctx, nil) }
				k.sends(info, "INFO", ok)
				k.sends(info, "INFO", challenged(ok)...)
				k.sends(func(ctx context.Context) error {
					_, err := k.d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{}))
					return err
				}, "OPTIONS", ok)
				k.sends(func(ctx context.Context) error { _, err := k.d.Update(ctx, nil); return err }, "UPDATE", challenged(ok)...)
				answer := granted(versioned(answerSDP, round+1))
				k.sends(holds, "INVITE", challenged(dialogtest.Response{Code: 183, Headers: reliably(round)}, answer)...)
				k.sends(func(ctx context.Context) error { return refers.do(ctx, k.d) }, "REFER", dialogtest.Response{Code: 202, Headers: []string{"Refer-Sub: false"}})
				k.notifies()
			}
			hangUp(t, k.d, k.peer)
			require.Greater(t, k.seen(), uint32(requests))
		})
	}
}

// A call that was restored, and that the store has not given to this process, may be another
// one's by now: until the store answers nothing is sent with a number of which the store does
// not know, but for its BYE, with credentials too.
func TestOnlyByeLeavesWithoutAReservedNumber(t *testing.T) {
	for _, back := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			ctx, store, p := context.Background(), newFaultyStore(), w.peer(peerIP)
			login := func(c *dialog.StackConfig) {
				c.Credentials = func(string) (string, string, bool) { return "us", "secret", true }
			}
			s := w.stack(stackIP, keeping(store))
			l := w.outgoing(s, p, "Allow: INVITE, UPDATE")
			l.next("ACK")
			text := w.written(l.d)
			store.fails(silent)
			w.crash(s)
			l.d = w.restored(w.stack(stackIP, keeping(store), login), text)
			before := len(w.saidBy(stackIP))
			requests := map[string]func() error{
				"INFO":    func() error { return l.d.SendInfo(ctx, nil) },
				"OPTIONS": func() error { _, err := l.d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{})); return err },
				"UPDATE":  func() error { _, err := l.d.Update(ctx, nil); return err },
				"INVITE":  func() error { return l.d.Hold(ctx) },
				"REFER":   func() error { return l.d.SendRefer(ctx, uri("carol", otherIP), nil) },
			}
			for method, do := range requests {
				began := time.Now()
				require.ErrorIs(t, do(), dialog.ErrTimeout, method)
				require.Less(t, time.Since(began), time.Second)
			}
			require.Len(t, w.saidBy(stackIP), before)
			l.theirs("REFER", 202, withHeaders("Refer-To: <sip:carol@10.0.0.3>"))
			time.Sleep(time.Second)
			require.Empty(t, w.sent(stackIP, "NOTIFY"))
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
			if back {
				store.fails(nil)
				time.Sleep(10 * time.Second)
				stop := p.answers(always(200))
				for method, do := range requests {
					_ = do()
					require.NotEmpty(t, w.sent(stackIP, method))
				}
				stop()
				require.Equal(t, 1, store.Len())
			}
			ended := began(func() error { return l.d.Bye(ctx, "") })
			challenge := `WWW-Authenticate: Digest realm="far", nonce="n", qop="auth"`
			l.reply(l.next("BYE"), dialogtest.Response{Code: 401, Headers: []string{challenge}})
			l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-ended)
			if !back { // the call has ended, and its numbers are not used elsewhere; a subscription continues
				notified := began(func() error { return l.d.GetAllReferSubscriptions()[0].SendNotify(ctx, 200, "OK") })
				l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
				require.NoError(t, <-notified)
			}
			store.fails(nil)
			time.Sleep(10 * time.Second)
			require.Zero(t, store.Len())
		})
	}
}

// The first request of a call that was restored waits until its numbers are reserved.
func TestRestoredCallWaitsForItsNumbers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store, p := newFaultyStore(), w.peer(peerIP)
		s := w.stack(stackIP, keeping(store))
		l := w.incoming(s, p)
		text := w.written(l.d)
		store.fails(silent)
		w.crash(s)
		store.fails(func(ctx context.Context, op string) error {
			if op != "Save" {
				return nil
			}
			return slow(100*time.Millisecond)(ctx, op)
		})
		l.d = w.restored(w.stack(stackIP, keeping(store)), text)
		began := time.Now()
		require.LessOrEqual(t, l.info(), store.ceiling(t))
		require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
		hangUp(t, l.d, p)
		time.Sleep(time.Second)
		require.Zero(t, store.Len())
	})
}
