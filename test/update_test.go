package test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

func TestUpdateChangesTheSessionAndTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		body, err := caller.Update(context.Background(), dialog.NewBody("application/sdp", []byte(held(offerSDP))))
		require.NoError(t, err)
		require.Contains(t, string(body.Data()), "a=recvonly")
		body, err = callee.Update(context.Background(), nil)
		require.NoError(t, err)
		require.Nil(t, body)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 1)
		require.Contains(t, testkit.Value(w.sent("10.0.0.1", "UPDATE")[0].msg, "Contact"), "10.0.0.1")
	})
}

// held is an SDP with its media turned to sendonly.
func held(body string) string {
	return body[:len(body)-len("a=sendrecv\r\n")] + "a=sendonly\r\n"
}

func TestUpdateMovesTheTargetOnlyWhenAccepted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		moved := "Contact: <sip:peer@10.0.0.9:5060;moved=1>"
		d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
		r := inside("UPDATE", 11, moved)
		r.Body = offerSDP
		res := p.ask(b, r)
		require.Equal(t, 488, res.StatusCode)
		require.NotEmpty(t, testkit.Value(res, "Warning"))
		require.False(t, d.Info().RemoteTarget.UriParams.Has("moved"))
		require.Equal(t, 200, p.ask(b, inside("UPDATE", 12, moved)).StatusCode)
		require.True(t, d.Info().RemoteTarget.UriParams.Has("moved"))
		hangUp(t, d, p)
	})
}

// offersUndecided sends a request with an offer that the application does not decide.
func (p *peer) offersUndecided(s *dialog.Stack, d *dialog.Dialog, r dialogtest.Request) {
	p.t.Helper()
	d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
	r.Body = offerSDP
	require.NoError(p.t, p.Send(s.Addr(), p.Request(r)))
}

// RFC 3311 5.2: two seconds, then 504; and meanwhile another one waits.
func TestUpdateWithoutADecision(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		p.offersUndecided(b, d, inside("UPDATE", 11, contactOfPeer))
		start := time.Now()
		second := p.ask(b, inside("UPDATE", 12, contactOfPeer))
		require.Equal(t, 500, second.StatusCode)
		require.NotEmpty(t, testkit.Value(second, "Retry-After"))
		require.Equal(t, 504, p.final("UPDATE").StatusCode)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Equal(t, 200, p.ask(b, inside("UPDATE", 13, contactOfPeer)).StatusCode)
		hangUp(t, d, p)
	})
}

// RFC 3311 5.2: an offer meets one of ours, or follows one of its own.
func TestUpdateWithAnOfferAtTheWrongTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2", withoutRetry), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		ours := began(func() error { return d.ReInvite(context.Background(), offer(answerSDP)) })
		re := p.next("INVITE")
		r := inside("UPDATE", 11, contactOfPeer)
		r.Body = offerSDP
		require.Equal(t, 491, p.ask(b, r).StatusCode)
		_, err := d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
		require.ErrorIs(t, err, dialog.ErrPending)
		require.Equal(t, 200, p.ask(b, inside("UPDATE", 12, contactOfPeer)).StatusCode, "without an offer nothing is in the way")
		p.reply(re, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-ours)

		d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
		theirs := inside("INVITE", 13, contactOfPeer)
		theirs.Body = offerSDP
		require.NoError(t, p.Send(b.Addr(), p.Request(theirs)))
		p.next("100 INVITE")
		r = inside("UPDATE", 14, contactOfPeer)
		r.Body = offerSDP
		require.Equal(t, 500, p.ask(b, r).StatusCode)
		hangUp(t, d, p)
	})
}

// RFC 3311 5.3, RFC 3261 14.1.
func TestUpdatesThatMeetAreSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{50 * time.Millisecond} })
		first := began(func() error {
			_, err := caller.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			return err
		})
		_, err := callee.Update(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
		require.NoError(t, err)
		require.NoError(t, <-first)
		for from, to := range map[string]string{"10.0.0.1": "10.0.0.2", "10.0.0.2": "10.0.0.1"} {
			wait := w.sent(from, "UPDATE")[1].at.Sub(w.sent(to, "491 UPDATE")[0].at)
			require.Equal(t, from == "10.0.0.1", wait > 2100*time.Millisecond, "the Call-ID is the caller's")
			require.LessOrEqual(t, wait, 4100*time.Millisecond)
		}
	})
}

func TestUpdateBeforeTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
		require.NoError(t, err)
		callee := <-calls
		synctest.Wait()
		_, err = d.(*dialog.Dialog).Update(context.Background(), nil)
		require.NoError(t, err)
		_, err = callee.Update(context.Background(), nil)
		require.NoError(t, err)
		require.NoError(t, callee.Accept(context.Background()))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	})
}

func TestUpdateThatFails(t *testing.T) {
	for code, ends := range map[int]bool{481: true, 408: true, 488: false, 500: false, 0: true} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			d, _ := w.called(b, p, answerSDP)
			result := began(func() error { _, err := d.Update(context.Background(), nil); return err })
			in := p.next("UPDATE")
			if code != 0 {
				p.reply(in, dialogtest.Response{Code: code})
				var refused *dialog.ResponseError
				require.ErrorAs(t, <-result, &refused)
				require.Equal(t, "UPDATE", refused.Method)
			} else {
				require.ErrorIs(t, <-result, dialog.ErrTimeout)
			}
			synctest.Wait()
			require.Len(t, w.sent("10.0.0.2", "BYE"), map[bool]int{true: 1}[ends])
			hangUp(t, d, p)
		})
	}
}

// An UPDATE that waits for its decision when the call ends is answered.
func TestUpdateIsAnsweredWhenTheCallEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		p.offersUndecided(b, d, inside("UPDATE", 11, contactOfPeer))
		synctest.Wait()
		require.Equal(t, 200, p.ask(b, inside("BYE", 12)).StatusCode)
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.2", "481 UPDATE"), 1)
		<-d.Done()
	})
}

// An early dialog that UPDATE used and that loses to another fork is ended with
// a CSeq above that of the UPDATE (RFC 3261 12.2.1.1).
func TestForkThatHadAnUpdateIsEndedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, dialog.InviteOpts{})
		d, in := call.d, call.invite
		p.reply(in, dialogtest.Response{Code: 180, ToTag: "a", Headers: []string{contactOfPeer}})
		synctest.Wait()
		updated := began(func() error { _, err := d.Update(context.Background(), nil); return err })
		update := p.next("UPDATE")
		p.reply(update, dialogtest.Response{Code: 200})
		require.NoError(t, <-updated)
		for _, tag := range []string{"b", "a"} {
			p.reply(in, dialogtest.Response{Code: 200, ToTag: tag, Headers: []string{contactOfPeer}})
			p.next("ACK")
		}
		bye := p.next("BYE")
		require.Equal(t, "a", testkit.ToTag(bye.Message))
		require.Greater(t, bye.Request().CSeq().SeqNo, update.Request().CSeq().SeqNo)
		p.reply(bye, dialogtest.Response{Code: 200})
		hangUp(t, d, p)
	})
}

// An UPDATE inside the decision about an offer in a 2xx, whose ACK waits for it: the UPDATE
// must not wait for that ACK.
func TestUpdateWhileAnACKWaitsForItsAnswer(t *testing.T) {
	for _, body := range []dialog.Body{nil, dialog.NewBody("application/sdp", []byte(offerSDP))} {
		bubble(t, func(t *testing.T, w *world) {
			l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
			inside := make(chan error, 1)
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				_, err := l.d.Update(context.Background(), body)
				inside <- err
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
			result := began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
			l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
			require.Equal(t, versioned(answerSDP, 2), string(l.next("ACK").Message.Body()))
			require.ErrorIs(t, <-inside, dialog.ErrPending)
			require.NoError(t, <-result)
			l.hangUp(l.peer)
		})
	}
}

// A call that is hung up inside the decision about an offer in a 2xx does not wait
// for that decision: the ACK refuses the offer, and the BYE follows.
func TestByeWhileAnACKWaitsForItsAnswer(t *testing.T) {
	for _, initial := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			bye := func(l *peerCall) (<-chan error, dialog.OfferHandler) {
				inside := make(chan error, 1)
				return inside, func(context.Context, dialog.Body) (dialog.Body, error) {
					inside <- l.d.Bye(context.Background(), "")
					return nil, nil
				}
			}
			var l *peerCall
			var inside <-chan error
			var handler dialog.OfferHandler
			if initial {
				l = w.calls(a, p, dialog.InviteOpts{})
				inside, handler = bye(l)
				l.d.OnOffer(handler)
				l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
			} else {
				l = w.outgoing(a, p)
				inside, handler = bye(l)
				l.d.OnOffer(handler)
				began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
				l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
			}
			start := time.Now()
			require.Contains(t, string(l.next("ACK").Message.Body()), "m=audio 0 ")
			require.Less(t, time.Since(start), time.Second)
			l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-inside)
			require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
		})
	}
}
