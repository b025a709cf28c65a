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
	"sipdialog.example/dialog/internal/testkit"
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

		// The body of the 200 is not an offer any more.
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
		require.NotEmpty(t, testkit.Value(l.next("500 UPDATE").Message, "Retry-After"))
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
			require.Equal(t, "application/sdp", testkit.Value(res, "Content-Type"))
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

// RFC 3262 3: a body that is not a session description answers nothing: the 200 does.
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

// FS7, FA3, RFC 3261 13.2.1, RFC 6337 3.1.1, 3.1.2: once a reliable provisional response
// has brought the answer, or the offer, an SDP in a later response is neither. It goes
// to OnBody as it came, and does nothing else.
func TestSDPAfterAReliableAnswerIsNeitherOfferNorAnswer(t *testing.T) {
	late := strings.Replace(versioned(answerSDP, 9), "5000", "5998", 1)
	for _, offers := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			opts := dialog.InviteOpts{}
			if offers {
				opts = offer(offerSDP)
			}
			asked := 0
			opts.Setup = func(d *dialog.Dialog) {
				d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { asked++; return sdpBody(offerSDP), nil })
			}
			l := w.calls(w.stack(stackIP, withoutRetry), w.peer(peerIP), opts)
			heard := bodies(l.d)
			again := func(r dialogtest.Response, rseq int) string {
				r.Headers = reliably(rseq)
				l.answer(r)
				in := l.next("PRACK")
				l.reply(in, dialogtest.Response{Code: 200})
				synctest.Wait()
				return string(in.Message.Body())
			}
			first := again(dialogtest.Response{Code: 183, Body: answerSDP}, 1)
			require.Equal(t, map[bool]string{true: "", false: offerSDP}[offers], first)
			require.Empty(t, again(dialogtest.Response{Code: 183, Body: late}, 2))
			l.answer(dialogtest.Response{Code: 200, Body: late})
			require.Empty(t, l.next("ACK").Message.Body())
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			synctest.Wait()
			require.Equal(t, []string{"application/sdp\n" + answerSDP, "application/sdp\n" + late, "application/sdp\n" + late}, drained(heard))
			require.Equal(t, map[bool]int{true: 0, false: 1}[offers], asked)

			// So it is inside the call.
			r := l.renegotiates(context.Background(), map[bool]string{true: offerSDP}[offers])
			r.says(183, answerSDP, reliably(1)...)
			r.acknowledged("1 4 INVITE", 200)
			r.says(200, late)
			require.Empty(t, l.next("ACK").Message.Body())
			require.NoError(t, <-r.ended)
			require.Equal(t, answerSDP, string(r.body.Data()))
			require.Equal(t, map[bool]int{true: 0, false: 2}[offers], asked)
			l.d.OnOffer(nil)
			require.Equal(t, []string{"m=audio 4000 RTP/AVP 0 8"}, mLines(l.says(l.d.Hold, answerSDP)))
			l.stands(l.peer)
		})
	}
}

// progressing has a stack send a reliable 183 with a body, and return the call
// unanswered.
func (w *world) progressing(b *dialog.Stack, body string) <-chan *dialog.Dialog {
	calls := make(chan *dialog.Dialog, 1)
	b.OnIncomingDialog(func(d dialog.IDialog) {
		call := d.(*dialog.Dialog)
		if err := call.Provisional(context.Background(), 183, "", withSDP(body)); err != nil {
			w.t.Errorf("provisional: %v", err)
		}
		calls <- call
	})
	return calls
}

// Two stacks agree upon the session before the call is answered, whatever
// either insists on, and over a network that loses what it likes.
func TestStacksAgreeBeforeTheAnswer(t *testing.T) {
	sets := []dialog.Reliability{dialog.ReliableSupported, dialog.ReliableRequired}
	for _, caller := range sets {
		for _, callee := range sets {
			for _, lossy := range []bool{false, true} {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1", reliability(caller)), w.stack("10.0.0.2", reliability(callee))
					if lossy {
						w.net.SetPolicy(dialogtest.Lossy(uint64(caller)*2+uint64(callee), 0.2, 0.2, 400*time.Millisecond))
					}
					calls := w.progressing(b, answerSDP)
					d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
					require.NoError(t, err)
					got := bodies(d)
					call := <-calls
					require.NoError(t, call.Accept(context.Background()))
					require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
					synctest.Wait()
					require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))
					w.net.SetPolicy(nil)
					require.NoError(t, call.Hold(context.Background()))
					require.NoError(t, d.Bye(context.Background(), ""))
				})
			}
		}
	}
}

// UPDATE both ways before the answer, once the PRACK has settled the session.
func TestStacksUpdateBeforeTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := w.progressing(b, answerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), <-calls
		synctest.Wait()
		for _, c := range []struct {
			d          *dialog.Dialog
			body, want string
		}{{caller, offerSDP, "a=recvonly"}, {callee, answerSDP, "a=inactive"}} {
			answer, err := c.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(held(c.body))))
			require.NoError(t, err)
			require.Contains(t, string(answer.Data()), c.want)
		}
		require.NoError(t, callee.Accept(context.Background()))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		require.NoError(t, callee.Bye(context.Background(), ""))
	})
}

// The INVITE has no offer: the callee's is in the 183, and the caller's
// application answers it in the PRACK.
func TestStacksAgreeUponTheCalleesOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := w.progressing(b, offerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
			d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				time.Sleep(time.Second)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
		}})
		require.NoError(t, err)
		callee := <-calls
		got := bodies(callee)
		require.NoError(t, callee.Accept(context.Background()))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, callee.Hold(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A caller that is off gets an unreliable 183, and one that a stack insists on
// and does not know it is turned away.
func TestStacksThatDoNotWantTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1", reliability(dialog.ReliableOff)), w.stack("10.0.0.2")
		calls := w.progressing(b, answerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, (<-calls).Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
		require.Empty(t, w.sent("10.0.0.1", "PRACK"))

		c := w.stack("10.0.0.3", reliability(dialog.ReliableRequired))
		c.OnIncomingDialog(func(dialog.IDialog) { t.Error("must not reach the application") })
		d, err = a.NewInvite(context.Background(), uri("bob", "10.0.0.3"), offer(offerSDP))
		require.NoError(t, err)
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 421, refused.StatusCode)
	})
}

// Reliable provisional responses to a re-INVITE of ours (RFC 3262 4, RFC 6141).

// RFC 6141 4.3: one that is not sent reliably changes nothing.
// The SDP of a 183 that is not reliable is a preview: the 200 repeats it, or has another, and
// needs none after a PRACK.
func TestAcceptRepeatsThePreviewOfAnUnreliable183(t *testing.T) {
	for name, test := range map[string]struct {
		caller   func(*dialogtest.Request)
		progress []dialog.ResponseOpt
		accept   []dialog.ResponseOpt
		want     string
	}{
		"no body":                 {withHeaders(), []dialog.ResponseOpt{withSDP(answerSDP)}, nil, answerSDP},
		"a body of its own":       {withHeaders(), []dialog.ResponseOpt{withSDP(answerSDP)}, []dialog.ResponseOpt{withSDP(versioned(answerSDP, 9))}, versioned(answerSDP, 9)},
		"no preview":              {withHeaders(), nil, nil, ""},
		"an INVITE without offer": {withoutBody, nil, nil, ""},
		"a reliable 183":          {withHeaders(knows), []dialog.ResponseOpt{withSDP(answerSDP)}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.rings(w.stack(stackIP), w.peer(peerIP), test.caller)
				l.progress(183, test.progress...)
				if res := l.next("183 INVITE").Message; len(res.GetHeaders("RSeq")) > 0 {
					l.pracked(res)
				}
				require.NoError(t, l.d.Accept(context.Background(), test.accept...))
				ok := l.next("200 INVITE").Response()
				require.Equal(t, test.want, string(ok.Body()))
				require.Equal(t, test.want != "", ok.ContentType() != nil)
				l.acknowledge(1)
				synctest.Wait()
				l.hangUp(l.peer)
			})
		})
	}
}

// A solicited offer without a decision is answered from our session, in the ACK or the PRACK.
func TestSolicitedOfferWithoutADecision(t *testing.T) {
	for _, reliable := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.outgoing(w.stack(stackIP), p)
			r := l.renegotiates(context.Background(), "")
			answer := ""
			if reliable {
				r.says(183, held(answerSDP), reliably(1)...)
				answer = r.acknowledged("1 2 INVITE", 200)
				r.says(200, "")
				require.Empty(t, p.next("ACK").Message.Body())
			} else {
				r.says(200, held(answerSDP))
				answer = string(p.next("ACK").Message.Body())
			}
			require.Contains(t, answer, "o=alice 1 2 ")
			require.Contains(t, answer, "a=recvonly")
			require.NoError(t, <-r.ended)
			require.Equal(t, held(answerSDP), string(r.body.Data()))
			l.ask("UPDATE", withBody(answerSDP))
			require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=sendrecv", "the hold was the peer's")
			l.hangUp(p)
		})
	}
}

// FT10: nothing is said in a call behind its BYE, a PRACK whose answer the application
// was deciding neither.
func TestNoPRACKLeavesBehindTheBye(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		asked, decided := make(chan struct{}), make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			close(asked)
			<-decided
			return ourSession(), nil
		})
		r := l.renegotiates(context.Background(), "")
		r.says(183, offerSDP, reliably(7)...)
		<-asked
		over := began(func() error { return l.d.Bye(context.Background(), "") })
		bye := p.next("BYE")
		close(decided)
		synctest.Wait()
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-over)
		require.Error(t, <-r.ended)
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "PRACK"))
		r.says(487, "")
	})
}
