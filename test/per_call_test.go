package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Functions of one call, and those of the stack that serve the calls without.

// OnRefer decides the REFERs of its call, instead of OnReferRequest, and says what follows
// the 202, instead of OnIncomingRefer.
func TestReferIsDecidedByItsCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		called := make(chan string, 10)
		b.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer {
			called <- "stack decides"
			return dialog.Answer{Status: 603}
		})
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { called <- "stack follows" })
		refers := func(to string, want int) []string {
			t.Helper()
			l.ask("REFER", withHeaders("Refer-To: <sip:"+to+"@"+otherIP+">"))
			require.Equal(t, want, p.final("REFER").StatusCode)
			synctest.Wait()
			return drained(called)
		}
		require.Equal(t, []string{"stack decides"}, refers("dora", 603))

		l.d.OnRefer(func(_ context.Context, r *dialog.ReferRequest) dialog.Answer {
			switch r.ReferTo.User {
			case "nobody":
				r.OnAccepted(func() { called <- "never" })
				return dialog.Answer{Status: 403}
			case "plain":
				return dialog.Answer{}
			}
			r.OnAccepted(func() {
				called <- "call follows"
				require.NoError(t, r.Subscription.SendNotify(context.Background(), 200, "OK"))
			})
			return dialog.Answer{}
		})
		require.Empty(t, refers("nobody", 403))
		require.Equal(t, []string{"stack follows"}, refers("plain", 202))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		require.Equal(t, []string{"call follows"}, refers("dora", 202))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		last := p.next("NOTIFY")
		require.Contains(t, string(request(last.Message).Body()), "200 OK")
		p.reply(last, dialogtest.Response{Code: 200})

		l.d.OnRefer(nil)
		require.Equal(t, []string{"stack decides"}, refers("dora", 603))
		require.NoError(t, l.d.Close())
	})
}

// A REFER is accepted, not declined, if its call alone has a function for it; a panic in
// what follows costs that function only.
func TestReferHandlerOfOneCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		l.d.OnRefer(func(_ context.Context, r *dialog.ReferRequest) dialog.Answer {
			if r.ReferTo.User == "bad" {
				r.OnAccepted(func() { panic("oh") })
			}
			return dialog.Answer{}
		})
		for _, user := range []string{"dora", "bad"} {
			l.ask("REFER", withHeaders("Refer-To: <sip:"+user+"@"+otherIP+">"))
			p.next("202 REFER")
			notify := p.next("NOTIFY")
			require.Contains(t, string(request(notify.Message).Body()), "100 Trying")
			p.reply(notify, dialogtest.Response{Code: 200})
			synctest.Wait()
		}
		require.Equal(t, uint64(1), b.Stats().Panics)
		require.Len(t, l.d.GetAllReferSubscriptions(), 2)
		require.NoError(t, l.d.Close())
	})
}

// OnCallRequest serves a method in all calls that have no handler of their own, and Allow
// lists it.
func TestRequestsInACallGoToItsHandlerOrTheStacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		served := make(chan string, 10)
		require.NoError(t, b.OnCallRequest("message", func(_ context.Context, call *dialog.Dialog, req *sip.Request) dialog.Answer {
			served <- fmt.Sprintf("stack, %t", call.Key().CallID == req.CallID().Value())
			return dialog.Answer{}
		}))
		l := w.incoming(b, p)
		require.Contains(t, w.one(stackIP, "180 INVITE").value(t, "Allow"), "MESSAGE")
		asks := func(method string, want int) []string {
			t.Helper()
			l.ask(method)
			require.Equal(t, want, p.final(method).StatusCode)
			synctest.Wait()
			return drained(served)
		}
		require.Equal(t, []string{"stack, true"}, asks("MESSAGE", 200))

		require.NoError(t, l.d.OnRequest("DANCE", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 299} }))
		require.Empty(t, asks("DANCE", 299))
		require.Equal(t, []string{"stack, true"}, asks("MESSAGE", 200))
		require.Contains(t, w.last(stackIP, "200 INVITE").value(t, "Allow"), "MESSAGE")
		require.Empty(t, asks("OPTIONS", 200))
		require.Contains(t, w.last(stackIP, "200 OPTIONS").value(t, "Allow"), "DANCE, MESSAGE")

		require.NoError(t, l.d.OnRequest("MESSAGE", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 202} }))
		require.Empty(t, asks("MESSAGE", 202))
		require.NoError(t, l.d.OnRequest("MESSAGE", nil))
		require.Equal(t, []string{"stack, true"}, asks("MESSAGE", 200))
		require.NoError(t, b.OnCallRequest("MESSAGE", nil))
		require.Empty(t, asks("MESSAGE", 405))
		for _, method := range []string{"INVITE", "REFER", "bye", "a b", ""} {
			require.ErrorIs(t, b.OnCallRequest(method, nil), dialog.ErrInvalidArgument, method)
		}
		require.NoError(t, l.d.Close())
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	})
}

// A key goes to the call's OnDTMF, else to its handler of INFO, else to the stack's OnDTMF,
// else to the stack's handler of INFO.
func TestKeysGoToTheNearestFunction(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		taken := make(chan string, 10)
		presses := func() []string {
			t.Helper()
			l.ask("INFO", withBody("5"), withHeaders("Content-Type: application/dtmf"))
			require.Equal(t, 200, p.final("INFO").StatusCode)
			synctest.Wait()
			return drained(taken)
		}
		require.NoError(t, b.OnCallRequest("INFO", func(context.Context, *dialog.Dialog, *sip.Request) dialog.Answer {
			taken <- "stack's INFO"
			return dialog.Answer{}
		}))
		require.Equal(t, []string{"stack's INFO"}, presses())
		b.OnDTMF(func(call *dialog.Dialog, key dialog.DTMF) {
			taken <- fmt.Sprintf("stack's key %c %t", key.Digit, call == l.d)
		})
		require.Equal(t, []string{"stack's key 5 true"}, presses())
		require.NoError(t, l.d.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer {
			taken <- "call's INFO"
			return dialog.Answer{}
		}))
		require.Equal(t, []string{"call's INFO"}, presses())
		l.d.OnDTMF(func(dialog.DTMF) { taken <- "call's key" })
		require.Equal(t, []string{"call's key"}, presses())
		l.d.OnDTMF(nil)
		require.NoError(t, l.d.OnRequest("INFO", nil))
		b.OnDTMF(nil)
		require.Equal(t, []string{"stack's INFO"}, presses())
		require.NoError(t, l.d.Close())
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
	})
}
