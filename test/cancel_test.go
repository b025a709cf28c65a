package test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// CANCEL of a call that arrives, and of one that is given up (RFC 3261 9).

// C6: CANCEL is answered 200 and the INVITE 487, both with the To tag of the
// 180; the dialog ends; nothing can answer any more.
func TestCANCELEndsARingingCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		seen := watch(l.d)
		cancel := p.Request(dialogtest.Request{
			Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
			Headers: []string{`Reason: SIP;cause=200;text="Call completed elsewhere"`},
		})
		require.NoError(t, p.Send(b.Addr(), cancel))
		p.next("200 CANCEL")
		p.next("487 INVITE")
		for _, what := range []string{"180 INVITE", "200 CANCEL", "487 INVITE"} {
			require.Equal(t, l.stackTag, testkit.ToTag(w.one(stackIP, what).msg), what)
		}
		require.NotEmpty(t, l.stackTag)
		require.Empty(t, testkit.ToTag(w.one(stackIP, "100 INVITE").msg))
		synctest.Wait()
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
		require.ErrorIs(t, l.d.Reject(context.Background(), 486, ""), dialog.ErrTerminated)
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
		require.Equal(t, "remote CANCEL 487 Call completed elsewhere", l.d.Cause().String())

		// The 487 repeats until its ACK, which repeats the INVITE's branch.
		time.Sleep(time.Second)
		require.Equal(t, []time.Duration{0, 500 * time.Millisecond}, times(w.sent(stackIP, "487 INVITE")))
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "ACK", URI: l.stackURI, From: l.peerURI, FromTag: farTag, ToTag: l.stackTag, Branch: "z9hG4bKcancelled",
		})))
		time.Sleep(time.Minute)
		require.Len(t, w.sent(stackIP, "487 INVITE"), 2)
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
	})
}

// C6: a CANCEL that comes while Accept is being decided wins, and the 200 is
// never sent.
func TestAcceptThatLosesToCANCELSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		err := l.d.Accept(context.Background(), func(*sip.Response) {
			if err := p.Send(b.Addr(), p.Request(dialogtest.Request{
				Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
			})); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		})
		require.ErrorIs(t, err, dialog.ErrAnswered)
		p.next("487 INVITE")
		p.quiet("200 INVITE", time.Minute)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// C6: a CANCEL after the 200 has no effect but its own 200 (RFC 3261 9.2).
func TestCANCELAfterTheAnswerChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, func(r *dialogtest.Request) { r.Branch = "z9hG4bKcancelled" })
		require.NoError(t, l.d.Accept(context.Background()))
		p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: farTag, Branch: "z9hG4bKcancelled",
		})))
		require.Equal(t, l.stackTag, testkit.ToTag(p.next("200 CANCEL").Message))
		l.acknowledge(1)
		p.quiet("487 INVITE", time.Second)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
	})
}

// D4, RFC 3261 9.1: a call that is given up is cancelled once a provisional
// response has come, not before; WaitAnswer returns at once.
func TestGivingUpCancelsOnceThePeerHasSpoken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		start := time.Now()
		l := w.calls(a, p, offer(offerSDP))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.d.WaitAnswer(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		time.Sleep(2 * time.Second)
		require.Empty(t, w.sent(stackIP, "CANCEL"))
		l.answer(dialogtest.Response{Code: 180})
		cancelled := p.next("CANCEL")
		p.reply(cancelled, dialogtest.Response{Code: 200, ToTag: farTag})
		l.answer(dialogtest.Response{Code: 487})
		synctest.Wait()

		invite, m := w.sent(stackIP, "INVITE")[0], w.one(stackIP, "CANCEL")
		require.Equal(t, 3*time.Second, m.at.Sub(start))
		require.Equal(t, strings.Replace(invite.startLine(), "INVITE", "CANCEL", 1), m.startLine())
		for _, name := range []string{"Via", "From", "To", "Call-ID"} {
			require.Equal(t, invite.value(t, name), m.value(t, name), name)
		}
		require.Empty(t, testkit.ToTag(m.msg))
		require.Equal(t, "1 CANCEL", m.value(t, "CSeq"))
		require.Equal(t, invite.to, m.to)
		ack := w.one(stackIP, "ACK")
		require.Equal(t, invite.value(t, "Via"), ack.value(t, "Via"), "RFC 3261 17.1.1.3")
		require.Equal(t, farTag, testkit.ToTag(ack.msg))
		require.Equal(t, "1 ACK", ack.value(t, "CSeq"))

		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
		require.ErrorIs(t, l.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
	})
}

// D4: a 200 that crosses the CANCEL gets its ACK and then a BYE, to its own
// target; the call never was established.
func Test200ThatCrossesCANCELIsReleased(t *testing.T) {
	for _, provisional := range []bool{true, false} {
		t.Run(strconv.FormatBool(provisional), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
				opts, seen := watchedOffer(offerSDP)
				l := w.calls(a, p, opts)
				if provisional {
					l.answer(dialogtest.Response{Code: 180})
					synctest.Wait()
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				require.ErrorIs(t, l.d.WaitAnswer(ctx), context.Canceled)
				if provisional {
					p.next("CANCEL")
				}
				l.answer(dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{"Contact: <sip:late@" + otherIP + ":5060>"}})
				away.next("ACK")
				away.reply(away.next("BYE"), dialogtest.Response{Code: 200})
				synctest.Wait()
				require.Equal(t, provisional, len(w.sent(stackIP, "CANCEL")) == 1)
				ack, bye := w.one(stackIP, "ACK"), w.one(stackIP, "BYE")
				require.Equal(t, "1 ACK", ack.value(t, "CSeq"))
				require.Equal(t, "2 BYE", bye.value(t, "CSeq"))
				for _, m := range []wire{ack, bye} {
					require.Equal(t, testkit.Describe(m.msg)+" sip:late@"+otherIP+":5060 SIP/2.0", m.startLine())
					require.Equal(t, farTag, testkit.ToTag(m.msg))
				}
				require.NotContains(t, seen.seen(), dialog.DialogStateEstablished)
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.ErrorIs(t, l.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
			})
		})
	}
}

// D4: Bye, Hangup, Close and the ringing limit cancel a call that is not
// answered; the reason goes along.
func TestEveryWayOutOfAnUnansweredCallCancels(t *testing.T) {
	cases := []struct {
		name   string
		out    func(*dialog.Dialog) error
		after  time.Duration
		reason []string
	}{
		{"Bye", func(d *dialog.Dialog) error { return d.Bye(context.Background(), "gone") }, 0, []string{`SIP;text="gone"`}},
		{"Hangup", func(d *dialog.Dialog) error { return d.Hangup(context.Background()) }, 0, nil},
		{"Close", func(d *dialog.Dialog) error { return d.Close() }, 0, nil},
		{"ringing limit", func(d *dialog.Dialog) error { <-d.Done(); return nil }, 180 * time.Second, []string{`SIP;cause=408;text="no answer"`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				start := time.Now()
				l := w.alerting(a, p)
				result := began(func() error { return c.out(l.d) })
				time.Sleep(c.after)
				p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
				l.answer(dialogtest.Response{Code: 487})
				require.NoError(t, <-result)
				m := w.one(stackIP, "CANCEL")
				require.Equal(t, c.after, m.at.Sub(start))
				require.Equal(t, c.reason, m.values("Reason"))
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Error(t, l.d.WaitAnswer(context.Background()))
			})
		})
	}
}

// D4: when nothing comes after the CANCEL either, the call ends 64*T1 later
// (RFC 3261 9.1).
func TestCancelledCallWithoutAResponseEndsAfterTheTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.alerting(a, p)
		start := time.Now()
		err := l.d.Bye(context.Background(), "")
		require.Equal(t, 32*time.Second, time.Since(start))
		require.NoError(t, err)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		_, ok := a.DialogByKey(l.d.Key())
		require.False(t, ok)
	})
}

// A call that is given up while its challenge is being answered does not go
// out once more.
func TestCancelWhileAChallengeIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		call := w.calls(a, p, dialog.InviteOpts{})
		d, in := call.d, call.invite
		p.reply(in, dialogtest.Response{Code: 180, ToTag: "x"})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, d.WaitAnswer(ctx), context.Canceled)
		p.next("CANCEL")
		p.reply(in, dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		<-d.Done()
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 1)
	})
}

// B3: a 200 that comes after Close ends what it began, by ACK and BYE; the
// dialog stays Terminated.
func TestAnswerAfterCloseDoesNotReviveTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		opts, seen := watchedOffer(offerSDP)
		call := w.calls(a, p, opts)
		d, in := call.d, call.invite
		p.reply(in, dialogtest.Response{Code: 180, ToTag: farTag})
		synctest.Wait()
		done := d.Done()
		require.NoError(t, d.Close())
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		<-done
		p.next("CANCEL")
		p.reply(in, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		p.next("ACK")
		bye := p.next("BYE")
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		p.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{
			dialog.DialogStateTrying, dialog.DialogStateRinging, dialog.DialogStateTerminated,
		}, seen.seen())
		require.ErrorIs(t, d.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.Error(t, d.ReInvite(context.Background(), dialog.InviteOpts{}))
		_, ok := a.DialogByKey(d.Key())
		require.False(t, ok)
	})
}

// B3: the same when nothing had come before Close: no CANCEL may be sent yet
// (RFC 3261 9.1).
func TestFirstAnswerAfterCloseIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, in := call.d, call.invite
		require.NoError(t, d.Close())
		p.reply(in, dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		p.next("ACK")
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, d.State())
		require.Empty(t, w.sent("10.0.0.1", "CANCEL"))
	})
}
