package test

import (
	"context"
	"strings"
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

// An INVITE whose Contact leads nowhere was offered to the application.
func TestInviteWithoutAUsableContactIsNotOffered(t *testing.T) {
	for _, contact := range []string{"*", "<tel:+123>", "<sip:>", "<mailto:a@b>"} {
		t.Run(contact, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				var offered atomic.Int32
				b.OnIncomingDialog(func(d dialog.IDialog) { offered.Add(1); _ = d.Accept(context.Background()) })
				w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP, Headers: []string{"Contact: " + contact}}))
				synctest.Wait()
				require.Zero(t, offered.Load())
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				require.Empty(t, b.Dialogs())
			})
		})
	}
}

// A peer could fill a call with subscriptions: none was refused.
func TestSubscriptionsOfACallAreBoundedByDefault(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		for range 120 {
			l.ask("REFER", withHeaders("Refer-To: <sip:c@10.0.0.5>"))
			synctest.Wait()
		}
		require.Len(t, l.d.GetAllReferSubscriptions(), 100)
		require.Len(t, w.sent(stackIP, "503 REFER"), 20)
	})
}

// A subscription whose last NOTIFY could not be sent, since an ACK waited for
// the application, lived for ever.
func TestSubscriptionExpiresWhileAnACKWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:c@10.0.0.5>"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.GetAllReferSubscriptions(), 1)
		time.Sleep(3*time.Minute - 5*time.Second)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			time.Sleep(10 * time.Second) // the subscription ends meanwhile
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		result := began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-result)
		time.Sleep(10 * time.Minute)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// nilBody is a Body of the application's that does not survive a nil pointer.
type nilBody struct{ text string }

func (b *nilBody) ContentType() string { return b.text }
func (b *nilBody) Data() []byte        { return []byte(b.text) }

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

// blockingCalls are what may be called inside a callback and takes its time.
var blockingCalls = map[string]func(s *dialog.Stack, d *dialog.Dialog){
	"Accept":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Accept(context.Background()) },
	"Reject":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Reject(context.Background(), 486, "") },
	"Bye":      func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Bye(context.Background(), "") },
	"Hangup":   func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Hangup(context.Background()) },
	"Close":    func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.Close() },
	"ReInvite": func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.ReInvite(context.Background(), offer(offerSDP)) },
	"Refer": func(_ *dialog.Stack, d *dialog.Dialog) {
		_ = d.Refer(context.Background(), uri("c", "10.0.0.5"), dialog.ReferOpts{})
		_, _ = d.WaitRefer(context.Background())
	},
	"WaitAnswer": func(_ *dialog.Stack, d *dialog.Dialog) { _ = d.WaitAnswer(context.Background()) },
	"OnBody":     func(_ *dialog.Stack, d *dialog.Dialog) { d.OnBody(func(dialog.Body) {}) },
	"NewInvite": func(s *dialog.Stack, _ *dialog.Dialog) {
		if c, err := s.NewInvite(context.Background(), uri("z", "10.0.0.77"), offer(offerSDP)); err == nil {
			_ = c.Close()
		}
	},
}

// hooked takes a call at b, with hook called where it says.
func hooked(b *dialog.Stack, where string, hook func(d *dialog.Dialog)) {
	at := func(place string, d dialog.IDialog) {
		if place == where {
			hook(d.(*dialog.Dialog))
		}
	}
	b.OnIncomingRefer(func(d dialog.IDialog, _ sip.Uri, _ *dialog.ReplacesInfo) { at("OnIncomingRefer", d) })
	b.OnIncomingDialog(func(d dialog.IDialog) {
		d.OnStateChange(func(s dialog.DialogState) { at(s.String(), d) })
		d.OnBody(func(dialog.Body) { at("OnBody", d) })
		if where == "OnOffer" {
			d.(*dialog.Dialog).OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				at("OnOffer", d)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
		}
		at("OnIncomingDialog", d)
		_ = d.Accept(context.Background(), withSDP(answerSDP), func(*sip.Response) { at("ResponseOpt", d) })
	})
}

// Some methods did not return when they were called inside some callbacks: they
// waited for what the callback itself held up.
func TestEveryMethodReturnsInsideEveryCallback(t *testing.T) {
	places := strings.Fields("OnIncomingDialog ResponseOpt OnBody Established OnOffer OnIncomingRefer Terminated")
	for _, where := range places {
		for name, call := range blockingCalls {
			t.Run(name+" in "+where, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
					var entered, left atomic.Int32
					hooked(b, where, func(d *dialog.Dialog) {
						if entered.Add(1) == 1 {
							call(b, d)
							left.Add(1)
						}
					})
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					c, err := a.NewInvite(ctx, uri("bob", "10.0.0.2"), offer(offerSDP))
					require.NoError(t, err)
					d := c.(*dialog.Dialog)
					_ = d.WaitAnswer(ctx)
					_ = d.ReInvite(ctx, offer(offerSDP))
					if d.Refer(ctx, uri("c", "10.0.0.5"), dialog.ReferOpts{}) == nil {
						_, _ = d.WaitRefer(ctx)
					}
					_ = d.Bye(ctx, "")
					time.Sleep(time.Hour)
					require.NotZero(t, entered.Load())
					require.EqualValues(t, 1, left.Load())
				})
			})
		}
	}
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
