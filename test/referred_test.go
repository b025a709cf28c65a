package test

import (
	"context"
	"fmt"
	"strconv"
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

// E1, RFC 3515 2.4.2: exactly one Refer-To, whose Replaces can be read; else 400
// and nothing begins.
func TestREFERThatCannotBeReadGets400(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		b.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { t.Error("reached the application") })
		for _, lines := range [][]string{
			nil,
			{"Refer-To: <sip:a@10.0.0.8>", "Refer-To: <sip:b@10.0.0.8>"},
			{"Refer-To: <sip:a@10.0.0.8?Replaces=x%3Bfrom-tag%3Df>"},
			{"Refer-To: <sip:a@10.0.0.8?Replaces=x%3Bfrom-tag%3Df%3Bto-tag%3Dt%3Bto-tag%3Du>"},
		} {
			l.ask("REFER", withHeaders(lines...))
			p.next("400 REFER")
		}
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "NOTIFY"))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// REFER received: 202 and the first NOTIFY do not wait for the application; a
// retransmission is the same REFER; several are several.
func TestREFERIsAnsweredWithoutWaitingForTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		calls, end := make(chan string, 10), make(chan struct{})
		defer close(end)
		b.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
			calls <- referTo.User
			if referTo.User == "bad" {
				panic("oh")
			}
			<-end
		})
		text := l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		first := p.next("202 REFER")
		require.Equal(t, l.stackTag, testkit.ToTag(first.Message))
		require.Equal(t, l.target, contactOf(first.Message))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("202 REFER").Data))
		l.ask("REFER", withHeaders("Refer-To: <sip:bad@"+otherIP+">"))
		p.next("202 REFER")
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.ElementsMatch(t, []string{"dora", "bad"}, drained(calls), "each on a goroutine of its own")
		require.Len(t, l.d.GetAllReferSubscriptions(), 2)
		var events []string
		for _, m := range w.sent(stackIP, "NOTIFY") {
			events = append(events, m.value(t, "Event"))
		}
		require.Equal(t, []string{"refer;id=2", "refer;id=3"}, events)
		l.hangUp(p)
		require.Len(t, l.d.GetAllReferSubscriptions(), 2, "RFC 5057 5.5: they outlive the call")
		require.NoError(t, l.d.Close())
		for range 2 {
			p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// C13: NOTIFY has a legal Event id, an expiry, a sipfrag that ends its line,
// and one Content-Length (RFC 3515 2.4, RFC 6665 4.2.2).
func TestNOTIFYIsWellFormed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
		check := func(seq int, state, body string) {
			t.Helper()
			p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
			synctest.Wait()
			m := w.last(stackIP, "NOTIFY")
			require.Equal(t, "NOTIFY sip:peer@"+peerIP+":5060 SIP/2.0", m.startLine())
			require.Equal(t, fmt.Sprintf("%d NOTIFY", seq), m.value(t, "CSeq"))
			require.Equal(t, "refer;id=2", m.value(t, "Event"))
			require.Equal(t, state, m.value(t, "Subscription-State"))
			require.Equal(t, "message/sipfrag;version=2.0", m.value(t, "Content-Type"))
			require.Equal(t, strconv.Itoa(len(body)), m.value(t, "Content-Length"))
			require.Equal(t, body, m.body())
			require.Equal(t, "<"+l.target+">", m.value(t, "Contact"))
			require.Equal(t, l.stackTag, testkit.FromTag(m.msg))
			require.Equal(t, farTag, testkit.ToTag(m.msg))
		}
		check(1, "active;expires=240", "SIP/2.0 100 Trying\r\n")
		r, ok := l.d.GetReferSubscription("2 REFER")
		require.True(t, ok)
		require.Equal(t, []*dialog.ReferSubscription{r}, l.d.GetAllReferSubscriptions())

		time.Sleep(30 * time.Second)
		sent := began(func() error { return r.SendNotify(context.Background(), 180, "Ringing") })
		check(2, "active;expires=210", "SIP/2.0 180 Ringing\r\n")
		require.NoError(t, <-sent)
		sent = began(func() error { return r.SendNotify(context.Background(), 200, "OK") })
		check(3, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n")
		require.NoError(t, <-sent)
		require.ErrorIs(t, r.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// C13: a subscription that was not ended sends its last NOTIFY at its expiry.
func TestSubscriptionEndsWithItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		time.Sleep(230 * time.Second)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		list := w.sent(stackIP, "NOTIFY")
		require.Equal(t, []time.Duration{0, 240 * time.Second}, times(list))
		require.Equal(t, "terminated;reason=timeout", list[1].value(t, "Subscription-State"))
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

// A13: a REFER whose 202 cannot be sent leaves nothing behind: no
// subscription, no callback, no NOTIFY; and the call goes on.
func TestReferThatCannotBeAnsweredLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		host := w.net.Host("10.0.0.1")
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if !e.Outbound && strings.HasPrefix(string(e.Data), "REFER ") {
					host.Unreachable(true)
				}
			}
		})
		p := w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		a.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { t.Error("told of a REFER that failed") })
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"}}))
		synctest.Wait()
		require.Empty(t, w.sent("10.0.0.1", "202 REFER"))
		require.Empty(t, d.GetAllReferSubscriptions())
		_, ok := d.GetReferSubscription("5 REFER")
		require.False(t, ok)
		host.Unreachable(false)
		time.Sleep(time.Minute)
		require.Empty(t, w.sent("10.0.0.1", "NOTIFY"))
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		w.say(p, a, p.inside(in, dialogtest.Request{Method: "OPTIONS", CSeq: 6}))
		p.next("200 OPTIONS")
	})
}

// A13: responses are not refused for their size: a REFER with so long a From
// and Via that its 202 passes 1300 bytes is answered, with no logger at all.
func TestReferWithALongAnswerIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, in := w.toPeer(a, p)
		var headers []string
		for i := range 30 {
			headers = append(headers, fmt.Sprintf("Via: SIP/2.0/UDP proxy-%d.example.org;branch=z9hG4bK-long-branch-%032d", i, i))
		}
		text := p.inside(in, dialogtest.Request{Method: "REFER", CSeq: 5, Headers: append(headers, "Refer-To: <sip:carol@10.0.0.3>")})
		w.say(p, a, text)
		got := p.next("202 REFER")
		require.Greater(t, len(got.Data), 1300)
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, d.GetAllReferSubscriptions(), 1)
	})
}

// A REFER passed to an unanswered call: there is no dialog in which to report, and the INVITE
// that is sent again has the next CSeq.
func TestReferHandedToAnUnansweredCallSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.peerless("10.0.0.1", "sip.example"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), offer(offerSDP))
		require.NoError(t, err)
		call := d.(*dialog.Dialog)
		req := sip.NewRequest(sip.REFER, uri("carol", "10.0.0.3"))
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, call.HandleIncomingRefer(req, uri("carol", "10.0.0.3"), nil))
		for _, sub := range call.GetAllReferSubscriptions() {
			require.ErrorIs(t, sub.SendNotify(context.Background(), 180, ""), dialog.ErrState)
		}
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 401, ToTag: "x", Headers: []string{challenge}})
		again := p.next("INVITE")
		require.EqualValues(t, 2, again.Request().CSeq().SeqNo)
		require.Empty(t, w.sent("10.0.0.1", "NOTIFY"))
		p.reply(again, dialogtest.Response{Code: 486, ToTag: "x"})
		<-call.Done()
	})
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

// B2: so does SendNotify.
func TestUnansweredNotifyReturns(t *testing.T) {
	for _, timeout := range []time.Duration{0, 7 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack("10.0.0.1", func(s *dialog.StackConfig) { s.TxTimeout = timeout })
				p := w.peer("10.0.0.9")
				d, in := w.toPeer(a, p)
				w.say(p, a, p.inside(in, dialogtest.Request{
					Method: "REFER", CSeq: 2, Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
				}))
				p.next("NOTIFY")
				sub, ok := d.GetReferSubscription("2 REFER")
				require.True(t, ok)
				began := time.Now()
				require.ErrorIs(t, sub.SendNotify(context.Background(), 180, "Ringing"), dialog.ErrTimeout)
				limit := timeout
				if limit == 0 {
					limit = 32 * time.Second
				}
				require.InDelta(t, limit.Seconds(), time.Since(began).Seconds(), 0.1)
			})
		})
	}
}

// A17: NOTIFYs that time out hold no goroutine, and none is left after Shutdown (a bubble ends
// only when all its goroutines have ended).
func TestUnansweredNotifiesHoldNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		var told atomic.Int32
		a.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) { told.Add(1) })
		d, in := w.toPeer(a, p)
		before := len(goroutines())
		for i := range 50 {
			w.say(p, a, p.inside(in, dialogtest.Request{
				Method: "REFER", CSeq: uint32(i + 2), Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
			}))
			synctest.Wait()
		}
		require.EqualValues(t, 50, told.Load())
		require.Len(t, d.GetAllReferSubscriptions(), 50)
		require.GreaterOrEqual(t, len(w.sent("10.0.0.1", "NOTIFY")), 50)
		goroutinesAtMost(t, before)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, d.GetAllReferSubscriptions(), "RFC 6665 4.2.2: an unanswered NOTIFY ends its subscription")
		goroutinesAtMost(t, before)
	})
}

// A17: the same when Shutdown comes while they are unanswered.
func TestShutdownEndsUnansweredNotifies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer("10.0.0.9")
		before := len(goroutines())
		a := w.stack("10.0.0.1")
		_, in := w.toPeer(a, p)
		for i := range 50 {
			w.say(p, a, p.inside(in, dialogtest.Request{
				Method: "REFER", CSeq: uint32(i + 2), Headers: []string{"Refer-To: <sip:carol@10.0.0.3>"},
			}))
		}
		synctest.Wait()
		defer p.answers(func(req *sip.Request) int {
			if req.Method == sip.BYE {
				return 200
			}
			return 0
		})()
		require.NoError(t, a.Shutdown(context.Background()))
		synctest.Wait()
		goroutinesAtMost(t, before+1) // the peer's own is left
	})
}

// OnReferRequest: REFERs decided before they are answered.
