package test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/store/memory"
)

// OnRestored runs before the request that led to the call is handled: what it registers
// decides that request. It sees the application's data, and the call in the stack.
func TestOnRestoredRunsBeforeTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		l, k := w.keptCall("callee", store)
		require.NoError(t, l.d.SetAppData([]byte("account 7")))
		synctest.Wait()
		s, _ := l.failsOver(k, store)
		var told []string
		s.OnRestored(func(d *dialog.Dialog, why dialog.Takeover) {
			found, ok := s.DialogByKey(d.Key())
			require.True(t, ok && found == d)
			time.Sleep(time.Second)
			told = append(told, string(why.Method), string(d.AppData()))
			d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				return dialog.NewBody("application/sdp", []byte(versioned(answerSDP, 9))), nil
			})
			require.NoError(t, d.SetAppData([]byte("account 7, moved")))
		})
		l.theirs("INVITE", 200, withBody(versioned(offerSDP, 5)))
		require.Equal(t, []string{"INVITE", "account 7"}, told)
		require.Contains(t, w.last(stackIP, "200 INVITE").body(), "a=")
		d := oneCall(t, s)
		require.Equal(t, "account 7, moved", string(d.AppData()))
		hangUp(t, d, l.peer)
	})
}

// An OnRestored that misbehaves costs itself only.
func TestMisbehavingOnRestoredLeavesTheCallAlone(t *testing.T) {
	for name, c := range map[string]struct {
		callback func(d *dialog.Dialog)
		code     int
		longest  time.Duration
	}{
		"panic":           {func(*dialog.Dialog) { panic("in the application") }, 200, 0},
		"Goexit":          {func(*dialog.Dialog) { runtime.Goexit() }, 200, 0},
		"never returns":   {func(d *dialog.Dialog) { <-d.Done() }, 200, 2 * time.Second},
		"hangs up":        {func(d *dialog.Dialog) { _ = d.Close() }, 481, 0},
		"waits for a BYE": {func(d *dialog.Dialog) { _ = d.Bye(context.Background(), "") }, 481, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				l, k := w.keptCall("callee", store)
				s, _ := l.failsOver(k, store)
				s.OnRestored(func(d *dialog.Dialog, _ dialog.Takeover) { c.callback(d) })
				began := time.Now()
				l.ask("INFO")
				code := 0
				for code == 0 {
					in := l.nextAny()
					if req := in.Request(); req != nil {
						l.reply(in, dialogtest.Response{Code: 200})
					} else {
						code = in.Response().StatusCode
					}
				}
				require.Equal(t, c.code, code)
				require.LessOrEqual(t, time.Since(began), c.longest)
				w.answersAll(l.peer, "", dialogtest.Response{})
				time.Sleep(time.Second)
				for _, d := range s.Dialogs() {
					require.NoError(t, d.Close())
				}
				time.Sleep(time.Second)
				require.Zero(t, store.Len())
			})
		})
	}
}

// While OnRestored runs, or the store is asked, the requests of that call wait in their
// order, and those of no other call do.
func TestTakeoverKeepsNothingElseWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		l, k := w.keptCall("callee", store)
		s, k2 := l.failsOver(k, store, func(c *dialog.StackConfig) { c.StoreTimeout = 10 * time.Second })
		p := w.peer(otherIP)
		other := w.incoming(s, p)
		gate := make(chan struct{})
		k2.meets(func(_ context.Context, operation string) error {
			if operation == "Peek" {
				<-gate
			}
			return nil
		})
		for range 20 {
			l.ask("INFO")
		}
		synctest.Wait()
		other.theirs("INFO", 200)
		hangUp(t, other.d, p)
		require.Equal(t, 1, k2.calls("Peek"))
		close(gate)
		for range 20 {
			require.Equal(t, 200, l.peer.final("INFO").StatusCode, "each in order")
		}
		require.Equal(t, 1, k2.calls("Peek"), "the call is taken once")
		hangUp(t, oneCall(t, s), l.peer)
	})
}

// An ACK with an answer in it leads to its call, one without tells nothing.
func TestTakeoverByAnAck(t *testing.T) {
	for _, body := range []string{"", answerSDP} {
		bubble(t, func(t *testing.T, w *world) {
			store := memory.New()
			s, k := w.process(stackIP, store)
			p := w.peer(peerIP)
			l := w.rings(s, p, withBody(""), withHeaders("Allow: INVITE, UPDATE"))
			require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
			l.final = l.next("200 INVITE")
			synctest.Wait()
			s, k2 := l.failsOver(k, store)
			l.acknowledge(1, withBody(body))
			synctest.Wait()
			if body == "" {
				require.Zero(t, k2.calls("Peek"))
				require.Empty(t, s.Dialogs())
				l.seq = 1
				l.theirs("BYE", 200)
				return
			}
			require.Equal(t, 1, k2.calls("Peek"))
			hangUp(t, oneCall(t, s), p)
		})
	}
}

// A stack without a Store makes no queries. One that is being drained serves its requests, but
// does not search for calls.
func TestStacksThatTakeNoCallOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		s, k := w.process(stackIP, store)
		p := w.peer(peerIP)
		l := w.withTimer(s, p, "callee", 90*time.Second, true)
		s, k2 := l.failsOver(k, store)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, s.Drain(ended))
		time.Sleep(55 * time.Second)
		require.Zero(t, k2.calls("Take"))
		require.Empty(t, s.Dialogs())
		require.Equal(t, 200, l.answerTo("INFO").StatusCode)
		w.kill(s, k2)
		w.stack(stackIP)
		require.Equal(t, 481, l.answerTo("INFO").StatusCode)
	})
}
