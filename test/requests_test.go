package test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func TestHandlersAnswerRequestsOutsideCalls(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		require.NoError(t, b.OnRequest("message", func(_ context.Context, req *sip.Request) dialog.Answer {
			return dialog.Answer{Status: 202, Headers: []dialog.Header{{Name: "X-Got", Value: string(req.Body())}}}
		}))
		require.NoError(t, b.OnRequest("DANCE", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{} }))
		require.NoError(t, b.OnRequest("SUBSCRIBE", func(context.Context, *sip.Request) dialog.Answer { panic("in a handler") }))
		require.NoError(t, b.OnRequest("NOTIFY", func(ctx context.Context, _ *sip.Request) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{}
		}))
		ask := func(method string) *sip.Response {
			return p.ask(b, dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: method, Headers: []string{"Content-Type: text/plain"}, Body: "hello"})
		}
		res := ask("MESSAGE")
		require.Equal(t, 202, res.StatusCode)
		require.Equal(t, "hello", value(res, "X-Got"))
		require.Equal(t, 200, ask("DANCE").StatusCode)
		require.Equal(t, 500, ask("SUBSCRIBE").StatusCode)
		began := time.Now()
		require.Equal(t, 504, ask("NOTIFY").StatusCode)
		require.Equal(t, 2*time.Second, time.Since(began))
		res = ask("REFER")
		require.Equal(t, 405, res.StatusCode)
		require.Contains(t, value(res, "Allow"), "DANCE, MESSAGE")

		require.NoError(t, b.OnRequest("MESSAGE", nil))
		res = p.ask(b, dialogtest.Request{Method: "MESSAGE", URI: "sip:b@10.0.0.2", CallID: "again"})
		require.Equal(t, 405, res.StatusCode)
		for _, method := range []string{"INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", ""} {
			require.ErrorIs(t, b.OnRequest(method, nil), dialog.ErrInvalidArgument)
		}
	})
}

func TestHandlersOfACallAreCalledInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		var mu sync.Mutex
		var got []string
		require.NoError(t, callee.OnRequest("INFO", func(_ context.Context, req *sip.Request) dialog.Answer {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(req.Body()))
			return dialog.Answer{}
		}))
		require.NoError(t, callee.OnRequest("MESSAGE", func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{Status: 488} }))
		for _, digit := range strings.Split("0123456789", "") {
			require.NoError(t, caller.SendInfo(context.Background(), dialog.NewBody("application/dtmf-relay", []byte(digit))))
		}
		require.Equal(t, strings.Split("0123456789", ""), got)
		var refused *dialog.ResponseError
		require.ErrorAs(t, caller.SendMessage(context.Background(), dialog.NewBody("text/plain", []byte("hi"))), &refused)
		require.Equal(t, 488, refused.StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())

		req := sip.NewRequest(sip.OPTIONS, sip.Uri{})
		res, err := caller.Do(context.Background(), req)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode)
		require.Contains(t, value(res, "Allow"), "MESSAGE")
		for _, method := range []sip.RequestMethod{sip.INVITE, sip.BYE, sip.REFER, sip.NOTIFY, sip.ACK} {
			_, err := caller.Do(context.Background(), sip.NewRequest(method, sip.Uri{}))
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
		_, err = caller.Do(context.Background(), req)
		require.ErrorIs(t, err, dialog.ErrTerminated)
	})
}

// RFC 5057 5.1: 481 to an INFO ends the call, to a MESSAGE it does not.
func TestFailedRequestsEndWhatTheyShould(t *testing.T) {
	for method, ends := range map[sip.RequestMethod]bool{sip.INFO: true, sip.MESSAGE: false, sip.OPTIONS: false} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			d, _ := w.called(b, p, answerSDP)
			done := make(chan struct{})
			go func() {
				defer close(done)
				res, err := d.Do(context.Background(), sip.NewRequest(method, sip.Uri{}))
				if err != nil || res.StatusCode != 481 {
					t.Errorf("do: %v %v", res, err)
				}
			}()
			p.reply(p.next(string(method)), dialogtest.Response{Code: 481})
			<-done
			synctest.Wait()
			require.Len(t, w.sent("10.0.0.2", "BYE"), map[bool]int{true: 1, false: 0}[ends])
			hangUp(t, d, p)
		})
	}
}

func TestDoRegistersWithCredentials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		req := sip.NewRequest(sip.REGISTER, uri("", "10.0.0.9"))
		req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{User: "alice"}})
		req.AppendHeader(sip.NewHeader("Expires", "60"))
		results := make(chan *sip.Response, 1)
		go func() {
			res, err := a.Do(context.Background(), req)
			if err != nil {
				t.Errorf("do: %v", err)
			}
			results <- res
		}()
		first := p.next("REGISTER")
		require.Equal(t, "<sip:alice@10.0.0.1:5060>", value(first.Message, "Contact"))
		require.Contains(t, first.Request().From().Value(), "<sip:SoftPhone@10.0.0.1>;tag=")
		p.reply(first, dialogtest.Response{Code: 401, ToTag: "r", Headers: []string{challenge}})
		second := p.next("REGISTER")
		checkCredentials(t, second.Message, "n1", 1)
		require.EqualValues(t, 2, second.Request().CSeq().SeqNo)
		require.Equal(t, first.Request().CallID().Value(), second.Request().CallID().Value())
		p.reply(second, dialogtest.Response{Code: 200, ToTag: "r"})
		require.Equal(t, 200, (<-results).StatusCode)
		require.Nil(t, req.CallID(), "the application's request is not changed")
	})
}

func TestDoEndsWithItsContextAndOnSilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		w.peer("10.0.0.9")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := a.Do(ctx, sip.NewRequest(sip.OPTIONS, uri("x", "10.0.0.9")))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, uri("x", "10.0.0.9")))
		require.ErrorIs(t, err, dialog.ErrTimeout)
		for _, bad := range []*sip.Request{nil, sip.NewRequest(sip.INVITE, uri("x", "10.0.0.9")), sip.NewRequest(sip.OPTIONS, sip.Uri{})} {
			_, err = a.Do(context.Background(), bad)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		}
	})
}

// A stack that shuts down begins nothing for anybody.
func TestHandlersAreNotCalledDuringShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, p := w.stack("10.0.0.1"), w.stack("10.0.0.2"), w.peer("10.0.0.9")
		require.NoError(t, a.OnRequest("MESSAGE", func(context.Context, *sip.Request) dialog.Answer {
			t.Error("must not be called")
			return dialog.Answer{}
		}))
		b.OnIncomingDialog(func(dialog.IDialog) {})
		_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
		require.NoError(t, err)
		synctest.Wait()
		w.net.Host("10.0.0.2").Unreachable(true) // its 487 does not come
		down := began(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return a.Shutdown(ctx)
		})
		synctest.Wait()
		require.Equal(t, 503, p.ask(a, dialogtest.Request{Method: "MESSAGE", URI: "sip:a@10.0.0.1"}).StatusCode)
		require.NoError(t, <-down)
		w.net.Host("10.0.0.2").Unreachable(false)
	})
}

// A handler that does not return does not keep its request from being answered
// when the stack ends.
func TestOpenDecisionsAreAnsweredWhenTheStackEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		leave := make(chan struct{})
		require.NoError(t, a.OnRequest("MESSAGE", func(context.Context, *sip.Request) dialog.Answer { <-leave; return dialog.Answer{} }))
		require.NoError(t, p.Send(a.Addr(), p.Request(dialogtest.Request{Method: "MESSAGE", URI: "sip:a@10.0.0.1"})))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var incomplete *dialog.ShutdownError
		require.ErrorAs(t, a.Shutdown(ctx), &incomplete)
		require.Equal(t, 1, incomplete.Callbacks)
		require.Equal(t, 503, p.final("MESSAGE").StatusCode)
		close(leave)
		w.stacks = nil // it has been shut down, with an error
	})
}

// An application can take any request outside calls that is not about a call.
func TestHandlersTakeEveryMethodOutsideCalls(t *testing.T) {
	for _, method := range []string{"OPTIONS", "MESSAGE", "NOTIFY", "REFER", "SUBSCRIBE", "REGISTER", "PUBLISH"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
				require.NoError(t, b.OnRequest(method, func(_ context.Context, req *sip.Request) dialog.Answer {
					return dialog.Answer{Status: 299, Headers: []dialog.Header{{Name: "X-From", Value: req.Source()}}}
				}))
				res := p.ask(b, dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: "outside", Headers: []string{"Refer-To: <sip:c@10.0.0.3>", "Event: presence"}})
				require.Equal(t, 299, res.StatusCode)
				require.Equal(t, "10.0.0.9:5060", value(res, "X-From"))
			})
		})
	}
}

// Stack.Do sends any request from the stack's own socket, and answers
// challenges: there is no need for another SIP stack beside this one.
func TestDoSendsAnyRequestFromTheStacksSocket(t *testing.T) {
	for _, method := range []sip.RequestMethod{sip.OPTIONS, sip.MESSAGE, sip.REGISTER, sip.SUBSCRIBE, sip.PUBLISH} {
		t.Run(string(method), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
				result := make(chan int, 1)
				go func() {
					res, err := a.Do(context.Background(), sip.NewRequest(method, uri("service", "10.0.0.9")))
					if err != nil {
						t.Errorf("do: %v", err)
						close(result)
						return
					}
					result <- res.StatusCode
				}()
				p.reply(p.next(string(method)), dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
				again := p.next(string(method))
				require.NotEmpty(t, value(again.Message, "Authorization"))
				p.reply(again, dialogtest.Response{Code: 200, ToTag: "x"})
				require.Equal(t, 200, <-result)
				for _, m := range w.sent("10.0.0.1", string(method)) {
					require.Equal(t, a.Addr(), m.from)
				}
			})
		})
	}
}
