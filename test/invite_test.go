package test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// C4: the offer of the INVITE reaches an OnBody that was registered when the
// call was offered; the first to register gets it, once.
func TestOfferOfTheInviteReachesTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		got := make(chan string, 10)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnBody(func(body dialog.Body) { got <- body.ContentType() + "\n" + string(body.Data()) })
			// OnBody has returned: the kept body has been delivered.
			if len(got) != 1 {
				t.Error("the offer was not delivered when OnBody returned")
			}
			d.OnBody(func(dialog.Body) { t.Error("the offer was delivered twice") })
		})
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:s@" + stackIP, Body: offerSDP})))
		p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(got))
	})
}

// C4: it also reaches one that registers after the callback has returned, until it
// is answered (TestOnBodyAfterAcceptBeginsWithTheNextBody).
func TestOfferIsKeptForACallbackRegisteredLater(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(bodies(l.d)))
		require.Empty(t, drained(bodies(l.d)))
	})
}

// The callee learns who calls, and when what happened; what it is given is its
// own.
func TestCalleeSeesTheCallAsItCame(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		began := time.Now()
		opts := offer(offerSDP)
		opts.From = &dialog.Address{DisplayName: "Alice", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
		opts.Headers = []dialog.Header{{Name: "Subject", Value: "lunch"}}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		callee := <-calls
		time.Sleep(3 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		synctest.Wait()

		info := callee.Info()
		require.False(t, info.IsUAC)
		require.Equal(t, "Alice", info.Remote.DisplayName)
		require.Equal(t, "sip:alice@example.com", info.Remote.URI.String())
		require.Equal(t, "sip:bob@10.0.0.2:5060", info.Local.URI.String())
		require.Len(t, info.History, 2)
		require.Equal(t, began, info.History[0].At)
		require.Equal(t, began.Add(3*time.Second), info.History[1].At)

		req := callee.Request()
		require.Equal(t, "sip:bob@10.0.0.2:5060", req.Recipient.String())
		require.Equal(t, `"Alice" <sip:alice@example.com>;tag=`+d.Key().LocalTag, req.From().Value())
		require.Equal(t, "lunch", testkit.Value(req, "Subject"))
		require.Equal(t, "10.0.0.1:5060", req.Source())
		require.Equal(t, "UDP", req.Transport())
		require.Equal(t, offerSDP, string(req.Body()))
		req.From().Address.User, req.Body()[0] = "mallory", 'x'
		req.RemoveHeader("Subject")
		again := callee.Request()
		require.Equal(t, "alice", again.From().Address.User)
		require.Equal(t, offerSDP, string(again.Body()))
		require.Equal(t, "lunch", testkit.Value(again, "Subject"))
		require.NoError(t, d.Close())
		<-callee.Done()
		require.Nil(t, d.(*dialog.Dialog).Request(), "a call of ours")
	})
}

// Headers of the application are in every request that may have them, and in the 2xx.
func TestFurtherHeadersGoWithEveryRequest(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		asserted := dialog.Header{Name: "P-Asserted-Identity", Value: "<sip:alice@example.com>"}
		ctx := context.Background()
		b.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Accept(ctx, withSDP(answerSDP), dialog.WithHeader("P-Asserted-Identity", "<sip:bob@example.com>")); err != nil {
				t.Errorf("accept: %v", err)
			}
		})
		opts := offer(offerSDP)
		opts.Headers = []dialog.Header{asserted}
		d, err := a.NewInvite(ctx, uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		call := d.(*dialog.Dialog)
		require.NoError(t, call.WaitAnswer(ctx))
		synctest.Wait()
		require.NoError(t, call.ReInvite(ctx, opts))
		require.NoError(t, call.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{Headers: map[string]string{asserted.Name: asserted.Value}}))
		require.NoError(t, call.ByeWith(ctx, dialog.ByeOpts{Headers: []dialog.Header{asserted}}))
		synctest.Wait()
		invites := w.sent("10.0.0.1", "INVITE")
		require.Len(t, invites, 2)
		for _, m := range append(invites, w.sent("10.0.0.1", "REFER")[0], w.sent("10.0.0.1", "BYE")[0]) {
			require.Equal(t, asserted.Value, testkit.Value(m.msg, asserted.Name), m.raw)
		}
		require.Equal(t, "<sip:bob@example.com>", testkit.Value(w.sent("10.0.0.2", "200 INVITE")[0].msg, asserted.Name))
	})
}

func TestFromOfAnInvite(t *testing.T) {
	alice := &dialog.Address{DisplayName: "Alice \"A\"", URI: sip.Uri{Scheme: "sip", User: "alice", Host: "example.com"}}
	cases := []struct {
		name string
		opts dialog.InviteOpts
		from string
		more map[string]string
	}{
		{"by default", dialog.InviteOpts{}, "<sip:SoftPhone@10.0.0.1>", nil},
		{"as the call says", dialog.InviteOpts{From: alice}, `"Alice \"A\"" <sip:alice@example.com>`, nil},
		{"without a host", dialog.InviteOpts{From: &dialog.Address{URI: sip.Uri{User: "bob"}}}, "<sip:bob@10.0.0.1>", nil},
		{"anonymously", dialog.InviteOpts{From: alice, Anonymous: true}, `"Anonymous" <sip:anonymous@anonymous.invalid>`, map[string]string{"Privacy": "id"}},
		{"with headers", dialog.InviteOpts{Headers: []dialog.Header{
			{Name: "P-Asserted-Identity", Value: "<sip:a@b>"}, {Name: "X-Tab", Value: "a\tb"},
		}}, "<sip:SoftPhone@10.0.0.1>", map[string]string{"P-Asserted-Identity": "<sip:a@b>", "X-Tab": "a\tb", "Max-Forwards": "70"}},
		{"with fewer hops", dialog.InviteOpts{MaxForwards: 7}, "<sip:SoftPhone@10.0.0.1>", map[string]string{"Max-Forwards": "7"}},
		{"with a contact", dialog.InviteOpts{Contact: &sip.Uri{Scheme: "sip", User: "me", Host: "10.0.0.1", Port: 5060}}, "<sip:SoftPhone@10.0.0.1>",
			map[string]string{"Contact": "<sip:me@10.0.0.1:5060>"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
				call := w.calls(a, p, c.opts)
				d, in := call.d, call.invite
				tag := d.Key().LocalTag
				require.Equal(t, c.from+";tag="+tag, in.Request().From().Value())
				for name, want := range c.more {
					require.Equal(t, want, testkit.Value(in.Message, name))
				}
				p.reply(in, dialogtest.Response{Code: 486, ToTag: "x"})
			})
		})
	}
}

func TestSetupMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		seen := &states{}
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{Setup: func(d *dialog.Dialog) { seen = watch(d) }})
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
		require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTrying, dialog.DialogStateTerminated}, seen.seen())

		_, err = a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{Setup: func(*dialog.Dialog) { panic("setup") }})
		require.ErrorIs(t, err, dialog.ErrPanic)
		require.Empty(t, a.Dialogs())
	})
}

func TestEarlyMediaAndRedirection(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		calls := waiting(b)
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer, "Subject: hello"}, Body: offerSDP})))
		d := <-calls
		req := d.Request()
		require.Equal(t, "hello", testkit.Value(req, "Subject"))
		require.Equal(t, "10.0.0.9:5060", req.Source())
		require.Equal(t, offerSDP, string(req.Body()))
		require.NotSame(t, req, d.Request())

		require.ErrorIs(t, d.Provisional(context.Background(), 200, ""), dialog.ErrInvalidArgument)
		require.NoError(t, d.Provisional(context.Background(), 183, "", dialog.WithBody(dialog.NewBody("application/sdp", []byte(answerSDP)))))
		early := p.next("183 INVITE")
		require.Equal(t, answerSDP, string(early.Message.Body()))
		require.NotEmpty(t, testkit.Value(early.Message, "Contact"))

		require.NoError(t, d.RejectWith(context.Background(), 302, "", dialog.WithContacts(uri("carol", "10.0.0.3")),
			dialog.WithRetryAfter(90*time.Second), dialog.WithWarning(399, "moved"), dialog.WithHeader("X-Why", "because")))
		res := p.final("INVITE")
		require.Equal(t, 302, res.StatusCode)
		require.Equal(t, "<sip:carol@10.0.0.3:5060>", testkit.Value(res, "Contact"))
		require.Len(t, res.GetHeaders("Contact"), 1)
		require.Equal(t, "90", testkit.Value(res, "Retry-After"))
		require.Equal(t, `399 dialog "moved"`, testkit.Value(res, "Warning"))
		require.Equal(t, "because", testkit.Value(res, "X-Why"))
		require.Error(t, d.Provisional(context.Background(), 180, ""))
	})
}

func TestInfoIsAConsistentCopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		ctx := caller.Context()
		require.Len(t, a.Dialogs(), 1)
		info := caller.Info()
		require.Equal(t, caller.Key(), info.Key)
		require.True(t, info.IsUAC)
		require.Equal(t, "bob", info.Remote.URI.User)
		require.Equal(t, "10.0.0.2", info.RemoteTarget.Host)
		require.EqualValues(t, 1, info.LocalSeq)
		info.RemoteTarget.UriParams.Add("mine", "")
		require.False(t, caller.Info().RemoteTarget.UriParams.Has("mine"))
		require.NoError(t, caller.ByeWith(context.Background(), dialog.ByeOpts{Reason: "enough", Headers: []dialog.Header{{Name: "X-Bye", Value: "now"}}}))
		bye := w.sent("10.0.0.1", "BYE")[0]
		require.Equal(t, "now", testkit.Value(bye.msg, "X-Bye"))
		require.Equal(t, `SIP;text="enough"`, testkit.Value(bye.msg, "Reason"))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), dialog.ErrTerminated)
		synctest.Wait()
		info = callee.Info()
		require.Equal(t, dialog.PartyRemote, info.Cause.By)
		var history []dialog.DialogState
		for _, change := range info.History {
			history = append(history, change.State)
		}
		require.Equal(t, []dialog.DialogState{dialog.DialogStateRinging, dialog.DialogStateEstablished, dialog.DialogStateTerminated}, history)
	})
}

// C5: Accept works after OnIncomingDialog has returned, and a retransmitted
// INVITE, before or after, makes no second call.
func TestRetransmittedInviteIsTheSameCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		b.OnIncomingDialog(func(dialog.IDialog) { t.Error("a second call was offered") })
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		again := p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, w.sent(stackIP, "180 INVITE")[0].raw, string(again.Data))

		time.Sleep(30 * time.Second)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		l.acknowledge(1)
		synctest.Wait()
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "180 INVITE"), 2)
		require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "RFC 6026 7.1: absorbed")
		found, ok := b.DialogByKey(l.d.Key())
		require.True(t, ok)
		require.Same(t, l.d, found)
	})
}

// An INVITE that is replayed, byte for byte, once its transaction has ended is
// another call, and does not take the place of the first one.
func TestAReplayedInviteIsAnotherCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		calls := make(chan dialog.IDialog, 2)
		b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
		text := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@" + stackIP, Headers: []string{"Contact: <sip:peer@" + peerIP + ":5060>"}})
		require.NoError(t, p.Send(b.Addr(), text))
		first := <-calls
		require.NoError(t, first.Accept(context.Background()))
		ok := p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "ACK", URI: "sip:b@" + stackIP, ToTag: testkit.ToTag(ok.Message)})))
		time.Sleep(40 * time.Second)
		require.NoError(t, p.Send(b.Addr(), text))
		second := <-calls
		require.NotEqual(t, first.Key(), second.Key())
		found, _ := b.DialogByKey(first.Key())
		require.Same(t, first, found)
		require.NoError(t, second.Reject(context.Background(), 486, ""))
		hangUp(t, first, p)
	})
}

// RFC 3261 8.2.2.2: the same request by another path.
func TestMergedInviteGets482(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		var calls atomic.Int32
		b.OnIncomingDialog(func(dialog.IDialog) { calls.Add(1) })
		r := dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer}}
		require.NoError(t, p.Send(b.Addr(), p.Request(r)))
		p.next("180 INVITE")
		require.Equal(t, 482, p.ask(b, r).StatusCode)
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestInviteWithoutAHandlerGets480WithoutRinging(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", Headers: []string{contactOfPeer}})
		require.Equal(t, 480, res.StatusCode)
		require.Empty(t, w.sent("10.0.0.2", "180 INVITE"))
		res = p.ask(b, dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: "other"})
		require.Equal(t, 480, res.StatusCode, "OPTIONS is answered as an INVITE would be")
	})
}

func TestInviteBeyondMaxDialogsGets503(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MaxDialogs = 1 })
		b.OnIncomingDialog(func(dialog.IDialog) {})
		p := w.peer("10.0.0.9")
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: "one", Headers: []string{contactOfPeer}})))
		p.next("180 INVITE")
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:b@10.0.0.2", CallID: "two", Headers: []string{contactOfPeer}})
		require.Equal(t, 503, res.StatusCode)
		require.NotEmpty(t, testkit.Value(res, "Retry-After"))
		res = p.ask(b, dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: "three"})
		require.Equal(t, 503, res.StatusCode)
	})
}

// D2: answered calls that have ended leave nothing behind: MaxDialogs bounds
// the calls in progress, not those there ever were.
func TestEndedCallsFreeMaxDialogs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.MaxDialogs = 1 }), w.peer(peerIP)
		for range 10 {
			l := w.outgoing(a, p)
			_, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
			require.ErrorIs(t, err, dialog.ErrMaxDialogs)
			l.ask("BYE")
			p.next("200 BYE")
			synctest.Wait()
		}
		for range 10 {
			l := w.outgoing(a, p)
			result := began(func() error { return l.d.Bye(context.Background(), "") })
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		}
		for range 10 {
			l := w.calls(a, p, offer(offerSDP))
			l.answer(dialogtest.Response{Code: 486})
			var refused *dialog.ResponseError
			require.ErrorAs(t, l.d.WaitAnswer(context.Background()), &refused)
			require.Equal(t, 486, refused.StatusCode)
		}
	})
}

// B4: MaxDialogs is exact, however many begin at once, in either direction.
func TestMaxDialogsIsExact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		five := func(c *dialog.StackConfig) { c.MaxDialogs = 5 }
		a, b, p := w.stack("10.0.0.1", five), w.stack("10.0.0.2", five), w.peer("10.0.0.9")
		var admitted, refused atomic.Int32
		atOnce(100, func(int) {
			_, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.Is(err, dialog.ErrMaxDialogs):
				refused.Add(1)
			}
		})
		require.EqualValues(t, 5, admitted.Load())
		require.EqualValues(t, 95, refused.Load())
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 5)
		defer p.answers(always(486))()
		synctest.Wait()
		require.Equal(t, 5, len(w.sent("10.0.0.9", "486 INVITE")))
		d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
		require.NoError(t, err, "the refused ones made room")
		require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))

		b.OnIncomingDialog(func(dialog.IDialog) {})
		for i := range 24 {
			w.say(p, b, p.Request(dialogtest.Request{
				Method: "INVITE", URI: "sip:us@10.0.0.2:5060", CallID: fmt.Sprintf("b4-%d", i), Body: offerSDP,
			}))
		}
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.2", "180 INVITE"), 5)
		busy := w.sent("10.0.0.2", "503 INVITE")
		require.NotEmpty(t, busy)
		require.Contains(t, busy[0].raw, "Retry-After: ")
		ids := make(map[string]bool)
		for _, m := range busy {
			ids[m.msg.CallID().Value()] = true
		}
		require.Len(t, ids, 19)
	})
}

// B4: a negative MaxDialogs means no bound, zero is 1000.
func TestMaxDialogsDefaults(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MaxDialogs = -1 })
		for i := range 1001 {
			_, err := b.NewInvite(context.Background(), uri("peer", "10.0.0.99"), dialog.InviteOpts{})
			require.NoError(t, err)
			_, err = a.NewInvite(context.Background(), uri("peer", "10.0.0.99"), dialog.InviteOpts{})
			if i < 1000 {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, dialog.ErrMaxDialogs)
			}
		}
		w.stacks = nil
		done, cancel := context.WithCancel(context.Background())
		cancel()
		var incomplete *dialog.ShutdownError
		require.ErrorAs(t, a.Shutdown(done), &incomplete)
		require.Equal(t, 1000, incomplete.Unreleased, "RFC 3261 9.1: no CANCEL before a provisional response")
		require.ErrorAs(t, b.Shutdown(done), &incomplete)
		require.Equal(t, 1001, incomplete.Unreleased)
	})
}

// NewInvite returned before the callbacks that it caused had run.
func TestNewInviteWaitsForItsCallbacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		w.peer(peerIP)
		seen := make(chan dialog.DialogState, 4)
		opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
			d.OnStateChange(func(s dialog.DialogState) { time.Sleep(time.Millisecond); seen <- s })
		}}
		_, err := a.NewInvite(context.Background(), uri("bob", peerIP), opts)
		require.NoError(t, err)
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTrying}, drained(seen))
	})
}

// A call that was closed in Setup was placed all the same.
func TestCallThatIsClosedInSetupIsNotPlaced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP)
		opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) { _ = d.Close() }}
		_, err := a.NewInvite(context.Background(), uri("bob", peerIP), opts)
		require.ErrorIs(t, err, dialog.ErrCanceled)
		require.Empty(t, w.flow())
	})
}

// B6, FT12: WaitAnswer twice, at once, after establishment and after the end returns
// the same outcome each time.
func TestWaitAnswerMayBeCalledAgain(t *testing.T) {
	for name, c := range map[string]struct {
		code  int
		check func(t *testing.T, err error)
	}{
		"accepted": {200, func(t *testing.T, err error) { require.NoError(t, err) }},
		"refused": {486, func(t *testing.T, err error) {
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 486, refused.StatusCode)
		}},
		"never": {0, func(t *testing.T, err error) { require.ErrorIs(t, err, dialog.ErrTimeout) }},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " late=", late), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) { waitsAgain(t, w, c.code, late, c.check) })
			})
		}
	}
}

// waitsAgain has many wait for one answer, all of them before it comes, or all after.
func waitsAgain(t *testing.T, w *world, code int, late bool, check func(t *testing.T, err error)) {
	a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
	d, err := a.NewInvite(context.Background(), uri("peer", p.ip), offer(offerSDP))
	require.NoError(t, err)
	caller := d.(*dialog.Dialog)
	results := make(chan error, 10)
	wait := func() {
		for range cap(results) {
			go func() { results <- caller.WaitAnswer(context.Background()) }()
		}
		synctest.Wait()
	}
	if !late {
		wait()
	}
	defer p.answers(func(req *sip.Request) int {
		if req.Method == sip.BYE {
			return 200
		}
		return code
	})()
	time.Sleep(time.Minute) // also when there is none
	if late {
		wait()
	}
	for range cap(results) {
		check(t, <-results)
	}
	check(t, caller.WaitAnswer(context.Background()))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // a select between the two would take either
		check(t, caller.WaitAnswer(ended))
	}
	require.NoError(t, caller.Bye(context.Background(), ""))
	check(t, caller.WaitAnswer(context.Background()))
}

// B6: the same when it was given up, and WaitAnswer of a callee is an error.
func TestWaitAnswerAfterGivingUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		incoming := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) { incoming <- d })
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), (<-incoming).(*dialog.Dialog)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, caller.WaitAnswer(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, caller.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.ErrorIs(t, caller.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.ErrorIs(t, callee.WaitAnswer(context.Background()), dialog.ErrState)
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}

// WaitAnswer after one that had given up forgot why the call was given up.
func TestWaitAnswerSaysWhyTheCallWasGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.alerting(a, p)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.d.WaitAnswer(ctx), context.DeadlineExceeded)
		second := began(func() error { return l.d.WaitAnswer(context.Background()) })
		l.answer(dialogtest.Response{Code: 487})
		require.ErrorIs(t, <-second, context.DeadlineExceeded)
	})
}

// D8: the body of an 18x reaches the application, and so does the 2xx's.
func TestBodyOfAProvisionalResponseIsDelivered(t *testing.T) {
	const early = "v=0\r\no=early 1 1 IN IP4 10.0.0.9\r\ns=-\r\nt=0 0\r\n"
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		heard := bodies(l.d)
		l.answer(dialogtest.Response{Code: 183, Body: early})
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + early}, drained(heard))
		l.answer(dialogtest.Response{Code: 180})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(heard))
	})
	// Without a callback the latest body is kept for the first one.
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 183, Body: "v=0\r\n"})
		l.answer(dialogtest.Response{Code: 183, Body: early})
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + early}, drained(bodies(l.d)))
		l.answer(dialogtest.Response{Code: 486})
		synctest.Wait()
	})
}

// An offer gets 406 when Accept allows no answer, inside a call too.
func TestOfferWhoseAnswerIsNotAcceptedGets406(t *testing.T) {
	cases := map[string]struct {
		headers []string
		body    string
		status  int
	}{
		"no Accept":              {nil, offerSDP, 200},
		"SDP":                    {[]string{"Accept: text/plain, Application / SDP;level=1"}, offerSDP, 200},
		"on another line":        {[]string{"Accept: text/plain", "Accept: application/sdp"}, offerSDP, 200},
		"any application's":      {[]string{"Accept: application/*"}, offerSDP, 200},
		"anything":               {[]string{"Accept: */*;q=0.5"}, offerSDP, 200},
		"another":                {[]string{"Accept: text/nobodyKnowsThis"}, offerSDP, 406},
		"in a parameter only":    {[]string{`Accept: text/plain;x="a,application/sdp"`}, offerSDP, 406},
		"nothing":                {[]string{"Accept:"}, offerSDP, 406},
		"another, without offer": {[]string{"Accept: text/plain"}, "", 200},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
				b.OnIncomingDialog(func(d dialog.IDialog) {
					if err := d.Accept(t.Context(), withSDP(answerSDP)); err != nil {
						t.Errorf("accept: %v", err)
					}
				})
				res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", Headers: c.headers, Body: c.body})
				require.Equal(t, c.status, res.StatusCode)
				if c.status == 406 {
					require.Regexp(t, `^399 \S+ ".+"$`, testkit.Value(res, "Warning"))
				}
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(t.Context(), withSDP(answerSDP)) })
		res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", Body: offerSDP})
		require.Equal(t, 200, res.StatusCode)
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "ACK", URI: "sip:bob@10.0.0.2", ToTag: testkit.ToTag(res)})))
		again := dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", ToTag: testkit.ToTag(res), CSeq: 2, Headers: []string{"Accept: text/plain"}, Body: offerSDP}
		require.Equal(t, 406, p.ask(b, again).StatusCode)
	})
}

// An INVITE of RFC 2543 has no Contact and no tag: its From is the target.
func TestInviteOfRFC2543WithoutContactIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		calls := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			_ = d.Accept(t.Context(), withSDP(answerSDP))
			calls <- d
		})
		start := "INVITE sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>\nFrom: <sip:alice@10.0.0.9>\nCall-ID: old\n"
		require.NoError(t, p.Send(b.Addr(), start+"CSeq: 1 INVITE\n\n"))
		answer := p.final("INVITE")
		require.Equal(t, 200, answer.StatusCode)
		ack := "ACK sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>;tag=" + testkit.ToTag(answer) +
			"\nFrom: <sip:alice@10.0.0.9>\nCall-ID: old\nCSeq: 1 ACK\n\n"
		require.NoError(t, p.Send(b.Addr(), ack))
		require.NoError(t, (<-calls).Close())
		bye := p.next("BYE")
		require.Equal(t, "sip:alice@10.0.0.9", bye.Request().Recipient.String())
		p.reply(bye, dialogtest.Response{Code: 200})
	})
}

// Any other has to have one.
func TestInviteWithoutContactGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		b.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(t.Context()) })
		for _, headers := range [][]string{{noContact}, {"Contact: <tel:+1>"}, {"Contact: *"}} {
			res := p.ask(b, dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2", CallID: dialog.TagGen(), Headers: headers})
			require.Equal(t, sip.StatusBadRequest, res.StatusCode, headers)
		}
		old := "INVITE sip:bob@10.0.0.2 SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.9\nTo: <sip:bob@10.0.0.2>\nFrom: <tel:+1>\nCall-ID: old\nCSeq: 1 INVITE\n\n"
		require.NoError(t, p.Send(b.Addr(), old))
		require.Equal(t, sip.StatusBadRequest, p.final("INVITE").StatusCode)
	})
}
