package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func TestHoldAndResume(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		require.NoError(t, caller.Hold(context.Background()))
		synctest.Wait()
		held := w.sent("10.0.0.1", "INVITE")[1]
		require.Contains(t, string(held.msg.Body()), "a=sendonly")
		require.Contains(t, string(held.msg.Body()), "o=alice 1 2 ")
		answers := w.sent("10.0.0.2", "200 INVITE")
		require.Contains(t, string(answers[1].msg.Body()), "a=recvonly")

		// What we hold stays held when the peer renegotiates.
		body, err := callee.Renegotiate(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
		require.NoError(t, err)
		require.Contains(t, string(body.Data()), "a=sendonly")

		require.NoError(t, caller.Resume(context.Background()))
		synctest.Wait()
		answers = w.sent("10.0.0.2", "200 INVITE")
		require.Contains(t, string(answers[2].msg.Body()), "a=sendrecv", "the peer's hold is over")
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.ErrorIs(t, caller.Hold(context.Background()), dialog.ErrTerminated)
	})
}

func TestRefusedHoldLeavesTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.called(b, p, answerSDP)
		held := began(func() error { return d.Hold(context.Background()) })
		first := p.next("INVITE")
		require.Contains(t, string(first.Message.Body()), "a=sendonly")
		p.reply(first, dialogtest.Response{Code: 488})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-held, &refused)
		p.next("ACK")
		resumed := began(func() error { return d.Resume(context.Background()) })
		second := p.next("INVITE")
		require.Contains(t, string(second.Message.Body()), "a=sendrecv", "nothing was held")
		p.reply(second, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-resumed)
		hangUp(t, d, p)
	})
}

func TestHoldNeedsASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.called(b, p, "")
		require.ErrorIs(t, d.Hold(context.Background()), dialog.ErrNoSession)
		hangUp(t, d, p)
	})
}

// RFC 3261 14.1: both sides send a re-INVITE at once, both get 491, and both
// succeed a little later.
func TestGlareIsResolved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{50 * time.Millisecond} })
		began1 := time.Now()
		first := began(func() error { return caller.ReInvite(context.Background(), offer(offerSDP)) })
		second := began(func() error { return callee.ReInvite(context.Background(), offer(answerSDP)) })
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		require.NotEmpty(t, w.sent("10.0.0.1", "491 INVITE"))
		require.NotEmpty(t, w.sent("10.0.0.2", "491 INVITE"))
		require.Less(t, time.Since(began1), 10*time.Second)
		wait := w.sent("10.0.0.1", "INVITE")[2].at.Sub(w.sent("10.0.0.2", "491 INVITE")[0].at)
		require.GreaterOrEqual(t, wait, 2100*time.Millisecond, "the Call-ID is the caller's")
		require.LessOrEqual(t, wait, 4100*time.Millisecond)
		wait = w.sent("10.0.0.2", "INVITE")[1].at.Sub(w.sent("10.0.0.1", "491 INVITE")[0].at)
		require.LessOrEqual(t, wait, 2100*time.Millisecond, "the callee's window comes first")
	})
}

// RFC 3261 20.33, 21.5.1, 21.5.4: as long as the peer asks for, and no longer.
func TestRetryAfterIsObeyed(t *testing.T) {
	for name, ask := range map[string]func(d *dialog.Dialog) error{
		"INVITE": func(d *dialog.Dialog) error { return d.ReInvite(context.Background(), offer(answerSDP)) },
		"UPDATE": func(d *dialog.Dialog) error { _, err := d.Update(context.Background(), nil); return err },
	} {
		for wait, code := range map[time.Duration]int{7 * time.Second: 500, time.Hour: 503, 0: 500} {
			t.Run(fmt.Sprint(name, " ", code, " ", wait), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.peer(peerIP)
					l := w.incoming(w.stack(stackIP), p)
					result := began(func() error { return ask(l.d) })
					said := fmt.Sprintf("Retry-After: %.0f (busy);duration=3600", wait.Seconds())
					p.reply(p.next(name), dialogtest.Response{Code: code, Headers: []string{said}})
					time.Sleep(wait)
					p.reply(p.next(name), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
					require.NoError(t, <-result)
					require.Equal(t, []time.Duration{0, wait}, times(w.sent(stackIP, name)))
					l.stands(p)
				})
			})
		}
	}
}

func TestRetriesAreBoundedAndCanBeSwitchedOff(t *testing.T) {
	for retries, change := range map[int]func(*dialog.StackConfig){
		3: func(*dialog.StackConfig) {}, 0: func(c *dialog.StackConfig) { c.NoRetry = true },
	} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2", change), w.peer("10.0.0.9")
			d, _ := w.called(b, p, answerSDP)
			result := began(func() error { return d.ReInvite(context.Background(), offer(answerSDP)) })
			for i := range retries + 1 {
				p.reply(p.next("INVITE"), dialogtest.Response{Code: []int{491, 500, 503, 491}[i], Headers: []string{"Retry-After: 7 (busy);duration=3600"}})
				p.next("ACK")
			}
			var refused *dialog.ResponseError
			require.ErrorAs(t, <-result, &refused)
			require.Equal(t, 491, refused.StatusCode)
			require.Equal(t, 7*time.Second, refused.RetryAfter)
			require.Len(t, w.sent("10.0.0.2", "INVITE"), retries+1)
			hangUp(t, d, p)
		})
	}
}

// The end of the call, or of the context, ends the wait for another try.
func TestRetryDoesNotOutliveTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		result := began(func() error { return d.ReInvite(context.Background(), offer(answerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 503, Headers: []string{"Retry-After: 100"}})
		p.next("ACK")
		synctest.Wait()
		began := time.Now()
		require.Equal(t, 200, p.ask(b, inside("BYE", 11)).StatusCode)
		require.ErrorIs(t, <-result, dialog.ErrTerminated)
		require.Zero(t, time.Since(began))
	})
}

func TestRedirectionIsReportedWithItsContacts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{})
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 302, ToTag: "x", Headers: []string{"Contact: <sip:carol@10.0.0.3>;q=0.5, <sip:dora@10.0.0.4>"}})
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Len(t, refused.Contacts, 2)
		require.True(t, strings.HasPrefix(refused.Contacts[0].String(), "sip:dora@10.0.0.4"), "the highest q first")
	})
}
