package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"runtime"
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

// decides has the stack decide REFERs as handler says, and counts those that
// reach OnIncomingRefer.
func decides(s *dialog.Stack, handler dialog.ReferHandler) <-chan string {
	taken := make(chan string, 10)
	s.OnReferRequest(handler)
	s.OnIncomingRefer(func(_ dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) { taken <- referTo.User })
	return taken
}

func TestReferIsRefusedBeforeIt202(t *testing.T) {
	for _, status := range []int{300, 403, 429, 480, 503, 603, 699} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			var refused *dialog.ReferRequest
			taken := decides(b, func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
				refused = refer
				return dialog.Answer{Status: status, Reason: "No", Headers: []dialog.Header{{Name: "Retry-After", Value: "9"}}}
			})
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
			res := l.peer.final("REFER")
			require.Equal(t, status, res.StatusCode)
			require.Equal(t, "9", testkit.Value(res, "Retry-After"))
			synctest.Wait()
			require.Empty(t, taken)
			require.Empty(t, w.sent(stackIP, "NOTIFY"))
			require.Empty(t, l.d.GetAllReferSubscriptions())
			require.True(t, ended(refused.Subscription))
			require.ErrorIs(t, refused.Subscription.SendNotify(context.Background(), 200, "OK"), dialog.ErrNoSubscription)
			_, err := refused.Subscription.Follow(context.Background(), dialog.InviteOpts{})
			require.ErrorIs(t, err, dialog.ErrNoRefer)
			require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		})
	}
}

func TestReferIsAcceptedByTheHandler(t *testing.T) {
	for _, answer := range []dialog.Answer{{}, {Status: 200}, {Status: 202, Headers: []dialog.Header{{Name: "X-Seen", Value: "yes"}}}} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(stackIP)
			l := w.incoming(b, w.peer(peerIP))
			var got *dialog.ReferRequest
			taken := decides(b, func(_ context.Context, refer *dialog.ReferRequest) dialog.Answer {
				got = refer
				require.Empty(t, w.sent(stackIP, "202 REFER"))
				return answer
			})
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8?Replaces=x%3Bfrom-tag%3Df%3Bto-tag%3Dt>",
				"Referred-By: <sip:alice@10.0.0.9>;x=y", "Subject: please"))
			l.next("202 REFER")
			l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
			require.Equal(t, "dora", <-taken)
			require.Same(t, l.d, got.Dialog)
			require.Equal(t, "dora", got.ReferTo.User)
			require.Equal(t, &dialog.ReplacesInfo{CallID: "x", FromTag: "f", ToTag: "t"}, got.Replaces)
			require.Equal(t, "<sip:alice@10.0.0.9>;x=y", got.ReferredBy)
			require.Equal(t, "please", testkit.Value(got.Request, "Subject"))
			require.Equal(t, []*dialog.ReferSubscription{got.Subscription}, l.d.GetAllReferSubscriptions())
			require.Len(t, w.one(stackIP, "202 REFER").values("X-Seen"), len(answer.Headers))
		})
	}
}

// Two seconds, then 504; what the handler says then does not count.
func TestReferWithoutADecisionGets504(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		taken := decides(b, func(ctx context.Context, _ *dialog.ReferRequest) dialog.Answer {
			<-ctx.Done()
			return dialog.Answer{}
		})
		start := time.Now()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 504, l.peer.final("REFER").StatusCode)
		require.Equal(t, 2*time.Second, time.Since(start))
		synctest.Wait()
		require.Empty(t, taken)
		require.Empty(t, l.d.GetAllReferSubscriptions())
	})
}

func TestMisbehavingReferHandlerGets500(t *testing.T) {
	for name, misbehave := range map[string]func(){"panic": func() { panic("in the application") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				taken := decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { misbehave(); return dialog.Answer{} })
				l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
				require.Equal(t, 500, l.peer.final("REFER").StatusCode)
				synctest.Wait()
				require.Empty(t, taken)
			})
		})
	}
}

// A call that ends meanwhile takes no REFER: 481.
func TestCallEndsWhileAReferIsDecided(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		decide := make(chan struct{})
		taken := decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { <-decide; return dialog.Answer{} })
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		synctest.Wait()
		l.hangsUp()
		close(decide)
		require.Equal(t, 481, l.peer.final("REFER").StatusCode)
		synctest.Wait()
		require.Empty(t, taken)
		w.checkEmpty(b)
	})
}

// The bound counts those that are being decided.
func TestUndecidedRefersCountAgainstTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.SubscriptionsPerDialog = 3 })
		l := w.incoming(b, w.peer(peerIP))
		decide := make(chan struct{})
		decides(b, func(context.Context, *dialog.ReferRequest) dialog.Answer { <-decide; return dialog.Answer{Status: 603} })
		for range 3 {
			l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		}
		synctest.Wait()
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 503, l.peer.final("REFER").StatusCode)
		close(decide)
		for range 3 {
			require.Equal(t, 603, l.peer.final("REFER").StatusCode)
		}
		require.EqualValues(t, 1, b.Stats().Refused["subscriptions"])
		b.OnReferRequest(nil)
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@10.0.0.8>"))
		require.Equal(t, 202, l.peer.final("REFER").StatusCode)
	})
}

// RFC 3892 2.1: one Referred-By. RFC 7614 5.3: nosub is known; RFC 4538: tdialog
// is where the application says so.
func TestHeadersOfAReferThatArrives(t *testing.T) {
	cases := []struct {
		headers  []string
		answer   int
		notifies int
	}{
		{[]string{"Referred-By: <sip:a@b>", "Referred-By: <sip:c@d>"}, 400, 0},
		{[]string{"Require: nosub"}, 202, 0},
		{[]string{"Require: norefersub", "Refer-Sub: false"}, 202, 0},
		{[]string{"Refer-Sub: true"}, 202, 1},
		{[]string{"Require: explicitsub"}, 420, 0},
		{[]string{"Require: tdialog", "Target-Dialog: x;local-tag=a;remote-tag=b"}, 420, 0},
	}
	for i, c := range cases {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				l := w.incoming(b, w.peer(peerIP))
				l.ask("REFER", withHeaders(append(c.headers, "Refer-To: <sip:dora@10.0.0.8>")...))
				res := l.peer.final("REFER")
				require.Equal(t, c.answer, res.StatusCode)
				synctest.Wait()
				require.Len(t, w.sent(stackIP, "NOTIFY"), c.notifies)
			})
		})
	}
}

// FD21. A REFER gets 202 whatever the application does; without a handler the outcome is known
// at once.
func TestReferWithoutAHandlerIsDeclinedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingRefer(nil)
		caller, callee := w.established(a, b)
		began := time.Now()
		for range 3 {
			require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
			r, err := caller.WaitRefer(context.Background())
			require.NoError(t, err)
			outcome, err := r.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, dialog.Progress{Status: 603, Reason: "Decline"}, outcome)
			<-r.Done()
		}
		require.Zero(t, time.Since(began))
		synctest.Wait()
		require.Empty(t, callee.GetAllReferSubscriptions())
		require.Len(t, w.sent("10.0.0.2", "202 REFER"), 3)
		notifies := w.sent("10.0.0.2", "NOTIFY")
		require.Len(t, notifies, 3)
		require.Equal(t, "terminated;reason=noresource", notifies[0].value(t, "Subscription-State"))
		require.Equal(t, "SIP/2.0 603 Decline\r\n", notifies[0].body())
		_, err := callee.FollowRefer(context.Background(), uri("carol", "10.0.0.3"), dialog.InviteOpts{})
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// With any kind of handler the stack sends no outcome itself.
func TestReferWithAHandlerIsNotDeclined(t *testing.T) {
	accept := func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{} }
	for name, takes := range map[string]func(s *dialog.Stack){
		"OnIncomingRefer": func(s *dialog.Stack) { s.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {}) },
		"OnReferRequest":  func(s *dialog.Stack) { s.OnReferRequest(accept) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				b.OnIncomingRefer(nil)
				l := w.incoming(b, p)
				takes(b)
				l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
				p.next("202 REFER")
				notify := p.next("NOTIFY")
				require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
				p.reply(notify, dialogtest.Response{Code: 200})
				synctest.Wait()
				require.Len(t, l.d.GetAllReferSubscriptions(), 1)
				hangUp(t, l.d, p)
			})
		})
	}
}

// Without a subscription there is no NOTIFY; a peer that does not know the subscription, or
// does not respond, does not harm the call.
func TestReferWithoutAHandlerAndWithoutASubscription(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">", "Refer-Sub: false"))
		require.Equal(t, "false", testkit.Value(p.next("202 REFER").Message, "Refer-Sub"))
		p.quiet("NOTIFY", time.Minute)

		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 481})
		synctest.Wait()
		require.Empty(t, l.d.GetAllReferSubscriptions())
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.next("NOTIFY")
		time.Sleep(time.Minute)
		require.Empty(t, l.d.GetAllReferSubscriptions())
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
	})
}

// An application that takes a REFER by HandleIncomingRefer takes it.
func TestReferHandedInIsNotDeclined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		req := sip.NewRequest(sip.REFER, uri("service", stackIP))
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, l.d.HandleIncomingRefer(req, uri("carol", otherIP), nil))
		notify := p.next("NOTIFY")
		require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
		p.reply(notify, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.GetAllReferSubscriptions(), 1)
		hangUp(t, l.d, p)
	})
}

const (
	tokenID     = "20398823.2UWQFN309shb3@referrer.example"
	referredByC = `Referred-By: <sip:caller@10.0.0.9>;cid="` + tokenID + `"`
)

// signed is a token as RFC 3892 7.1 has it; part is what else stands in it.
const signed = "Content-Type: multipart/signed;\r\n  protocol=\"application/pkcs7-signature\";\r\n  micalg=sha1; boundary=dragons39\r\n" +
	"content-id: <" + tokenID + ">\r\n\r\n" +
	"--dragons39\r\nContent-Type: message/sipfrag\r\nContent-Disposition: aib; handling=optional\r\n\r\n" +
	"Refer-To: <sip:dora@10.0.0.8>\r\n--unique-1x\r\n\r\n" +
	"--dragons39\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\n\xff\x00 \r\n\r\n--dragons39--"

// mixed is a body of parts.
func mixed(parts ...string) string {
	return "\r\n--unique-1 \r\n" + strings.Join(parts, "\r\n--unique-1\t\r\n") + "\r\n--unique-1--\r\n"
}

// sentParts returns what stands in a multipart body, part by part, with the type of
// each.
func sentParts(t *testing.T, m wire) (types, parts []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(m.value(t, "Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/mixed", kind)
	r := multipart.NewReader(strings.NewReader(m.body()), params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return types, parts
		}
		require.NoError(t, err)
		data, err := io.ReadAll(p)
		require.NoError(t, err)
		types, parts = append(types, p.Header.Get("Content-Type")), append(parts, string(data))
	}
}

// RFC 3892 2.2: header and token are copied without modification.
func TestReferredByTokenGoesToTheTarget(t *testing.T) {
	for name, opts := range map[string]dialog.InviteOpts{"with an offer": offer(offerSDP), "without": {}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, dora := w.stack(stackIP), w.peer(otherIP)
				l := w.incoming(b, w.peer(peerIP))
				result := followsRefers(context.Background(), b, opts)
				l.ask("REFER", withHeaders(referToDora, referredByC, "Content-Type: multipart/mixed; boundary=unique-1"),
					withBody(mixed("Content-Type: text/plain\r\n\r\nhello", signed, "Content-Type: text/plain\r\n\r\nbye")))
				invite := dora.next("INVITE")
				dora.reply(invite, dialogtest.Response{Code: 200, ToTag: "d", Body: answerSDP})
				dora.next("ACK")
				require.Equal(t, []string{"100 Trying", "200 OK"}, l.told())
				m := w.one(stackIP, "INVITE")
				require.Equal(t, strings.TrimPrefix(referredByC, "Referred-By: "), m.value(t, "Referred-By"))
				require.True(t, bytes.Contains([]byte(m.body()), []byte("\r\n"+signed+"\r\n--part-")), "byte for byte:\n%s", m.body())
				types, parts := sentParts(t, m)
				if name == "without" {
					require.Len(t, types, 1)
				} else {
					require.Equal(t, "application/sdp", types[0])
					require.Equal(t, offerSDP, parts[0])
					require.Len(t, types, 2)
				}
				got := <-result
				require.NoError(t, got.err)
				if name == "without" {
					return
				}
				// The offered SDP counts, not the whole body.
				hold := began(func() error { return got.call.Hold(context.Background()) })
				again := dora.next("INVITE")
				require.Equal(t, "application/sdp", testkit.Value(again.Message, "Content-Type"))
				require.Contains(t, string(again.Message.Body()), "a=sendonly")
				dora.reply(again, dialogtest.Response{Code: 200, Body: answerSDP})
				require.NoError(t, <-hold)
			})
		})
	}
}

// A body part that is not a token of the referrer is not copied: the body stays as it would be
// without it.
func TestOnlyAReferredByTokenIsCopied(t *testing.T) {
	const kind = "Content-Type: multipart/mixed; boundary=unique-1"
	for name, c := range map[string]struct{ referredBy, kind, body string }{
		"no cid":               {"Referred-By: <sip:caller@10.0.0.9;cid=x>", kind, mixed(signed)},
		"another cid":          {`Referred-By: <sip:caller@10.0.0.9>;cid="other@x"`, kind, mixed(signed)},
		"an empty cid":         {`Referred-By: <sip:caller@10.0.0.9>;cid=""`, kind, mixed(signed)},
		"no body":              {referredByC, kind, ""},
		"no boundary":          {referredByC, "Content-Type: multipart/mixed", mixed(signed)},
		"a boundary of bytes":  {referredByC, "Content-Type: multipart/mixed; boundary*=utf-8''%ff", mixed(signed)},
		"no parts":             {referredByC, "Content-Type: text/plain; boundary=unique-1", mixed(signed)},
		"a part without end":   {referredByC, kind, "--unique-1\r\n" + signed},
		"a part without a gap": {referredByC, kind, mixed("Content-ID: <" + tokenID + ">")},
		"a session":            {referredByC, kind, mixed("Content-Type: application/sdp\r\nContent-ID: <" + tokenID + ">\r\n\r\n" + answerSDP)},
		"too long":             {referredByC, kind, mixed(strings.Replace(signed, "--unique-1x", strings.Repeat("x", 32<<10), 1))},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, dora, _ := w.referredToDora()
				l.ask("REFER", withHeaders(referToDora, c.referredBy, c.kind), withBody(c.body))
				dora.reply(dora.next("INVITE"), dialogtest.Response{Code: 486})
				l.told()
				synctest.Wait()
				m := w.one(stackIP, "INVITE")
				require.Equal(t, "application/sdp", m.value(t, "Content-Type"))
				require.Equal(t, offerSDP, m.body())
			})
		})
	}
}

// allocated is how many bytes f has allocated, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FX10: a multipart body costs what its bytes do, however many parts it has.
func TestMultipartReferOfManyPartsMakesNoGarbage(t *testing.T) {
	const size = 1<<20 - 1000
	many := func(part string) string {
		return strings.Repeat("--b\r\n"+part+"\r\n", size/len("--b\r\n"+part+"\r\n")) + "--b--\r\n"
	}
	for name, body := range map[string]string{
		"empty parts":          many(""),
		"parts with a header":  many("A: b\r\n\r\n"),
		"parts with the token": many("Content-ID: <" + tokenID + ">\r\n\r\n"),
		"one long header":      "--b\r\n" + strings.Repeat("Content-ID: <"+tokenID+">\r\n", size/60) + "\r\n--b--\r\n",
		"nearly delimiters":    strings.Repeat("--b", size/3),
		"padding":              "\r\n--b" + strings.Repeat(" ", size-100),
		"dashes":               strings.Repeat("-", size),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: stackIP, Port: 5060}}
				})
				l := w.incoming(b, w.peer(peerIP))
				b.OnReferRequest(func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{Status: 603} })
				refer := l.Request(l.made("REFER", withHeaders(referToDora, referredByC, "Content-Type: multipart/mixed; boundary=b"), withBody(body)))
				w.deaf()
				conn, err := w.net.Host(peerIP).DialContext(context.Background(), "tcp", stackIP+":5060")
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				answer := make([]byte, 4<<10)
				var n int
				garbage := allocated(func() {
					go func() { _, _ = conn.Write([]byte(refer)) }()
					n, err = conn.Read(answer)
				})
				require.NoError(t, err)
				require.Contains(t, string(answer[:n]), "SIP/2.0 603 ")
				require.Less(t, garbage, uint64(24<<20), "the body is 1 MiB")
				t.Logf("%d KiB", garbage>>10)
				hangUp(t, l.d, l.peer)
			})
		})
	}
}
