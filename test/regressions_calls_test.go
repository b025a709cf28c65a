package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// What another fork had counted, heard of or not, refused the requests of the
// one that answered (RFC 3261 12.1.2).
func TestRequestsOfOtherForksDoNotCountForTheOneThatAnswers(t *testing.T) {
	for name, ringing := range map[string]string{"nobody rang": "", "the one that answers rang": "B", "another one rang": "A"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.calls(a, p, offer(offerSDP))
				if ringing != "" {
					l.answer(dialogtest.Response{Code: 180, ToTag: ringing})
					synctest.Wait()
				}
				l.ask("OPTIONS", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "A", 100 })
				p.next("200 OPTIONS")
				l.answer(dialogtest.Response{Code: 200, ToTag: "B", Body: answerSDP})
				require.NoError(t, l.d.WaitAnswer(context.Background()))
				l.ask("BYE", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "B", 2 })
				p.next("200 BYE")
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
			})
		})
	}
}

// Bye of a call that had ended, with an error, returned that error again.
func TestByeAfterTheEndIsNoError(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		d, _ := w.toPeer(w.stack(stackIP), w.peer(peerIP))
		require.ErrorIs(t, d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.NoError(t, d.Bye(context.Background(), ""))
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

// A re-INVITE that the peer had begun to answer outlived the call that the peer
// ended.
func TestReInviteEndsWithTheCallThatThePeerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 180})
		synctest.Wait()
		l.ask("BYE")
		p.next("200 BYE")
		require.ErrorIs(t, <-result, dialog.ErrTerminated)
		time.Sleep(time.Hour)
		require.Zero(t, testkit.Held(a).Transactions)
	})
}

// What a late 2xx to a re-INVITE brought was written while ReInvite read it.
func TestLateAnswerToAReInviteOfAnEndedCallIsAcknowledgedOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		re := l.peer.next("INVITE")
		l.ask("BYE")
		l.reply(re, dialogtest.Response{Code: 200, Body: answerSDP})
		require.ErrorIs(t, <-result, dialog.ErrTerminated)
		synctest.Wait()
		require.Equal(t, "2 ACK", w.last(stackIP, "ACK").value(t, "CSeq"))
	})
}

// A re-INVITE that was still being dialled when the call ended was written
// afterwards, and never given up.
func TestReInviteIsNotWrittenAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders("Contact: <sip:peer@10.0.0.66:5060;transport=tcp>"))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		synctest.Wait() // it dials a host that is not there
		l.ask("BYE")
		require.Error(t, <-result)
		time.Sleep(time.Hour)
		require.Empty(t, w.sent(stackIP, "INVITE"))
		require.Zero(t, testkit.Held(b).Transactions)
	})
}

// A 2xx to a re-INVITE that could not be delivered ended the call here, without
// a BYE to the peer.
func TestUndeliverableAnswerToAReInviteEndsTheCallByBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		contact := withHeaders("Contact: <sip:p@" + peerIP + ":5070;transport=tcp>")
		l := w.incomingTCP(b, w.peer(peerIP), contact)
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return nil, nil })
		l.say("INVITE", contact)
		synctest.Wait()
		require.NoError(t, l.conn.Close()) // and nobody listens where Via says
		synctest.Wait()
		elsewhere := w.accepts(peerIP + ":5070")
		close(decide)
		time.Sleep(40 * time.Second)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		require.Equal(t, "BYE", describe((<-elsewhere).read().msg))
	})
}

// An ACK that could not be sent had lost the answer it carried when it was
// tried again.
func TestSecondAttemptOfAnACKHasTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		takes := dialogtest.Response{
			Code: 200, Headers: []string{"Contact: <sip:peer@" + peerIP + ":5099;transport=tcp>"}, Body: offerSDP,
		}
		l.answer(takes)
		synctest.Wait() // the ACK is refused: nobody listens
		conns := w.accepts(peerIP + ":5099")
		l.answer(takes)
		ack := (<-conns).read()
		require.Equal(t, "ACK", describe(ack.msg))
		require.Equal(t, answerSDP, ack.body())
	})
}

// A 2xx with Contact: * was never acknowledged.
func Test2xxWithoutAUsableContactIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.calls(w.stack(stackIP), w.peer(peerIP), offer(offerSDP))
		l.answer(dialogtest.Response{Code: 200, Headers: []string{"Contact: *"}, Body: answerSDP})
		l.next("ACK")
	})
}

// An answer whose first write failed was not repeated, and the caller rang on.
func TestAnswerThatCouldNotBeWrittenIsRepeated(t *testing.T) {
	for what, answer := range map[string]func(*dialog.Dialog) error{
		"200 INVITE": func(d *dialog.Dialog) error { return d.Accept(context.Background(), withSDP(answerSDP)) },
		"486 INVITE": func(d *dialog.Dialog) error { return d.Reject(context.Background(), 486, "") },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.rings(w.stack(stackIP), w.peer(peerIP))
				w.net.Host(stackIP).Unreachable(true)
				require.ErrorIs(t, answer(l.d), dialog.ErrTransport)
				w.net.Host(stackIP).Unreachable(false)
				time.Sleep(10 * time.Second)
				require.NotEmpty(t, w.sent(stackIP, what))
			})
		})
	}
}

// Without automatic ringing the 100 was repeated every minute.
func TestTryingIsNotRepeatedWithoutAutoRinging(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.NoAutoRinging = true }), w.peer(peerIP)
		b.OnIncomingDialog(func(dialog.IDialog) {})
		w.say(p, b, p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:x@" + stackIP}))
		time.Sleep(150 * time.Second)
		w.one(stackIP, "100 INVITE")
	})
}

// An option could make a refusal of a 200, a 200 of a refusal, and the call's
// state was wrong.
func TestOptionMayNotChangeTheStatus(t *testing.T) {
	to := func(code int) dialog.ResponseOpt { return func(r *sip.Response) { r.StatusCode = code } }
	ctx := context.Background()
	for name, answer := range map[string]func(d *dialog.Dialog) error{
		"Accept":      func(d *dialog.Dialog) error { return d.Accept(ctx, to(486)) },
		"RejectWith":  func(d *dialog.Dialog) error { return d.RejectWith(ctx, 486, "", to(200)) },
		"Provisional": func(d *dialog.Dialog) error { return d.Provisional(ctx, 183, "", to(200)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.rings(w.stack(stackIP), w.peer(peerIP))
				require.ErrorIs(t, answer(l.d), dialog.ErrInvalidArgument)
				synctest.Wait()
				require.Equal(t, dialog.DialogStateRinging, l.d.State())
				require.Empty(t, w.sent(stackIP, "200 INVITE"))
				require.Empty(t, w.sent(stackIP, "486 INVITE"))
			})
		})
	}
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

// An outbound proxy with a transport parameter lost its lr, and was taken for a
// strict router.
func TestOutboundProxyWithATransportRoutesLoosely(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, proxy := w.peer(peerIP), uri("", peerIP)
		proxy.UriParams = sip.NewParams()
		proxy.UriParams.Add("transport", "udp")
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.OutboundProxy = &proxy })
		_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.77"), offer(offerSDP))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.77", p.next("INVITE").Request().Recipient.Host)
	})
}

// The Contact of a call was the caller's own variable.
func TestContactOfACallIsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		mine, opts := uri("me", "10.1.1.1"), offer(offerSDP)
		opts.Contact = &mine
		l := w.calls(w.stack(stackIP), w.peer(peerIP), opts)
		mine.User = "changed"
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.NoError(t, l.d.Refer(context.Background(), uri("c", "10.0.0.5"), dialog.ReferOpts{}))
		require.Equal(t, "sip:me@10.1.1.1:5060", contactOf(l.next("REFER").Message))
	})
}
