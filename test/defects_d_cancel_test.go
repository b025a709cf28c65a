package test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The rows D4 and D5: calls that are given up, and calls that fork.

// D4, RFC 3261 9.1: a call that is given up is cancelled once a provisional
// response has come, not before; WaitAnswer returns at once.
func TestGivingUpCancelsOnceTheFarEndHasSpoken(t *testing.T) {
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
					require.Equal(t, describe(m.msg)+" sip:late@"+otherIP+":5060 SIP/2.0", m.startLine())
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
func TestCancelledCallThatNobodyEndsIsOverAfterTheTimeout(t *testing.T) {
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

// D5: the first 2xx makes the call; the 2xx of another fork is acknowledged and
// released with its own tag, route and target (RFC 3261 13.2.2.4).
func TestFurtherForkIsAcknowledgedAndReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		one, two, proxy := w.peer("10.0.0.21"), w.peer("10.0.0.22"), w.peer(proxyIP)
		l := w.calls(a, p, offer(offerSDP))
		fork := func(code int, tag, host, route string) {
			l.answer(dialogtest.Response{Code: code, ToTag: tag, Body: answerSDP, Headers: []string{
				"Contact: <sip:" + tag + "@" + host + ":5060>", "Record-Route: <sip:" + route + ":5060;lr>",
			}})
			synctest.Wait()
		}
		fork(180, "one", "10.0.0.21", "10.0.0.21")
		require.Equal(t, "one", l.d.Key().RemoteTag)
		fork(180, "two", "10.0.0.22", "10.0.0.22")
		fork(200, "two", "10.0.0.22", "10.0.0.22")
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "two", l.d.Key().RemoteTag)
		ack := two.next("ACK")
		require.Equal(t, "two", testkit.ToTag(ack.Message))

		fork(200, "one", "10.0.0.21", proxyIP)
		released := proxy.next("ACK")
		bye := proxy.next("BYE")
		for _, got := range []dialogtest.Received{released, bye} {
			req := got.Request()
			require.Equal(t, "sip:one@10.0.0.21:5060", req.Recipient.String())
			require.Equal(t, "one", testkit.ToTag(req))
			require.Equal(t, l.stackTag, testkit.FromTag(req))
			require.Equal(t, "<sip:"+proxyIP+":5060;lr>", req.GetHeaders("Route")[0].Value())
		}
		require.Equal(t, "1 ACK", released.Request().CSeq().Value())
		require.Equal(t, "2 BYE", bye.Request().CSeq().Value())
		// The same 2xx again gets the same ACK again, and no second BYE.
		fork(200, "one", "10.0.0.21", proxyIP)
		require.Equal(t, string(released.Data), string(proxy.next("ACK").Data))
		proxy.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "BYE"), 1)

		// The call itself noticed nothing.
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Equal(t, "two", l.d.Key().RemoteTag)
		one.quiet("BYE", time.Second)
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		last := two.next("BYE")
		require.Equal(t, "2 BYE", last.Request().CSeq().Value())
		require.Equal(t, "two", testkit.ToTag(last.Message))
		require.Equal(t, "sip:two@10.0.0.22:5060", last.Request().Recipient.String())
		two.reply(last, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

// D5: a fork that answers while the call is given up is released as well.
func TestForksOfAGivenUpCallAreAllReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, ToTag: "one"})
		synctest.Wait()
		require.NoError(t, l.d.Close())
		for _, tag := range []string{"one", "two", "three"} {
			l.answer(dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP})
			require.Equal(t, tag, testkit.ToTag(p.next("ACK").Message))
			bye := p.next("BYE")
			require.Equal(t, tag, testkit.ToTag(bye.Message))
			p.reply(bye, dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "BYE"), 3)
	})
}

// D5, RFC 3261 12.1.2: the peer's CSeq is counted anew for the fork that answers.
func TestForkThatAnswersCountsItsOwnRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, ToTag: "one"})
		synctest.Wait()
		l.ask("INFO", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "one", 100 })
		p.next("200 INFO")
		l.answer(dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.ask("BYE", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "two", 1 })
		p.next("200 BYE")
	})
}
