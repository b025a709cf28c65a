//go:build go1.25

package dialog_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The rows D1 to D11 of what was wrong with calls of our own.

// D1: once the peer's tag is known its requests find the call.
func TestRequestsOfTheCalleeFindTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		half := l.d.Key()
		require.Equal(t, dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag}, half)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))

		full := dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag, RemoteTag: farTag}
		require.Equal(t, full, l.d.Key())
		for _, key := range []dialog.DialogKey{full, half} {
			found, ok := a.DialogByKey(key)
			require.True(t, ok)
			require.Same(t, l.d, found)
		}
		require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		// Another tag is another dialog.
		l.ask("BYE", func(r *dialogtest.Request) { r.FromTag = "stranger" })
		p.next("481 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.ask("BYE")
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		for _, key := range []dialog.DialogKey{full, half} {
			_, ok := a.DialogByKey(key)
			require.False(t, ok)
		}
	})
}

// D1: requests inside the early dialog find it too.
func TestRequestsInTheEarlyDialogFindTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, farTag, l.d.Key().RemoteTag)
		l.ask("INFO")
		p.next("200 INFO")
		// ANSWERS: an INVITE while our own is pending.
		require.Equal(t, "SIP/2.0 491 Request Pending", l.reinvites(withBody(offerSDP)).startLine())
		// A REFER needs an established call.
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("491 REFER")
		l.answer(dialogtest.Response{Code: 486})
		require.Error(t, l.d.WaitAnswer(context.Background()))
	})
}

// D2: answered calls that have ended leave nothing behind: MaxDialogs bounds
// the calls in progress, not those there ever were.
func TestEndedCallsMakeRoomForOthers(t *testing.T) {
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

// D3: the ACK goes to the Contact of the 2xx by its route, with the INVITE's
// CSeq; so do later requests.
func TestACKGoesToTheRemoteTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, Headers: []string{"Contact: <sip:early@" + peerIP + ">"}})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{
			"Contact: <sip:bob@" + otherIP + ":5070;a=b>",
			"Record-Route: <sip:p2.example;lr>, <sip:" + proxyIP + ":5060;lr>",
		}})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		proxy.next("ACK")
		bye := l.hangUp(proxy)
		ack := w.one(stackIP, "ACK")
		for _, m := range []wire{ack, bye} {
			require.Equal(t, describe(m.msg)+" sip:bob@"+otherIP+":5070;a=b SIP/2.0", m.startLine())
			require.Equal(t, []string{"<sip:" + proxyIP + ":5060;lr>", "<sip:p2.example;lr>"}, m.values("Route"), "RFC 3261 12.1.2: reversed")
			require.Equal(t, proxy.Addr(), m.to)
			require.Equal(t, l.stackTag, fromTagOf(m.msg))
			require.Equal(t, farTag, toTagOf(m.msg))
			require.Equal(t, l.callID, m.value(t, "Call-ID"))
		}
		require.Equal(t, "1 ACK", ack.value(t, "CSeq"))
		require.Equal(t, "2 BYE", bye.value(t, "CSeq"))
		invite := w.one(stackIP, "INVITE")
		require.NotEqual(t, invite.value(t, "Via"), ack.value(t, "Via"), "RFC 3261 17.1.1.1: a branch of its own")
	})
}

// D3: the ACK to a re-INVITE has that one's CSeq, and the target of its 2xx.
func TestACKOfAReINVITEHasItsCSeq(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) })
		again := p.next("INVITE")
		require.Equal(t, uint32(2), again.Request().CSeq().SeqNo)
		require.Equal(t, farTag, toTagOf(again.Message))
		require.Equal(t, answerSDP, string(again.Request().Body()))
		require.Equal(t, l.target, contactOf(again.Message))
		p.reply(again, dialogtest.Response{Code: 200, Body: offerSDP, Headers: []string{"Contact: <sip:moved@" + otherIP + ":5060>"}})
		require.NoError(t, <-result)
		away.next("ACK")
		synctest.Wait()
		ack := w.last(stackIP, "ACK")
		require.Equal(t, "ACK sip:moved@"+otherIP+":5060 SIP/2.0", ack.startLine())
		require.Equal(t, "2 ACK", ack.value(t, "CSeq"))
		bye := l.hangUp(away)
		require.Equal(t, "BYE sip:moved@"+otherIP+":5060 SIP/2.0", bye.startLine())
		require.Equal(t, "3 BYE", bye.value(t, "CSeq"))
	})
}

// D3: neither a refusal nor an unreliable provisional response to a re-INVITE
// moves the target (RFC 3261 12.2.1.2, RFC 6141 4.3).
func TestOnlyA2xxRefreshesTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		again := p.next("INVITE")
		moved := []string{"Contact: <sip:moved@" + otherIP + ":5060>"}
		p.reply(again, dialogtest.Response{Code: 183, Headers: moved})
		p.reply(again, dialogtest.Response{Code: 488, Headers: moved})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-result, &refused)
		require.Equal(t, 488, refused.StatusCode)
		require.Equal(t, "ACK sip:peer@"+peerIP+":5060 SIP/2.0", w.last(stackIP, "ACK").startLine())
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", l.hangUp(p).startLine())
	})
}

// D3, RFC 3261 12.2.1.1: a first hop that routes strictly is the Request-URI,
// and the target the last Route; it is where the request goes.
func TestStrictRouterFindsItselfInTheRequestURI(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		l := w.outgoing(a, p,
			"Record-Route: <sip:p2.example;lr>", "Record-Route: <sip:"+proxyIP+":5060;x=1>")
		bye := l.hangUp(proxy)
		for _, m := range []wire{w.one(stackIP, "ACK"), bye} {
			require.Equal(t, describe(m.msg)+" sip:"+proxyIP+":5060;x=1 SIP/2.0", m.startLine())
			require.Equal(t, []string{"<sip:p2.example;lr>", "<sip:peer@" + peerIP + ":5060>"}, m.values("Route"))
			require.Equal(t, proxy.Addr(), m.to)
		}
	})
}

// D3: the route set stays that of the first 2xx: Record-Route in a re-INVITE
// does not change it (RFC 3261 12.2).
func TestRouteSetStaysForTheLifeOfTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.reinvites(withBody(offerSDP), withHeaders("Record-Route: <sip:"+proxyIP+";lr>"))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{"Record-Route: <sip:" + proxyIP + ";lr>"}})
		require.NoError(t, <-result)
		require.Empty(t, l.hangUp(p).values("Route"))
	})
}

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
		require.Empty(t, toTagOf(m.msg))
		require.Equal(t, "1 CANCEL", m.value(t, "CSeq"))
		require.Equal(t, invite.to, m.to)
		ack := w.one(stackIP, "ACK")
		require.Equal(t, invite.value(t, "Via"), ack.value(t, "Via"), "RFC 3261 17.1.1.3")
		require.Equal(t, farTag, toTagOf(ack.msg))
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
					require.Equal(t, farTag, toTagOf(m.msg))
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
		{"ringing limit", func(d *dialog.Dialog) error { <-d.Done(); return nil }, 180 * time.Second, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				start := time.Now()
				l := w.calls(a, p, offer(offerSDP))
				l.answer(dialogtest.Response{Code: 180})
				synctest.Wait()
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
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180})
		synctest.Wait()
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
		require.Equal(t, "two", toTagOf(ack.Message))

		fork(200, "one", "10.0.0.21", proxyIP)
		released := proxy.next("ACK")
		bye := proxy.next("BYE")
		for _, got := range []dialogtest.Received{released, bye} {
			req := got.Request()
			require.Equal(t, "sip:one@10.0.0.21:5060", req.Recipient.String())
			require.Equal(t, "one", toTagOf(req))
			require.Equal(t, l.stackTag, fromTagOf(req))
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
		require.Equal(t, "two", toTagOf(last.Message))
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
			require.Equal(t, tag, toTagOf(p.next("ACK").Message))
			bye := p.next("BYE")
			require.Equal(t, tag, toTagOf(bye.Message))
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

// D6: a repeated 2xx gets the same ACK, byte for byte, each time.
func TestRepeated200GetsTheSameACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		for range 3 {
			time.Sleep(time.Second)
			l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
			synctest.Wait()
		}
		// Requests sent meanwhile do not change it.
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		again := p.next("INVITE")
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		synctest.Wait()
		acks := w.sent(stackIP, "ACK")
		require.Len(t, acks, 5)
		for _, ack := range acks {
			require.Equal(t, acks[0].raw, ack.raw)
		}
		for range 2 {
			p.reply(again, dialogtest.Response{Code: 200, Body: answerSDP})
			synctest.Wait()
		}
		require.NoError(t, <-result)
		acks = w.sent(stackIP, "ACK")[5:]
		require.Len(t, acks, 2)
		require.Equal(t, "2 ACK", acks[0].value(t, "CSeq"))
		require.Equal(t, acks[0].raw, acks[1].raw)
	})
}

// D7: any final answer to the BYE ends the dialog, and so does none (RFC 3261
// 15.1.1).
func TestWhateverTheAnswerToBYETheCallIsOver(t *testing.T) {
	cases := []struct {
		name  string
		codes []int
		after time.Duration
		err   error
	}{
		{"200", []int{200}, 0, nil},
		{"481", []int{481}, 0, nil},
		{"408", []int{408}, 0, nil},
		{"500", []int{500}, 0, nil},
		{"503", []int{503}, 0, nil},
		{"603", []int{603}, 0, nil},
		{"100 and then 200", []int{100, 200}, 0, nil},
		{"100 and then nothing", []int{100}, 32 * time.Second, dialog.ErrTimeout},
		{"nothing", nil, 32 * time.Second, dialog.ErrTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.outgoing(a, p)
				seen := watch(l.d)
				start := time.Now()
				result := began(func() error { return l.d.Bye(context.Background(), "bye bye") })
				bye := p.next("BYE")
				require.Equal(t, `SIP;text="bye bye"`, bye.Request().GetHeaders("Reason")[0].Value())
				for _, code := range c.codes {
					p.reply(bye, dialogtest.Response{Code: code})
				}
				require.ErrorIs(t, <-result, c.err)
				require.Equal(t, c.after, time.Since(start))
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
				_, ok := a.DialogByKey(l.d.Key())
				require.False(t, ok)
				require.NoError(t, l.d.Close())
			})
		})
	}
}

// D7: with the shorter timeout that was configured.
func TestTxTimeoutBoundsTheBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.TxTimeout = 3 * time.Second }), w.peer(peerIP)
		l := w.outgoing(a, p)
		start := time.Now()
		require.ErrorIs(t, l.d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// D7: the two sides' BYEs may cross; each gets its 200 (RFC 5407 3.2.1).
func TestBYEsThatCrossAreBothAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		mine := p.next("BYE")
		l.ask("BYE")
		p.next("200 BYE")
		p.reply(mine, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		// And one that comes late, for a dialog that is gone.
		l.ask("BYE")
		p.next("200 BYE")
		// Nothing else is taken there any more.
		l.ask("INFO")
		p.next("481 INFO")
	})
}

// RFC 5057 5.1 and 5.2: what a failed request ends besides itself.
func TestWhatAFailedRequestEnds(t *testing.T) {
	dialogEnds := []int{404, 410, 416, 482, 483, 484, 485, 502, 604}
	nothingEnds := []int{
		301, 400, 401, 402, 403, 406, 407, 412, 413, 414, 415, 417, 420, 421, 422, 423, 428, 429, 436, 437, 438, 486, 487,
		488, 491, 493, 494, 499, 500, 503, 504, 505, 513, 580, 599, 600, 603, 606, 699,
	}
	for _, method := range []string{"INVITE", "REFER", "NOTIFY", "INFO", "UPDATE", "OPTIONS", "MESSAGE"} {
		for _, code := range dialogEnds {
			require.Equal(t, "dialog", dialog.EffectOf(method, code), "%s %d", method, code)
		}
		for _, code := range nothingEnds {
			require.Equal(t, "transaction", dialog.EffectOf(method, code), "%s %d", method, code)
		}
	}
	cases := []struct {
		code  int
		usage []string
		none  []string
	}{
		// 5.2, note 4: 408 is no answer at all. OPTIONS and MESSAGE belong to no
		// usage (5.3).
		{408, []string{"INVITE", "UPDATE", "INFO", "REFER", "NOTIFY"}, []string{"OPTIONS", "MESSAGE"}},
		{481, []string{"INVITE", "UPDATE", "INFO", "REFER", "NOTIFY"}, []string{"OPTIONS", "MESSAGE"}},
		// Note 3: only where the method is integral to the usage.
		{405, []string{"INVITE", "NOTIFY"}, []string{"INFO", "REFER", "OPTIONS", "MESSAGE"}},
		{501, []string{"INVITE", "NOTIFY"}, []string{"INFO", "REFER", "OPTIONS", "MESSAGE"}},
		{480, []string{"INVITE", "NOTIFY"}, []string{"OPTIONS", "MESSAGE", "REFER"}},
		// Note 12: a word for SUBSCRIBE and NOTIFY; elsewhere an unknown 4xx.
		{489, []string{"NOTIFY"}, []string{"INVITE", "INFO", "REFER", "OPTIONS", "MESSAGE"}},
	}
	for _, c := range cases {
		for _, method := range c.usage {
			require.Equal(t, "usage", dialog.EffectOf(method, c.code), "%s %d", method, c.code)
		}
		for _, method := range c.none {
			require.Equal(t, "transaction", dialog.EffectOf(method, c.code), "%s %d", method, c.code)
		}
	}
}

// D7, RFC 5057: a re-INVITE or REFER whose failure ends the usage or the dialog is
// followed by BYE (RFC 3261 12.2.1.2); another leaves the call alone.
func TestFailedRequestsInsideACall(t *testing.T) {
	cases := []struct {
		method string
		code   int // 0: no answer
		ends   bool
	}{
		{"INVITE", 481, true}, {"INVITE", 408, true}, {"INVITE", 0, true}, {"INVITE", 404, true}, {"INVITE", 502, true},
		{"INVITE", 488, false}, {"INVITE", 491, false}, {"INVITE", 500, false}, {"INVITE", 603, false}, {"INVITE", 302, false},
		{"REFER", 481, true}, {"REFER", 0, true}, {"REFER", 483, true}, {"REFER", 405, false}, {"REFER", 603, false},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s %d", c.method, c.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP, withoutRetry), w.peer(peerIP)
				l := w.outgoing(a, p)
				result := began(func() error {
					if c.method == "INVITE" {
						return l.d.ReInvite(context.Background(), offer(offerSDP))
					}
					if err := l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}); err != nil {
						return err
					}
					_, err := l.d.WaitRefer(context.Background())
					return err
				})
				start := time.Now()
				asked := p.next(c.method)
				if c.code > 0 {
					p.reply(asked, dialogtest.Response{Code: c.code})
				}
				err := <-result
				if c.code > 0 {
					var refused *dialog.ResponseError
					require.ErrorAs(t, err, &refused)
					require.Equal(t, c.code, refused.StatusCode)
					require.Equal(t, c.method, refused.Method)
				} else {
					require.ErrorIs(t, err, dialog.ErrTimeout)
					require.Equal(t, 32*time.Second, time.Since(start))
				}
				if !c.ends {
					p.quiet("BYE", time.Minute)
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					return
				}
				bye := p.next("BYE")
				require.Equal(t, "3 BYE", bye.Request().CSeq().Value())
				p.reply(bye, dialogtest.Response{Code: 200})
				<-l.d.Done()
				synctest.Wait()
				require.Equal(t, c.code, l.d.Cause().Status)
				require.Equal(t, c.method, l.d.Cause().Method)
			})
		})
	}
}

// D7, RFC 5057 5.1: a NOTIFY that fails ends its subscription, and the call only
// with the codes that destroy the dialog.
func TestFailedNOTIFY(t *testing.T) {
	cases := []struct {
		code         int
		subscription bool
		call         bool
	}{{481, false, true}, {489, false, true}, {0, false, true}, {500, true, true}, {403, true, true}, {404, false, false}}
	for _, c := range cases {
		t.Run(strconv.Itoa(c.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
				p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
				synctest.Wait()
				r, _ := l.d.GetReferSubscription("2 REFER")
				result := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
				asked := p.next("NOTIFY")
				if c.code > 0 {
					p.reply(asked, dialogtest.Response{Code: c.code})
				}
				require.Error(t, <-result)
				synctest.Wait()
				if !c.call {
					p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
					synctest.Wait()
				}
				_, alive := l.d.GetReferSubscription("2 REFER")
				require.Equal(t, c.subscription, alive)
				require.Equal(t, c.call, l.d.State() == dialog.DialogStateEstablished)
			})
		})
	}
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
	// Nobody registered yet: the latest is kept for the first who does.
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

// D9: requests over UDP leave by the listening socket, which is what Via says.
func TestRequestsLeaveByTheListeningSocket(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.hangUp(p)
		for _, what := range []string{"INVITE", "ACK", "BYE"} {
			m := w.one(stackIP, what)
			require.Equal(t, a.Addr(), m.from, what)
			require.True(t, strings.HasPrefix(m.value(t, "Via"), "SIP/2.0/UDP "+stackIP+":5060;branch=z9hG4bK"), m.value(t, "Via"))
			require.Equal(t, "70", m.value(t, "Max-Forwards"))
		}
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060>", w.one(stackIP, "INVITE").value(t, "Contact"))
	})
}

// stream is a scripted TCP peer's connection.
type stream struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// read returns the next message.
func (s *stream) read() wire {
	s.t.Helper()
	var b strings.Builder
	length := 0
	for {
		line, err := s.r.ReadString('\n')
		require.NoError(s.t, err)
		b.WriteString(line)
		if value, ok := strings.CutPrefix(line, "Content-Length:"); ok {
			length, err = strconv.Atoi(strings.TrimSpace(value))
			require.NoError(s.t, err)
		}
		if line == "\r\n" {
			break
		}
	}
	content := make([]byte, length)
	_, err := io.ReadFull(s.r, content)
	require.NoError(s.t, err)
	b.Write(content)
	msg, err := sip.ParseMessage([]byte(b.String()))
	require.NoError(s.t, err)
	return wire{msg: msg, raw: b.String()}
}

func (s *stream) write(text string) {
	s.t.Helper()
	_, err := s.Write([]byte(text))
	require.NoError(s.t, err)
}

// D9: a "tcp" stack sends by TCP, and its Contact and Via say so.
func TestTCPStackSpeaksTCP(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
		p := w.peer(peerIP) // for its texts; it has a UDP socket that nothing may come to
		listener, err := w.net.Host(peerIP).Listen(context.Background(), "tcp", peerIP+":5060")
		require.NoError(t, err)
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
		require.NoError(t, err)
		conn, err := listener.Accept()
		require.NoError(t, err)
		s := &stream{Conn: conn, t: t, r: bufio.NewReader(conn)}
		defer func() { _ = s.Close() }()

		invite := s.read()
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/TCP "+stackIP+":5060;branch=z9hG4bK"), invite.value(t, "Via"))
		require.Equal(t, "<sip:SoftPhone@"+stackIP+":5060;transport=tcp>", invite.value(t, "Contact"))
		s.write(p.Response(request(invite.msg), dialogtest.Response{
			Code: 200, ToTag: farTag, Body: answerSDP, Headers: []string{"Contact: <sip:bob@" + peerIP + ":5060;transport=tcp>"},
		}))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, "ACK sip:bob@"+peerIP+":5060;transport=tcp SIP/2.0", s.read().startLine())

		// The callee's side says so as well.
		a.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Accept(context.Background()); err != nil {
				t.Error(err)
			}
		})
		text := p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:a@" + stackIP, CallID: "back"})
		s.write(strings.Replace(text, "SIP/2.0/UDP", "SIP/2.0/TCP", 1))
		for _, line := range []string{"SIP/2.0 100 Trying", "SIP/2.0 180 Ringing", "SIP/2.0 200 OK"} {
			m := s.read()
			require.Equal(t, line, m.startLine())
			if response(m.msg).StatusCode > 100 {
				require.Equal(t, "<sip:"+stackIP+":5060;transport=tcp>", strings.Replace(m.value(t, "Contact"), "a@", "", 1))
			}
		}
		ended := began(func() error { return d.Bye(context.Background(), "") })
		for {
			m := s.read()
			if describe(m.msg) == "BYE" {
				s.write(p.Response(request(m.msg), dialogtest.Response{Code: 200}))
				break
			}
		}
		require.NoError(t, <-ended)
		require.Zero(t, w.net.Stats().Sent, "datagrams")
	})
}

// D10: a stack that listens on every address tells each peer the one by which
// it is reached. This takes the operating system's sockets.
func TestContactOfAWildcardListenerIsAnAddress(t *testing.T) {
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = far.Close() }()
	require.NoError(t, far.SetReadDeadline(time.Now().Add(10*time.Second)))
	next := func() (wire, net.Addr) {
		buf := make([]byte, 65535)
		n, from, err := far.ReadFrom(buf)
		require.NoError(t, err)
		msg, err := sip.ParseMessage(buf[:n])
		require.NoError(t, err)
		return wire{msg: msg, raw: string(buf[:n])}, from
	}

	s, err := dialog.NewStack(&dialog.StackConfig{Transport: &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0"}})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	defer func() { require.NoError(t, s.Shutdown(context.Background())) }()
	target := sip.Uri{Scheme: "sip", User: "bob", Host: "127.0.0.1", Port: far.LocalAddr().(*net.UDPAddr).Port}
	d, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	require.NoError(t, err)

	invite, from := next()
	own := fmt.Sprintf("127.0.0.1:%d", s.Addr().Port())
	require.Equal(t, own, from.String())
	require.Equal(t, "<sip:SoftPhone@"+own+">", invite.value(t, "Contact"))
	require.Equal(t, "<sip:SoftPhone@127.0.0.1>;tag="+d.Key().LocalTag, invite.value(t, "From"))
	require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP "+own+";"))
	require.NotContains(t, invite.raw, "0.0.0.0")
	res := sip.NewResponseFromRequest(request(invite.msg), 486, "Busy Here", nil)
	_, err = far.WriteTo([]byte(res.String()), from)
	require.NoError(t, err)
	require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	ack, _ := next()
	require.Equal(t, "ACK", describe(ack.msg))
}

// D10: a public address, when one is set, is what peers are told.
func TestPublicAddressIsWhatPeersAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Transport.PublicAddress, c.Transport.PublicPort = "sip.example.com", 7000
		})
		w.calls(a, w.peer(peerIP), offer(offerSDP))
		invite := w.one(stackIP, "INVITE")
		require.Equal(t, "<sip:SoftPhone@sip.example.com:7000>", invite.value(t, "Contact"))
		require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/UDP sip.example.com:7000;"))
		require.True(t, strings.HasPrefix(invite.value(t, "From"), "<sip:SoftPhone@sip.example.com>;tag="))
	})
}

// D11: every message has Content-Length once, and it is right, also when the
// application adds its own.
func TestContentLengthIsThereOnceAndRight(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack("10.0.0.2")
		incoming := make(chan *dialog.Dialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			err := d.Accept(context.Background(), withSDP(answerSDP), func(res *sip.Response) {
				res.AppendHeader(sip.NewHeader("Content-Length", "3"))
			})
			if err != nil {
				t.Error(err)
			}
			incoming <- d.(*dialog.Dialog)
		})
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := d.(*dialog.Dialog)
		require.NoError(t, caller.WaitAnswer(context.Background()))
		callee := <-incoming
		synctest.Wait()
		require.NoError(t, callee.ReInvite(context.Background(), offer(answerSDP)))
		require.NoError(t, caller.ReInvite(context.Background(), dialog.InviteOpts{}))
		require.NoError(t, caller.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{
			Headers: map[string]string{"Content-Length": "7", "L": "8"},
		}))
		r, err := caller.WaitRefer(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, dialog.Progress{Status: 100, Reason: "Trying"}, r.Status())
		require.NoError(t, caller.Bye(context.Background(), "done"))
		ringing, err := a.NewInvite(context.Background(), uri("bob", otherIP), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, ringing.Close())

		w.mu.Lock()
		defer w.mu.Unlock()
		kinds := map[string]bool{}
		for _, m := range w.log {
			kinds[describe(m.msg)] = true
			lengths := append(m.values("Content-Length"), m.values("l")...)
			require.Equal(t, []string{strconv.Itoa(len(m.body()))}, lengths, m.raw)
		}
		for _, what := range []string{"INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK", "REFER", "202 REFER", "NOTIFY", "200 NOTIFY", "BYE", "200 BYE"} {
			require.True(t, kinds[what], what)
		}
	})
}

// CONTRACT 5, RFC 3261 13.2.2.4: the offer in a 2xx is answered in the ACK, as
// OnOffer says.
func TestOfferInA2xxIsAnsweredInTheACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		require.Empty(t, w.one(stackIP, "INVITE").body())
		decide := make(chan struct{})
		l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			<-decide
			if string(offer.Data()) != offerSDP {
				t.Error("another offer")
			}
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		// While the ACK waits: nothing is sent for a repeated 200, nothing can
		// overtake it, and the peer's re-INVITE has to wait.
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		l.ask("INVITE", withBody(offerSDP))
		p.next("491 INVITE")
		require.Error(t, l.d.ReInvite(context.Background(), offer(offerSDP)))
		require.Empty(t, w.sent(stackIP, "ACK"))
		require.NotEqual(t, dialog.DialogStateEstablished, l.d.State())
		close(decide)
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		ack := w.one(stackIP, "ACK")
		require.Equal(t, answerSDP, ack.body())
		require.Equal(t, "application/sdp", ack.value(t, "Content-Type"))
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		require.Equal(t, ack.raw, w.sent(stackIP, "ACK")[1].raw)
		// Our session is what we answered.
		l.d.OnOffer(nil)
		require.Contains(t, l.reinvites(withBody(offerSDP)).body(), "o=bob 7 2 IN IP4 10.0.0.2\r\n")
	})
}

// CONTRACT 5: nobody decides: ACK without body. Refused, late or panicking:
// every port 0, then BYE.
func TestOfferInA2xxThatIsNotTaken(t *testing.T) {
	const refused = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0 8\r\n"
	cases := []struct {
		name    string
		handler dialog.OfferHandler
		body    string
		after   time.Duration
		ends    bool
	}{
		{"nobody", nil, "", 0, false},
		{"refused", func(context.Context, dialog.Body) (dialog.Body, error) { return nil, io.EOF }, refused, 0, true},
		{"panic", func(context.Context, dialog.Body) (dialog.Body, error) { panic("oh") }, refused, 0, true},
		{"late", func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil }, refused, 24 * time.Second, true},
	}
	for _, again := range []bool{false, true} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s again %t", c.name, again), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, p := w.stack(stackIP), w.peer(peerIP)
					l := w.calls(a, p, dialog.InviteOpts{})
					seq := 1
					var result <-chan error
					if again {
						l.answer(dialogtest.Response{Code: 200})
						require.NoError(t, l.d.WaitAnswer(context.Background()))
						l.d.OnOffer(c.handler)
						result = began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
						l.invite, seq = p.next("INVITE"), 2
					} else {
						l.d.OnOffer(c.handler)
						result = began(func() error { return l.d.WaitAnswer(context.Background()) })
					}
					start := time.Now()
					l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
					ack := p.next("ACK")
					require.Equal(t, fmt.Sprintf("%d ACK", seq), ack.Request().CSeq().Value())
					require.Equal(t, c.body, string(ack.Request().Body()))
					require.Equal(t, c.after, time.Since(start))
					if !c.ends {
						require.NoError(t, <-result)
						synctest.Wait()
						require.Equal(t, dialog.DialogStateEstablished, l.d.State())
						return
					}
					bye := p.next("BYE")
					require.Equal(t, fmt.Sprintf("%d BYE", seq+1), bye.Request().CSeq().Value())
					require.Equal(t, c.after, time.Since(start))
					p.reply(bye, dialogtest.Response{Code: 200})
					<-l.d.Done()
					if err := <-result; !again {
						require.Error(t, err)
					}
					require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
				})
			})
		}
	}
}
