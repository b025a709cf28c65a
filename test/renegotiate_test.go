package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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

		// Our hold stays when the peer renegotiates.
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
				p.reply(p.next("INVITE"), dialogtest.Response{Code: []int{503, 500, 503, 500}[i], Headers: []string{"Retry-After: 7 (busy);duration=3600"}})
				p.next("ACK")
			}
			var refused *dialog.ResponseError
			require.ErrorAs(t, <-result, &refused)
			require.Equal(t, map[int]int{3: 500, 0: 503}[retries], refused.StatusCode)
			require.Equal(t, 7*time.Second, refused.RetryAfter)
			require.Len(t, w.sent("10.0.0.2", "INVITE"), retries+1)
			hangUp(t, d, p)
		})
	}
}

// A peer that answers 491 is asked again for 64*T1, however often that is, and the call
// goes on (RFC 3261 14.1).
func TestGlareIsBoundedByTimeAndEndsNoCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.called(b, p, answerSDP)
		stop := p.answers(func(*sip.Request) int { return 491 })
		began := time.Now()
		err := d.ReInvite(context.Background(), offer(answerSDP))
		stop()
		tries := len(w.sent("10.0.0.2", "INVITE"))
		var refused *dialog.ResponseError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 491, refused.StatusCode)
		require.Greater(t, tries, 4)
		require.InDelta(t, 32, time.Since(began).Seconds(), 4)
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		hangUp(t, d, p)
	})
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

// FD22: a re-INVITE of the peer's had been answered 100, but had to wait until its
// dialog was told: an INVITE of ours that left meanwhile broke RFC 3261 14.1.
func TestNoReInviteOfOursFollowsTheHundredToThePeers(t *testing.T) {
	for _, decides := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			hold := make(chan struct{})
			var busy atomic.Bool
			s, p := w.stack(stackIP, func(c *dialog.StackConfig) {
				c.NoRetry = true
				c.Trace = func(e dialog.TraceEvent) {
					if e.Outbound && bytes.Contains(e.Data, []byte("CSeq: 2 INFO")) && busy.CompareAndSwap(false, true) {
						<-hold // the next request of the call waits as long
					}
				}
			}), w.peer(peerIP)
			l := w.incoming(s, p)
			if decides {
				l.d.OnOffer(untilTheEnd)
			}
			l.ask("INFO")
			synctest.Wait()
			require.True(t, busy.Load())
			l.ask("INVITE", withBody(offerSDP))
			synctest.Wait()
			result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
			synctest.Wait()
			said := l.w.flow()
			ours := slices.Index(said, stackIP+" INVITE")
			hundred := slices.Index(said[slices.Index(said, stackIP+" 200 INVITE"):], stackIP+" 100 INVITE")
			require.False(t, ours >= 0 && hundred >= 0, "our INVITE and the 100 to the peer's: %v", said)
			close(hold)
			synctest.Wait()
			// The two have crossed.
			p.next("491 INVITE")
			mine := p.next("INVITE")
			p.reply(mine, dialogtest.Response{Code: 491})
			require.Error(t, <-result)
		})
	}
}

// Once it is known, ours has to wait.
func TestReInviteWaitsForThePeersThatWasAnsweredTrying(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(s, p)
		decided := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			<-decided
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		l.ask("INVITE", withBody(offerSDP))
		trying := p.next("100 INVITE")
		require.Equal(t, uint32(2), trying.Response().CSeq().SeqNo)
		require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrPending)
		require.Empty(t, w.sent(stackIP, string(sip.INVITE)))
		close(decided)
		p.next("200 INVITE")
		l.acknowledge(2)
		synctest.Wait()
	})
}

// How a refusal goes from one call to another, and what does not.

// bridged is two calls of one stack whose offers go to the other call.
func (w *world) bridged() (one, other *peerCall) {
	w.t.Helper()
	s := w.stack(stackIP, withoutRetry)
	one, other = w.incoming(s, w.peer(peerIP)), w.outgoing(s, w.peer(otherIP))
	one.d.OnOffer(func(ctx context.Context, offer dialog.Body) (dialog.Body, error) {
		return other.d.Renegotiate(ctx, offer)
	})
	return one, other
}

// asksThrough has the peer of one call offer, and that of the other refuse, and
// returns what the first gets.
func asksThrough(one, other *peerCall, method string, refusal dialogtest.Response) *sip.Response {
	one.t.Helper()
	one.ask(method, withBody(offerSDP))
	other.reply(other.next("INVITE"), refusal)
	other.next("ACK")
	return one.peer.final(method)
}

// FD14, RFC 3261 14.1, 14.2: what the other call was refused is what this one is
// refused, but for what ends a call, or is about credentials.
func TestRefusalOfTheOtherCallPasses(t *testing.T) {
	carried := []string{"Retry-After: 7", `Warning: 304 far "no, \"never\"", 399 far "x"`, `Reason: Q.850;cause=88;text="no"`}
	for code, want := range map[int]int{
		491: 491, 415: 415, 488: 488, 606: 606, 500: 500, 503: 503, 603: 603, 400: 400, 403: 403, 413: 413, 600: 600,
		401: 488, 407: 488, 408: 488, 481: 488, 404: 488, 410: 488, 482: 488, 604: 488, 480: 488, 501: 488,
		420: 488, 421: 488, 422: 488, 302: 488, 487: 488,
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(fmt.Sprintf("%d to %s", code, method), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					one, other := w.bridged()
					headers := append([]string{"Accept: application/sdp, text/plain"}, carried...)
					res := asksThrough(one, other, method, dialogtest.Response{Code: code, Reason: "Said so", Headers: headers})
					require.Equal(t, want, res.StatusCode)
					if code == want {
						require.Equal(t, "Said so", res.Reason)
						require.Equal(t, "7", testkit.Value(res, "Retry-After"))
						require.Equal(t, []string{"application/sdp", "text/plain"}, values(res, "Accept"))
					} else {
						require.Empty(t, testkit.Value(res, "Retry-After"))
						require.Empty(t, testkit.Value(res, "WWW-Authenticate"))
					}
					require.Equal(t, []string{`304 far "no, \"never\""`, `399 far "x"`}, values(res, "Warning"))
					require.Equal(t, []string{`Q.850;cause=88;text="no"`}, values(res, "Reason"))
					require.Equal(t, dialog.DialogStateEstablished, one.d.State())
					hangUp(t, one.d, one.peer)
				})
			})
		}
	}
}

// A 488 of the other call that says nothing gets a Warning of ours; the retry of a 491
// is the peer's.
func TestRefusalOfTheOtherCallWithoutHeaders(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		res := asksThrough(one, other, "INVITE", dialogtest.Response{Code: 488})
		require.Equal(t, `399 dialog "offer refused"`, testkit.Value(res, "Warning"))
		res = asksThrough(one, other, "INVITE", dialogtest.Response{Code: 491})
		require.Equal(t, 491, res.StatusCode)
		require.Empty(t, testkit.Value(res, "Warning"))
		require.Empty(t, testkit.Value(res, "Retry-After"))
		hangUp(t, one.d, one.peer)
	})
}

// A Retry-After of no time says so too; a Reason that would make no header is left out.
func TestRefusalOfTheOtherCallAtItsEdges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		res := asksThrough(one, other, "INVITE", dialogtest.Response{Code: 503, Headers: []string{"Retry-After: 0"}})
		require.Equal(t, []string{"0"}, values(res, "Retry-After"))
		hangUp(t, one.d, one.peer)
	})
	refused := dialog.ResponseError{StatusCode: 486, Reasons: []dialog.Reason{{Protocol: "no token", Cause: 1}, {Protocol: "SIP", Cause: 2}}}
	require.Equal(t, []dialog.Header{{Name: "Reason", Value: "SIP;cause=2"}}, refused.Refusal().Headers)
}

// FD14: an application chooses how it refuses.
func TestApplicationChoosesTheRefusal(t *testing.T) {
	headers := []dialog.Header{
		{Name: "Retry-After", Value: "3"}, {Name: "Warning", Value: `305 me "a"`}, {Name: "X", Value: "a\r\nY: b"}, {Name: "To", Value: "<sip:evil>"},
	}
	for name, c := range map[string]struct {
		err    error
		code   int
		reason string
	}{
		"chosen":             {&dialog.Refusal{Status: 606, Headers: headers}, 606, "Not Acceptable"},
		"wrapped":            {fmt.Errorf("no: %w", &dialog.Refusal{Status: 480, Reason: "Not\r\nnow", Headers: headers}), 480, "Not  now"},
		"challenge":          {&dialog.Refusal{Status: 407, Headers: headers}, 407, "Proxy Authentication Required"},
		"redirection":        {&dialog.Refusal{Status: 302, Headers: headers}, 302, "Moved Temporarily"},
		"nothing":            {&dialog.Refusal{Headers: headers}, 488, "Not Acceptable Here"},
		"no refusal":         {&dialog.Refusal{Status: 200, Headers: headers}, 488, "Not Acceptable Here"},
		"out of range":       {&dialog.Refusal{Status: 700, Headers: headers}, 488, "Not Acceptable Here"},
		"of a ResponseError": {(&dialog.ResponseError{StatusCode: 503, RetryAfter: 3 * time.Second, Warnings: []string{`305 me "a"`}}).Refusal(), 503, "Service Unavailable"},
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP), w.peer(peerIP))
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(answerSDP), c.err })
					res := l.offers(method, offerSDP)
					require.Equal(t, c.code, res.StatusCode)
					require.Equal(t, c.reason, res.Reason)
					require.Equal(t, "3", testkit.Value(res, "Retry-After"))
					require.Equal(t, []string{`305 me "a"`}, values(res, "Warning"))
					require.Len(t, res.GetHeaders("To"), 1)
					require.Empty(t, values(res, "X"), "it would break the response")
					require.Empty(t, values(res, "Y"))
					require.Empty(t, res.Body())
					l.stands(l.peer)
				})
			})
		}
	}
}

// FD14: what is not a refusal of anybody's.
func TestOtherErrorsOfOnOffer(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"any":                  {errors.New("no"), 488},
		"no answer":            {fmt.Errorf("other call: %w", dialog.ErrTimeout), 504},
		"a time that is over":  {context.DeadlineExceeded, 504},
		"busy":                 {fmt.Errorf("other call: %w", dialog.ErrPending), 491},
		"ended":                {&dialog.StateError{Op: "ReInvite", State: dialog.DialogStateTerminated}, 488},
		"lost":                 {dialog.ErrTransport, 488},
		"nil ResponseError":    {(*dialog.ResponseError)(nil), 500},
		"nil Refusal":          {(*dialog.Refusal)(nil), 500},
		"no Refusal inside":    {fmt.Errorf("no: %w", (*dialog.Refusal)(nil)), 488},
		"no response inside":   {fmt.Errorf("no: %w", (*dialog.ResponseError)(nil)), 488},
		"text that falls over": {fallsOver{}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, c.err })
				for _, method := range []string{"INVITE", "UPDATE"} {
					require.Equal(t, c.code, l.offers(method, offerSDP).StatusCode)
				}
				l.stands(l.peer)
			})
		})
	}
}

type fallsOver struct{}

func (fallsOver) Error() string { panic("no text") }

// FD14: the other call's silence is a 504 here, and ends it alone.
func TestOtherCallThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, other := w.bridged()
		one.ask("INVITE", withBody(offerSDP))
		other.next("INVITE")
		require.Equal(t, 504, one.peer.final("INVITE").StatusCode)
		require.Equal(t, dialog.DialogStateEstablished, one.d.State())
		other.reply(other.next("BYE"), dialogtest.Response{Code: 200})
		hangUp(t, one.d, one.peer)
	})
}

// FD15: a call that got its 200, and ended since OnOffer refused the offer in it, was not
// refused by the peer: its error contains nothing of the other call's.
func TestErrorOfACallIsNotThatOfTheOther(t *testing.T) {
	others := map[string]error{
		"refused":  &dialog.ResponseError{Method: "INVITE", StatusCode: 486, Reason: "Busy Here"},
		"silent":   dialog.ErrTimeout,
		"lost":     dialog.ErrTransport,
		"shut":     dialog.ErrShutdown,
		"over":     &dialog.StateError{Op: "ReInvite", State: dialog.DialogStateTerminated},
		"transfer": &dialog.TransferError{},
	}
	for name, err := range others {
		for _, reliable := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", reliable), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					opts := dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
						d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, fmt.Errorf("other call: %w", err) })
					}}
					l := w.calls(w.stack(stackIP), w.peer(peerIP), opts)
					if reliable {
						l.answer(dialogtest.Response{Code: 183, Body: offerSDP, Headers: reliably(1)})
						l.reply(l.next("PRACK"), dialogtest.Response{Code: 200})
						l.reply(l.next("CANCEL"), dialogtest.Response{Code: 200})
						l.answer(dialogtest.Response{Code: 487})
					} else {
						l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
						require.Contains(t, string(l.next("ACK").Message.Body()), "m=audio 0 ")
						l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
					}
					for _, got := range []error{l.d.WaitAnswer(context.Background()), l.d.Cause().Err} {
						require.ErrorContains(t, got, "other call: ")
						var refused *dialog.ResponseError
						var state *dialog.StateError
						var transfer *dialog.TransferError
						require.False(t, errors.As(got, &refused), "%v", got)
						require.False(t, errors.As(got, &state), "%v", got)
						require.False(t, errors.As(got, &transfer), "%v", got)
						for _, sentinel := range []error{dialog.ErrTimeout, dialog.ErrTransport, dialog.ErrShutdown, dialog.ErrTerminated} {
							require.NotErrorIs(t, got, sentinel)
						}
						var how *dialog.Refusal
						require.ErrorAs(t, got, &how, "how it was refused here")
					}
					require.ErrorIs(t, l.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
					synctest.Wait()
					require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
				})
			})
		}
	}
}

// An incoming call is refused with what refused another.
func TestCallIsRefusedAsAnotherWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP)
		one := w.rings(s, w.peer(peerIP))
		other := w.calls(s, w.peer(otherIP), offer(offerSDP))
		other.answer(dialogtest.Response{Code: 603, Headers: []string{`Reason: Q.850;cause=21`, "Retry-After: 60", `Warning: 399 far "x"`}})
		var refused *dialog.ResponseError
		require.ErrorAs(t, other.d.WaitAnswer(context.Background()), &refused)
		require.Equal(t, []string{`399 far "x"`}, refused.Warnings)
		r := refused.Refusal()
		require.NoError(t, one.d.RejectWith(context.Background(), r.Status, r.Reason, dialog.WithHeaders(r.Headers...)))
		m := w.one(stackIP, "603 INVITE")
		require.Equal(t, "Q.850;cause=21", m.value(t, "Reason"))
		require.Equal(t, "60", m.value(t, "Retry-After"))
		require.Equal(t, `399 far "x"`, m.value(t, "Warning"))
	})
}
