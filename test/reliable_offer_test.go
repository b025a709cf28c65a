package test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// An INVITE without an offer: ours is in the first reliable response, the answer
// in its PRACK (RFC 3262 5).
func TestOurOfferInAReliableResponseIsAnsweredByThePRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withoutBody, withHeaders(knows))
		got := bodies(l.d)
		l.progress(183, withSDP(offerSDP))
		early := p.next("183 INVITE").Message

		// Two offers at once (RFC 3311 5.1, 5.2).
		l.ask("UPDATE", withBody(answerSDP))
		p.next("491 UPDATE")
		_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
		require.ErrorIs(t, err, dialog.ErrPending)

		require.Empty(t, l.pracked(early, withBody(answerSDP)).Body())
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))

		// Agreed: either side may offer anew, and hold works from our offer.
		l.ask("UPDATE", withBody(held(answerSDP)))
		require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=recvonly")
		updated := began(func() error {
			_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			return err
		})
		p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-updated)

		// What the application puts into the 200 is no offer any more.
		require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
		p.next("200 INVITE")
		l.ask("UPDATE", withBody(answerSDP))
		p.next("200 UPDATE")
		l.acknowledge(1)
		synctest.Wait()
		l.ask("INVITE", withBody(offerSDP))
		p.next("200 INVITE")
		l.acknowledge(l.seq)
		synctest.Wait()
		l.hangUp(p)
		l.settled(b)
	})
}

// A PRACK that brings no answer to our offer: the call goes on, and the 200 may
// offer again.
func TestPRACKWithoutTheAnswerLeavesTheOfferToThe200(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withoutBody, withHeaders(knows))
		got := bodies(l.d)
		l.progress(183, withSDP(offerSDP))
		l.pracked(p.next("183 INVITE").Message)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
		require.Equal(t, offerSDP, string(p.next("200 INVITE").Message.Body()))
		l.ask("UPDATE", withBody(answerSDP))
		p.next("491 UPDATE")
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))
		l.hangUp(p)
		l.settled(b)
	})
}

// RFC 3262 5: where every response must be reliable, and the first one must
// carry an offer, the stack cannot ring by itself.
func TestFirstReliableResponseCarriesTheOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		calls := make(chan dialog.IDialog, 1)
		b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:b@" + stackIP, Headers: []string{demands},
		})))
		d := (<-calls).(*dialog.Dialog)
		require.Equal(t, dialog.DialogStateRinging, d.State())
		ctx := context.Background()
		require.ErrorIs(t, d.Provisional(ctx, 180, ""), dialog.ErrInvalidArgument)
		require.NoError(t, d.Provisional(ctx, 183, "", withSDP(offerSDP)))
		require.NoError(t, d.Provisional(ctx, 180, ""), "the second one need not")
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "180 INVITE"))
		p.next("183 INVITE")
		require.NoError(t, d.Reject(ctx, 486, ""))
	})
}

// answeredEarly has the stack answer the peer's offer in a reliable response.
func (w *world) answeredEarly(headers ...string) (*peerCall, dialogtest.Received) {
	w.t.Helper()
	b, p := w.stack(stackIP), w.peer(peerIP)
	l := w.rings(b, p, withHeaders(append(headers, knows)...))
	l.progress(183, withSDP(answerSDP))
	return l, p.next("183 INVITE")
}

// The offer of the INVITE, answered in a reliable response, is settled once the
// PRACK has come (RFC 3311 5.1, RFC 6337 4.3).
func TestUpdateHasToWaitForThePRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l, early := w.answeredEarly()
		l.ask("UPDATE", withBody(offerSDP))
		require.NotEmpty(t, value(l.next("500 UPDATE").Message, "Retry-After"))
		_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
		require.ErrorIs(t, err, dialog.ErrPending)
		l.pracked(early.Message)
		l.ask("UPDATE", withBody(held(offerSDP)))
		require.Contains(t, string(l.next("200 UPDATE").Message.Body()), "a=recvonly")
		updated := began(func() error {
			_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(answerSDP)))
			return err
		})
		l.reply(l.next("UPDATE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-updated)
		// A body of the application's is neither offer nor answer any more.
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		require.Equal(t, versioned(answerSDP, 3), string(l.next("200 INVITE").Message.Body()))
		l.acknowledge(1)
		synctest.Wait()
		l.hangUp(l.peer)
	})
}

// An offer in a PRACK (RFC 3262 5, RFC 6337 2.2 pattern 5).
func TestOfferInAPRACK(t *testing.T) {
	t.Run("nobody decides", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly()
			got := bodies(l.d)
			synctest.Wait()
			drained(got) // the INVITE's
			res := l.pracked(early.Message, withBody(held(offerSDP)))
			require.Contains(t, string(res.Body()), "a=recvonly")
			require.Contains(t, string(res.Body()), "o=bob 7 2 ")
			require.Equal(t, "application/sdp", value(res, "Content-Type"))
			synctest.Wait()
			require.Equal(t, []string{"application/sdp\n" + held(offerSDP)}, drained(got))
		})
	})
	t.Run("the application answers, and the 200 to the INVITE waits", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly()
			l.d.OnOffer(func(ctx context.Context, offer dialog.Body) (dialog.Body, error) {
				time.Sleep(time.Second)
				return dialog.NewBody("application/sdp", []byte(held(answerSDP))), nil
			})
			accepted := began(func() error { return l.d.Accept(context.Background()) })
			l.prack(early.Message, withBody(offerSDP))
			l.ask("UPDATE", withBody(offerSDP))
			l.next("500 UPDATE")
			require.Empty(t, w.sent(stackIP, "200 INVITE"))
			require.Equal(t, versioned(held(answerSDP), 2), string(l.next("200 PRACK").Message.Body()))
			l.next("200 INVITE")
			require.NoError(t, <-accepted)
			require.Equal(t, "10.0.0.1 200 PRACK 10.0.0.1 200 INVITE", strings.Join(w.flow()[len(w.flow())-2:], " "))
			l.acknowledge(1)
			synctest.Wait()
			l.hangUp(l.peer)
		})
	})
	for name, decide := range map[string]dialog.OfferHandler{
		"refused": func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") },
		"late":    func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil },
		"panics":  func(context.Context, dialog.Body) (dialog.Body, error) { panic("offer") },
	} {
		t.Run(name+", and our session is offered anew", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly("Allow: INVITE, UPDATE, PRACK")
				l.d.OnOffer(decide)
				began := time.Now()
				refused := string(l.pracked(early.Message, withBody(offerSDP)).Body())
				require.LessOrEqual(t, time.Since(began), 2*time.Second)
				require.Contains(t, refused, "m=audio 0 RTP/AVP 0 8")
				require.Contains(t, refused, "o=bob 7 2 ")
				again := l.next("UPDATE")
				require.Contains(t, string(again.Message.Body()), "m=audio 5000")
				require.Contains(t, string(again.Message.Body()), "o=bob 7 3 ")
				l.reply(again, dialogtest.Response{Code: 200, Body: offerSDP})
				synctest.Wait()
				require.Equal(t, dialog.DialogStateRinging, l.d.State())
				require.NoError(t, l.d.Reject(context.Background(), 486, ""))
			})
		})
		t.Run(name+", and the call ends", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l, early := w.answeredEarly("Allow: INVITE, PRACK")
				l.d.OnOffer(decide)
				require.Contains(t, string(l.pracked(early.Message, withBody(offerSDP)).Body()), "m=audio 0")
				l.next("488 INVITE")
				synctest.Wait()
				require.Equal(t, "PRACK", l.d.Cause().Method)
			})
		})
	}
	t.Run("refused, and the next offer too", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly("Allow: UPDATE")
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
			l.pracked(early.Message, withBody(offerSDP))
			l.reply(l.next("UPDATE"), dialogtest.Response{Code: 488})
			l.next("488 INVITE")
		})
	})
	t.Run("that does not parse", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly()
			require.Empty(t, l.pracked(early.Message, withBody("v=nonsense\r\n")).Body())
			require.NoError(t, l.d.Accept(context.Background()))
			l.next("200 INVITE")
			l.acknowledge(1)
			synctest.Wait()
			l.hangUp(l.peer)
		})
	})
	t.Run("while the INVITE's is unanswered", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.rings(b, p, withHeaders(demands))
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { t.Error("not to be asked"); return nil, nil })
			require.Empty(t, l.pracked(w.one(stackIP, "180 INVITE").msg, withBody(offerSDP)).Body())
			require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			p.next("200 INVITE")
			l.acknowledge(1)
			synctest.Wait()
			l.hangUp(p)
		})
	})
	t.Run("of another kind is no offer", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly()
			got := bodies(l.d)
			l.pracked(early.Message, withHeaders("Content-Type: text/plain"), withBody("hello"))
			synctest.Wait()
			require.Contains(t, drained(got), "text/plain\nhello")
		})
	})
	t.Run("when the call ends", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			l, early := w.answeredEarly("Allow: UPDATE")
			l.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, ctx.Err() })
			l.prack(early.Message, withBody(offerSDP))
			synctest.Wait()
			require.NoError(t, l.d.Close())
			require.True(t, strings.Contains(string(l.next("200 PRACK").Message.Body()), "m=audio 0"))
			l.quiet("UPDATE", 10*time.Second)
		})
	})
}

// RFC 3311 5.1: before the answer an UPDATE of the callee's has no offer, unless
// its own has been answered in a PRACK.
func TestUpdateOfTheCalleeHasToWaitForASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withoutBody, withHeaders(knows))
		update := func() error {
			_, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			return err
		}
		require.ErrorIs(t, update(), dialog.ErrPending, "there is no session")
		l.progress(183, withSDP(offerSDP))
		l.pracked(p.next("183 INVITE").Message)
		require.ErrorIs(t, update(), dialog.ErrPending, "the PRACK brought no answer")
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		p.next("486 INVITE")
		l.settled(b)
	})
}

// RFC 3262 3: a body that is no session description answers nothing: the 200 does.
func TestReliableResponseWithAnotherBodyIsNoAnswer(t *testing.T) {
	for _, offers := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.rings(b, p, withHeaders(knows))
			l.progress(183, func(res *sip.Response) {
				res.AppendHeader(sip.NewHeader("Content-Type", "application/isup"))
				res.SetBody([]byte("ACM"))
			})
			l.pracked(p.next("183 INVITE").Message)
			if offers {
				l.ask("UPDATE", withBody(offerSDP))
				require.Equal(t, 500, p.final("UPDATE").StatusCode, "the INVITE's offer is open")
			}
			require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			p.next("200 INVITE")
			l.acknowledge(1)
			l.ask("UPDATE", withBody(held(offerSDP)))
			require.Contains(t, string(p.final("UPDATE").Body()), "a=recvonly", "there is a session to answer from")
			l.stands(p)
		})
	}
}
