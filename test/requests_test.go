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
	"sipdialog.example/dialog/internal/testkit"
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
		require.Equal(t, "hello", testkit.Value(res, "X-Got"))
		require.Equal(t, 200, ask("DANCE").StatusCode)
		require.Equal(t, 500, ask("SUBSCRIBE").StatusCode)
		began := time.Now()
		require.Equal(t, 504, ask("NOTIFY").StatusCode)
		require.Equal(t, 2*time.Second, time.Since(began))
		res = ask("REFER")
		require.Equal(t, 405, res.StatusCode)
		require.Contains(t, testkit.Value(res, "Allow"), "DANCE, MESSAGE")

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
		require.Contains(t, testkit.Value(res, "Allow"), "MESSAGE")
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
func TestFailedRequestsEndTheirUsage(t *testing.T) {
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
		require.Equal(t, "<sip:alice@10.0.0.1:5060>", testkit.Value(first.Message, "Contact"))
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
				require.Equal(t, "10.0.0.9:5060", testkit.Value(res, "X-From"))
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
				require.NotEmpty(t, testkit.Value(again.Message, "Authorization"))
				p.reply(again, dialogtest.Response{Code: 200, ToTag: "x"})
				require.Equal(t, 200, <-result)
				for _, m := range w.sent("10.0.0.1", string(method)) {
					require.Equal(t, a.Addr(), m.from)
					for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq", "Content-Length"} { // RFC 3261 8.1.1
						require.NotEmpty(t, m.value(t, name), name)
					}
					require.Equal(t, "70", m.value(t, "Max-Forwards"))
				}
			})
		})
	}
}

// FD3. RFC 6665 4.1, 4.2: the application's own subscriptions are dialogs of which
// the stack knows nothing.
func TestRequestsInDialogsOfTheApplicationsReachItsHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		notified := make(chan string, 1)
		require.NoError(t, a.OnRequest("NOTIFY", func(_ context.Context, req *sip.Request) dialog.Answer {
			notified <- testkit.Value(req, "Event") + " " + testkit.ToTag(req)
			return dialog.Answer{}
		}))
		req := sip.NewRequest(sip.SUBSCRIBE, uri("mwi", peerIP))
		req.AppendHeader(sip.NewHeader("Event", "message-summary"))
		done := began(func() error { _, err := a.Do(context.Background(), req); return err })
		subscribe := p.next("SUBSCRIBE")
		p.reply(subscribe, dialogtest.Response{Code: 200, ToTag: farTag})
		require.NoError(t, <-done)
		ours := testkit.FromTag(subscribe.Message)
		res := p.ask(a, dialogtest.Request{
			Method: "NOTIFY", URI: "sip:mwi@" + stackIP, FromTag: farTag, ToTag: ours, CallID: subscribe.Request().CallID().Value(),
			Headers: []string{"Event: message-summary", "Subscription-State: active;expires=60"},
		})
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, ours, testkit.ToTag(res))
		require.Equal(t, "message-summary "+ours, <-notified)
	})
}

func TestSubscribeThatRefreshesReachesTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		tags := make(chan string, 2)
		require.NoError(t, b.OnRequest("SUBSCRIBE", func(_ context.Context, req *sip.Request) dialog.Answer {
			tags <- testkit.ToTag(req)
			return dialog.Answer{Status: 202}
		}))
		r := dialogtest.Request{Method: "SUBSCRIBE", URI: "sip:b@10.0.0.2", Headers: []string{"Event: presence"}}
		first := p.ask(b, r)
		require.Equal(t, 202, first.StatusCode)
		require.Empty(t, <-tags)
		r.ToTag, r.CSeq = testkit.ToTag(first), 2
		again := p.ask(b, r)
		require.Equal(t, 202, again.StatusCode)
		require.Equal(t, testkit.ToTag(first), testkit.ToTag(again))
		require.Equal(t, testkit.ToTag(first), <-tags)
	})
}

// Only the methods that have a handler, and never what belongs to a call of ours.
func TestRequestsInUnknownDialogsGet481WithoutAHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		for _, method := range []string{"NOTIFY", "MESSAGE", "OPTIONS"} {
			require.NoError(t, b.OnRequest(method, func(_ context.Context, req *sip.Request) dialog.Answer {
				return dialog.Answer{Status: 299}
			}))
		}
		unknown := func(method string, headers ...string) int {
			return p.ask(b, dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: "unknown", ToTag: "nosuch", Headers: headers}).StatusCode
		}
		for _, method := range []string{"NOTIFY", "MESSAGE", "OPTIONS"} {
			require.Equal(t, 299, unknown(method, "Event: presence"), method)
		}
		for _, method := range []string{"SUBSCRIBE", "REFER", "INFO", "UPDATE", "PRACK", "BYE", "DANCE", "INVITE"} {
			require.Equal(t, 481, unknown(method), method)
		}

		// In a call of ours, while it lasts and for a while after.
		d, inside := w.called(b, p, answerSDP)
		require.Equal(t, 489, p.ask(b, inside("NOTIFY", 11, "Event: presence")).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("NOTIFY", 12, "Event: refer")).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 13)).StatusCode)
		<-d.Done()
		synctest.Wait()
		require.Equal(t, 481, p.ask(b, inside("MESSAGE", 14)).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("NOTIFY", 15, "Event: refer")).StatusCode)
		time.Sleep(33 * time.Second) // on the fake clock: 64*T1
		require.Equal(t, 299, p.ask(b, inside("MESSAGE", 16)).StatusCode, "nobody remembers the call")
	})
}

// A REFER of ours outside calls that a proxy has forked: the first peer that is
// heard of is the one, whatever the application serves.
func TestNotifyOfASecondForkOfAReferIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		require.NoError(t, a.OnRequest("NOTIFY", func(context.Context, *sip.Request) dialog.Answer {
			t.Error("must not reach the application")
			return dialog.Answer{}
		}))
		done := began(func() error {
			r, err := a.Refer(context.Background(), uri("phone", peerIP), uri("carol", otherIP), dialog.ReferOpts{})
			if err == nil {
				_, err = r.Wait(context.Background())
			}
			return err
		})
		refer := p.next("REFER")
		p.reply(refer, dialogtest.Response{Code: 202, ToTag: farTag})
		notify := func(tag, status string) int {
			return p.ask(a, dialogtest.Request{
				Method: "NOTIFY", URI: "sip:a@" + stackIP, FromTag: tag, ToTag: testkit.FromTag(refer.Message), CallID: refer.Request().CallID().Value(),
				Headers: []string{"Event: refer", "Subscription-State: terminated;reason=noresource", "Content-Type: message/sipfrag"}, Body: status,
			}).StatusCode
		}
		require.Equal(t, 481, notify("second", "SIP/2.0 200 OK"))
		require.Equal(t, 200, notify(farTag, "SIP/2.0 603 Decline"))
		require.NoError(t, <-done)
	})
}

// The rows of the answers for requests outside a dialog.
func TestAnswersOutsideADialog(t *testing.T) {
	invite := func(r dialogtest.Request) dialogtest.Request {
		r.Method, r.URI = "INVITE", "sip:bob@10.0.0.2"
		if r.Headers == nil {
			r.Headers = []string{contactOfPeer}
		}
		return r
	}
	plain := func(method string) dialogtest.Request {
		return dialogtest.Request{Method: method, URI: "sip:bob@10.0.0.2"}
	}
	subscribe := func(event string) dialogtest.Request {
		r := plain("SUBSCRIBE")
		r.Headers = []string{event}
		return r
	}
	withTo := func(method string) dialogtest.Request {
		r := plain(method)
		r.ToTag = "nosuch"
		return r
	}
	cases := []struct {
		name   string
		ask    dialogtest.Request
		status int
		header string
		value  string
	}{
		{"method not recognised", plain("DANCE"), 501, "", ""},
		{"REGISTER not served", plain("REGISTER"), 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"PUBLISH not served", plain("PUBLISH"), 405, "Allow", ""},
		{"SUBSCRIBE to an event we do not know", subscribe("Event: presence"), 489, "Allow-Events", "refer"},
		{"SUBSCRIBE without an event", plain("SUBSCRIBE"), 489, "Allow-Events", "refer"},
		{"SUBSCRIBE to a REFER that was none", subscribe("Event: refer"), 403, "", ""},
		{"MESSAGE without handler", plain("MESSAGE"), 405, "Allow", ""},
		// FD11. RFC 3261 21.4.6: served inside calls only, and not listed here.
		{"REFER without handler", plain("REFER"), 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"UPDATE outside a dialog", plain("UPDATE"), 481, "", ""},
		{"PRACK outside a dialog", plain("PRACK"), 481, "", ""},
		{"BYE outside a dialog", plain("BYE"), 481, "", ""},
		{"INFO outside a dialog", plain("INFO"), 481, "", ""},
		{"NOTIFY outside a dialog", plain("NOTIFY"), 481, "", ""},
		{"CANCEL that matches nothing", plain("CANCEL"), 481, "", ""},
		{"OPTIONS", plain("OPTIONS"), 200, "Accept", "application/sdp"},
		{"tel URI", dialogtest.Request{Method: "OPTIONS", URI: "tel:+431234"}, 416, "", ""},
		{"Require with an unknown tag", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Require: bar, timer, 100rel, foo"}}), 420, "Unsupported", "bar, foo"},
		{"Require: replaces", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Require: replaces", "Replaces: x;from-tag=a;to-tag=b"}}), 481, "", ""},
		{"Proxy-Require is not ours", dialogtest.Request{Method: "OPTIONS", URI: "sip:bob@10.0.0.2", Headers: []string{"Proxy-Require: foo"}}, 200, "", ""},
		{"INVITE without Contact", invite(dialogtest.Request{Headers: []string{noContact}}), 400, "", ""},
		{"INVITE with two Contacts", invite(dialogtest.Request{Headers: []string{contactOfPeer, contactOfPeer}}), 400, "", ""},
		{"INVITE with a body of another type", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Content-Type: text/plain"}, Body: "hello"}), 415, "Accept", "application/sdp"},
		{"INVITE with an encoded body", invite(dialogtest.Request{Headers: []string{contactOfPeer, "Content-Encoding: gzip", "Content-Type: application/sdp"}, Body: "zip"}), 415, "Accept-Encoding", "identity"},
		{"INFO for an unknown dialog", withTo("INFO"), 481, "", ""},
		{"BYE for an unknown dialog", withTo("BYE"), 481, "", ""},
		{"re-INVITE for an unknown dialog", dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", ToTag: "nosuch", Headers: []string{contactOfPeer}}, 481, "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.AcceptBodies = []string{"application/sdp"} })
				b.OnIncomingDialog(func(dialog.IDialog) { t.Error("must not reach the application") })
				p := w.peer("10.0.0.9")
				res := p.ask(b, c.ask)
				require.Equal(t, c.status, res.StatusCode)
				if c.value != "" {
					require.Equal(t, c.value, testkit.Value(res, c.header))
				} else if c.header != "" {
					require.NotEmpty(t, testkit.Value(res, c.header))
				}
			})
		})
	}
}

// The rows of the answers for requests inside a dialog.
func TestAnswersInsideADialog(t *testing.T) {
	cases := []struct {
		name    string
		method  string
		seq     uint32
		headers []string
		status  int
		header  string
		value   string
	}{
		{"INFO", "INFO", 11, nil, 200, "", ""},
		{"INFO with an unknown package", "INFO", 11, []string{"Info-Package: foo"}, 469, "Recv-Info", ""},
		{"OPTIONS", "OPTIONS", 11, nil, 200, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"MESSAGE without handler", "MESSAGE", 11, nil, 405, "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"},
		{"SUBSCRIBE without an event", "SUBSCRIBE", 11, nil, 489, "Allow-Events", "refer"},
		{"SUBSCRIBE to another event", "SUBSCRIBE", 11, []string{"Event: presence"}, 489, "Allow-Events", "refer"},
		{"UPDATE", "UPDATE", 11, []string{contactOfPeer}, 200, "", ""},
		{"PRACK that matches nothing", "PRACK", 11, []string{"RAck: 1 10 INVITE"}, 481, "", ""},
		{"CSeq equal", "INFO", 10, nil, 500, "", ""},
		{"CSeq lower", "INFO", 9, nil, 500, "", ""},
		{"BYE with a lower CSeq", "BYE", 9, nil, 500, "", ""},
		{"NOTIFY without subscription", "NOTIFY", 11, []string{"Event: refer"}, 481, "", ""},
		{"NOTIFY of another event", "NOTIFY", 11, []string{"Event: presence"}, 489, "Allow-Events", "refer"},
		{"REFER without Refer-To", "REFER", 11, []string{contactOfPeer}, 400, "", ""},
		{"REFER with two", "REFER", 11, []string{contactOfPeer, "Refer-To: <sip:a@b>", "Refer-To: <sip:c@d>"}, 400, "", ""},
		{"REFER", "REFER", 11, []string{contactOfPeer, "Refer-To: <sip:c@10.0.0.3>"}, 202, "", ""},
		{"Require with an unknown tag", "INFO", 11, []string{"Require: foo"}, 420, "Unsupported", "foo"},
		{"BYE", "BYE", 11, nil, 200, "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
				d, inside := w.called(b, p, answerSDP)
				res := p.ask(b, inside(c.method, c.seq, c.headers...))
				require.Equal(t, c.status, res.StatusCode)
				if c.value != "" {
					require.Equal(t, c.value, testkit.Value(res, c.header))
				}
				if c.method != "BYE" || c.status != 200 {
					require.Equal(t, dialog.DialogStateEstablished, d.State())
					require.NoError(t, d.Close())
					bye := p.next("BYE")
					p.reply(bye, dialogtest.Response{Code: 200})
				}
			})
		})
	}
}

// C11, RFC 3261 12.2.2: a CSeq that is not higher than the last gets 500; a
// retransmission gets its answer again; an ACK may have any.
func TestCSeqOfThePeerIsChecked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		numbered := func(seq uint32) func(*dialogtest.Request) {
			return func(r *dialogtest.Request) { r.CSeq = seq }
		}
		text := l.ask("INFO", numbered(10))
		first := p.next("200 INFO")
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("200 INFO").Data))
		for _, seq := range []uint32{10, 9, 1} {
			l.ask("INFO", numbered(seq))
			require.Equal(t, seq, p.next("500 INFO").Response().CSeq().SeqNo)
		}
		// None of these has moved the number.
		l.ask("INFO", numbered(11))
		p.next("200 INFO")
		// A gap is allowed.
		l.ask("INFO", numbered(4000))
		p.next("200 INFO")
		l.ask("BYE", numbered(3999))
		p.next("500 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.ask("BYE", numbered(4001))
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// C11: what a user agent has to understand inside a call is not answered 405.
func TestMethodsInsideACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("INFO", withHeaders("Content-Type: application/dtmf-relay"), withBody("Signal=1\r\n"))
		p.next("200 INFO")
		l.ask("INFO", withHeaders("Info-Package: x"))
		p.next("469 INFO")
		synctest.Wait()
		require.Len(t, w.one(stackIP, "469 INFO").values("Recv-Info"), 1)

		l.ask("OPTIONS")
		p.next("200 OPTIONS")
		synctest.Wait()
		options := w.one(stackIP, "200 OPTIONS")
		require.Contains(t, options.value(t, "Allow"), "NOTIFY, INFO")
		require.Equal(t, "application/sdp", options.value(t, "Accept"))
		require.Equal(t, "norefersub, nosub, timer, replaces, 100rel", options.value(t, "Supported"))

		l.ask("NOTIFY", withHeaders("Event: refer", "Subscription-State: active"))
		p.next("481 NOTIFY")
		l.ask("NOTIFY", withHeaders("Event: presence", "Subscription-State: active"))
		p.next("489 NOTIFY")
		synctest.Wait()
		require.Equal(t, "refer", w.one(stackIP, "489 NOTIFY").value(t, "Allow-Events"))

		l.ask("MESSAGE")
		p.next("405 MESSAGE")
		synctest.Wait()
		require.Contains(t, w.one(stackIP, "405 MESSAGE").value(t, "Allow"), "INVITE")
		l.ask("NONSENSE")
		p.next("501 NONSENSE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
	})
}

const (
	servedAnyhow = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"
	servedToo    = servedAnyhow + ", DANCE, MESSAGE"
)

// serves has a call serve what is not served anyhow.
func serves(t *testing.T, d *dialog.Dialog) {
	for _, method := range []string{"MESSAGE", "DANCE", "INFO"} {
		if err := d.OnRequest(method, func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{} }); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// FD11. RFC 3261 20.5: what a call serves is listed in all that it says of that, and
// what it refuses is not.
func TestAllowListsTheMethodsOfACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		require.Equal(t, servedAnyhow, w.one(stackIP, "180 INVITE").value(t, "Allow"))
		serves(t, l.d)
		require.NoError(t, l.d.Provisional(context.Background(), 183, ""))
		l.accepted()
		require.Equal(t, servedToo, w.one(stackIP, "183 INVITE").value(t, "Allow"))
		require.Equal(t, servedToo, testkit.Value(l.final.Message, "Allow"))
		for _, method := range []string{"UPDATE", "OPTIONS"} {
			l.ask(method)
			require.Equal(t, servedToo, testkit.Value(l.peer.final(method), "Allow"), method)
		}
		for method, code := range map[string]int{"PUBLISH": 405, "SING": 501} {
			l.ask(method)
			res := l.peer.final(method)
			require.Equal(t, code, res.StatusCode)
			require.Equal(t, servedToo, testkit.Value(res, "Allow"))
		}
		l.hangUp(p)
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		opts := offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) { serves(t, d) }
		l := w.calls(w.stack(stackIP), p, opts)
		require.Equal(t, servedToo, testkit.Value(l.invite.Message, "Allow"))
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		done := began(func() error { _, err := l.d.Update(context.Background(), nil); return err })
		update := p.next("UPDATE")
		require.Equal(t, servedToo, testkit.Value(update.Message, "Allow"))
		p.reply(update, dialogtest.Response{Code: 200})
		require.NoError(t, <-done)
		l.hangUp(p)
	})
}

// nilBody is a Body of the application's that does not survive a nil pointer.
type nilBody struct{ text string }

func (b *nilBody) ContentType() string { return b.text }

func (b *nilBody) Data() []byte { return []byte(b.text) }

func answersWithNil(context.Context, *sip.Request) dialog.Answer {
	return dialog.Answer{Body: (*nilBody)(nil)}
}

// A handler's answer with a nil pointer for a Body left the request unanswered.
func TestNilBodyInAnAnswerInsideACallGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.incoming(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.OnRequest("INFO", answersWithNil))
		l.ask("INFO")
		l.next("500 INFO")
	})
}

// Outside calls it ended the process.
func TestNilBodyInAnAnswerOutsideCallsGets500(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		require.NoError(t, b.OnRequest("MESSAGE", answersWithNil))
		w.say(p, b, p.Request(dialogtest.Request{Method: "MESSAGE", URI: "sip:x@" + stackIP}))
		p.next("500 MESSAGE")
	})
}

// peerless starts a stack that has credentials for a realm.
func (w *world) peerless(ip, realm string) *dialog.Stack {
	return w.stack(ip, func(c *dialog.StackConfig) {
		c.Credentials = func(asked string) (string, string, bool) { return "alice", "secret", asked == realm }
	})
}
