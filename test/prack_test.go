package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Reliable provisional responses to our INVITE (RFC 3262 4).

// reliably are the headers of a response that is sent reliably.
func reliably(rseq int) []string { return []string{"Require: 100rel", fmt.Sprint("RSeq: ", rseq)} }

// RFC 3262 4, 7.2: each gets a PRACK in its own early dialog: target, route, CSeq
// and RAck.
func TestReliableResponsesOfTwoForksGetTheirPRACKs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 183, "", reliably(100)...)
		f.says("B", 183, "", reliably(7)...)
		for _, tag := range []string{"A", "B"} {
			at := f.at[tag]
			in := at.next("PRACK")
			req := in.Request()
			require.Equal(t, map[string]string{"A": "100 1 INVITE", "B": "7 1 INVITE"}[tag], testkit.Value(req, "RAck"))
			require.Equal(t, "2 PRACK", testkit.Value(req, "CSeq"))
			require.Equal(t, tag, testkit.ToTag(req))
			require.Equal(t, "sip:"+tag+"@"+at.Addr().String(), req.Recipient.String())
			require.Equal(t, "<sip:"+at.Addr().String()+";lr>", testkit.Value(req, "Route"))
			at.reply(in, dialogtest.Response{Code: 200})
		}
		f.says("B", 180, "", reliably(8)...)
		second := f.at["B"].next("PRACK")
		require.Equal(t, "8 1 INVITE", testkit.Value(second.Message, "RAck"))
		require.Equal(t, "3 PRACK", testkit.Value(second.Message, "CSeq"))
		f.at["B"].reply(second, dialogtest.Response{Code: 200})

		f.says("A", 200, answerSDP)
		f.at["A"].next("ACK")
		f.says("B", 200, answerSDP)
		bye := f.at["B"].next("BYE")
		require.Equal(t, "4 BYE", testkit.Value(bye.Message, "CSeq"), "the loser's numbers go on")
		f.at["B"].reply(bye, dialogtest.Response{Code: 200})
		result := began(func() error { return f.d.Bye(context.Background(), "") })
		bye = f.at["A"].next("BYE")
		require.Equal(t, "3 BYE", testkit.Value(bye.Message, "CSeq"))
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		f.empty()
	})
}

// RFC 3262 4: a repetition gets no second PRACK, what is behind a gap none at
// all, nor is it looked at; and what is not reliable none either.
func TestOnlyTheNextReliableResponseIsAcknowledged(t *testing.T) {
	for name, c := range map[string]struct {
		headers []string
		taken   bool
	}{
		"repeated":        {reliably(5), false},
		"gap":             {reliably(7), false},
		"older":           {reliably(4), false},
		"without RSeq":    {[]string{"Require: 100rel"}, true},
		"without Require": {[]string{"RSeq: 6"}, true},
		"two RSeq":        {[]string{"Require: 100rel", "RSeq: 6", "RSeq: 6"}, true},
		"bad RSeq":        {[]string{"Require: 100rel", "RSeq: six"}, true},
		"too large":       {[]string{"Require: 100rel", "RSeq: 4294967297"}, true},
		"zero":            {[]string{"Require: 100rel", "RSeq: 0"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := w.forks(offer(offerSDP))
				f.says("A", 180, "", reliably(5)...)
				f.at["A"].reply(f.at["A"].next("PRACK"), dialogtest.Response{Code: 200})
				f.says("A", 183, "", c.headers...)
				f.at["A"].quiet("PRACK", 10*time.Second)
				require.Equal(t, map[bool]int{true: 183, false: 180}[c.taken], f.d.Forks()[0].Status)
				f.says("A", 181, "", reliably(6)...)
				in := f.at["A"].next("PRACK")
				require.Equal(t, "6 1 INVITE", testkit.Value(in.Message, "RAck"))
				f.at["A"].reply(in, dialogtest.Response{Code: 200})
				f.refused("A")
			})
		})
	}
}

// ReliableOff: what we have not offered is not taken.
func TestReliableResponsesThatWeDoNotTake(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), reliability(dialog.ReliableOff))
		f.says("A", 183, answerSDP, reliably(1)...)
		f.says("A", 183, answerSDP, reliably(9)...)
		f.at["A"].quiet("PRACK", 10*time.Second)
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		f.refused("A")
	})
}

// RFC 3262 4: never to a 100, not without a tag, not once the call is answered.
func TestResponsesNeverAcknowledgedByPRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		require.NoError(t, p.Send(l.stack, p.Response(l.invite.Request(), dialogtest.Response{Code: 183, Headers: reliably(1)})))
		l.answer(dialogtest.Response{Code: 100, Headers: reliably(1)})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.answer(dialogtest.Response{Code: 183, Headers: reliably(1)}) // late
		synctest.Wait()
		l.hangUp(p)
		require.Empty(t, w.sent(stackIP, "PRACK"))
	})
}

// RFC 3262 3: one after the other: the second leaves when the first is answered.
func TestPRACKsOfOneForkWaitForEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "", reliably(1)...)
		first := f.at["A"].next("PRACK")
		f.says("A", 183, "", reliably(2)...)
		require.Len(t, w.sent(stackIP, "PRACK"), 1)
		f.at["A"].reply(first, dialogtest.Response{Code: 200})
		second := f.at["A"].next("PRACK")
		require.Equal(t, "2 1 INVITE", testkit.Value(second.Message, "RAck"))
		// Its 200 comes after the final answer to the INVITE.
		f.says("A", 200, answerSDP)
		f.at["A"].reply(second, dialogtest.Response{Code: 200})
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, f.d.State())
		f.over("A")
	})
}

// RFC 3261 22.2: a challenged PRACK goes out once more, with the next CSeq of its
// own early dialog.
func TestAChallengedPRACKIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		})
		f.says("A", 180, "")
		f.says("B", 180, "", reliably(9)...)
		at := f.at["B"]
		at.reply(at.next("PRACK"), dialogtest.Response{Code: 407, Headers: []string{`Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`}})
		again := at.next("PRACK")
		require.Equal(t, "3 PRACK", testkit.Value(again.Message, "CSeq"))
		require.Equal(t, "9 1 INVITE", testkit.Value(again.Message, "RAck"))
		require.NotEmpty(t, testkit.Value(again.Message, "Proxy-Authorization"))
		at.reply(again, dialogtest.Response{Code: 200})
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, uint32(1), f.d.Info().LocalSeq, "those of A have not moved")
		f.over("A")
	})
}

// RFC 5057: a PRACK that the peer does not know, or does not answer, ends its
// early dialog, and the call when there is no other. Other failures end nothing.
func TestPRACKThatFails(t *testing.T) {
	for _, code := range []int{481, 404, 0, 488, 500} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprint(code, alone), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					f := w.forks(offer(offerSDP))
					f.says("A", 180, "", reliably(1)...)
					if !alone {
						f.says("B", 180, "")
					}
					in := f.at["A"].next("PRACK")
					if code != 0 {
						f.at["A"].reply(in, dialogtest.Response{Code: code})
					} else {
						time.Sleep(40 * time.Second)
					}
					synctest.Wait()
					ends := code != 488 && code != 500
					if ends && alone {
						f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200})
						f.says("A", 487, "")
						require.Error(t, f.d.WaitAnswer(context.Background()))
						require.Equal(t, "PRACK", f.d.Cause().Method)
						f.empty()
						return
					}
					require.Equal(t, ends, f.d.Forks()[0].Ended)
					tag := map[bool]string{true: "A", false: "B"}[alone]
					f.says(tag, 200, answerSDP)
					require.NoError(t, f.d.WaitAnswer(context.Background()))
					f.over(tag)
				})
			})
		}
	}
}

// A PRACK that could not be written leaves when the response comes again.
func TestPRACKThatWasNotWrittenIsSentWithTheNextRepetition(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		ring := dialogtest.Response{Code: 183, Headers: append(reliably(1), "Contact: <sip:bob@10.0.0.33:5060;transport=tcp>")}
		l.answer(ring) // no listener there
		time.Sleep(5 * time.Second)
		require.Empty(t, w.sent(stackIP, "PRACK"))
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		there := w.element("10.0.0.33", "tcp", nil, nil)
		l.answer(ring)
		got := there.next("PRACK")
		there.reply(got, 200, "")
		synctest.Wait()
		l.answer(ring)
		l.answer(dialogtest.Response{Code: 486})
		require.Error(t, l.d.WaitAnswer(context.Background()))
	})
}

// RFC 3262 5: the answer in a reliable response agrees on the session: UPDATE may
// offer another from then on (RFC 3311 5.1), and the 2xx brings none.
func TestAReliableAnswerAgreesOnTheSession(t *testing.T) {
	const other = "v=0\r\no=bob 7 2 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5002 RTP/AVP 0\r\n"
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), withoutRetry)
		heard := bodies(f.d)
		f.says("A", 183, answerSDP)
		update := func() error {
			_, err := f.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(held(offerSDP))))
			return err
		}
		require.ErrorIs(t, update(), dialog.ErrPending, "that was a preview")
		require.Equal(t, 491, f.asks("A", "UPDATE", 1, withBody(offerSDP)).StatusCode, "our offer is unanswered")
		f.says("A", 183, answerSDP, reliably(1)...)
		prack := f.at["A"].next("PRACK")
		require.Empty(t, prack.Message.Body())
		f.at["A"].reply(prack, dialogtest.Response{Code: 200})
		done := began(update)
		f.at["A"].reply(f.at["A"].next("UPDATE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-done)
		require.Equal(t, 200, f.asks("A", "UPDATE", 2, withBody(answerSDP)).StatusCode)
		synctest.Wait()
		drained(heard)
		f.says("A", 200, other)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + other}, drained(heard))
		held := began(func() error { return f.d.Resume(context.Background()) })
		in := f.at["A"].next("INVITE")
		require.Contains(t, string(in.Message.Body()), "m=audio 4000")
		require.Contains(t, string(in.Message.Body()), "a=sendrecv", "what the UPDATE said stands, not the INVITE's")
		f.at["A"].reply(in, dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-held)
		synctest.Wait()
		f.over("A")
	})
}

// RFC 3262 5: an offer in a reliable response is answered in the PRACK.
func TestAnOfferInAReliableResponseIsAnsweredInThePRACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(dialog.InviteOpts{})
		asked := make(chan string, 2)
		f.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			time.Sleep(3 * time.Second)
			asked <- string(offer.Data())
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		f.says("A", 183, offerSDP, reliably(1)...)
		_, err := f.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
		require.ErrorIs(t, err, dialog.ErrPending)
		require.Equal(t, 500, f.asks("A", "UPDATE", 1, withBody(offerSDP)).StatusCode, "its offer is unanswered")
		f.says("A", 183, offerSDP, reliably(1)...)
		prack := f.at["A"].next("PRACK")
		require.Equal(t, answerSDP, string(prack.Message.Body()))
		require.Equal(t, offerSDP, <-asked)
		f.at["A"].reply(prack, dialogtest.Response{Code: 200})
		done := began(func() error {
			_, err := f.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			return err
		})
		f.at["A"].reply(f.at["A"].next("UPDATE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-done)
		f.says("A", 200, offerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Empty(t, f.at["A"].next("ACK").Message.Body(), "the 2xx offers nothing")
		require.Empty(t, drained(asked))
		f.over("A")
	})
}

// RFC 3261 13.2.2.4, as for an ACK: refused with ports 0, and the call ends.
func TestAnOfferInAReliableResponseIsRefusedInThePRACK(t *testing.T) {
	for name, handler := range map[string]dialog.OfferHandler{
		"refused": func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") },
		"panic":   func(context.Context, dialog.Body) (dialog.Body, error) { panic("offer") },
		"never":   func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := w.forks(dialog.InviteOpts{})
				f.d.OnOffer(handler)
				f.says("A", 183, offerSDP, reliably(1)...)
				prack := f.at["A"].next("PRACK")
				require.Contains(t, string(prack.Message.Body()), "m=audio 0 ")
				f.at["A"].reply(prack, dialogtest.Response{Code: 200})
				f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200})
				f.says("A", 487, "")
				require.Error(t, f.d.WaitAnswer(context.Background()))
				f.empty()
			})
		})
	}
}

// Without OnOffer the offer stays unanswered, as one in a 2xx does.
func TestAnOfferInAReliableResponseWithoutAHandler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(dialog.InviteOpts{})
		f.says("A", 183, offerSDP, reliably(1)...)
		prack := f.at["A"].next("PRACK")
		require.Empty(t, prack.Message.Body())
		f.at["A"].reply(prack, dialogtest.Response{Code: 200})
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(bodies(f.d)))
		f.says("A", 200, "")
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("A")
	})
}

// However the call ends while a PRACK is under way, nothing is left of it.
func TestCallsThatEndWhileAPRACKIsUnderWay(t *testing.T) {
	answered := func(f *forked, tag string) {
		f.says(tag, 200, "")
		require.NoError(f.t, f.d.WaitAnswer(context.Background()))
		f.over(tag)
	}
	cancelled := func(f *forked) {
		f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200})
		f.says("A", 487, "")
	}
	for _, decides := range []bool{false, true} {
		for name, end := range map[string]func(f *forked){
			"the fork answers":    func(f *forked) { answered(f, "A") },
			"another one answers": func(f *forked) { answered(f, "B") },
			"refused":             func(f *forked) { f.says("A", 486, "") },
			"closed":              func(f *forked) { _ = f.d.Close(); cancelled(f) },
			"closed, answered": func(f *forked) {
				_ = f.d.Close()
				f.next("CANCEL")
				f.says("A", 200, answerSDP)
				f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 200})
			},
			"hung up": func(f *forked) { go func() { _ = f.d.Hangup(context.Background()) }(); cancelled(f) },
			"shut down": func(f *forked) {
				go func() { _ = f.w.stacks[0].Shutdown(context.Background()) }()
				cancelled(f)
			},
			"BYE": func(f *forked) { f.asks("A", "BYE", 3); f.says("B", 486, "") },
			"199": func(f *forked) { f.says("A", 199, ""); f.says("B", 486, "") },
		} {
			t.Run(fmt.Sprint(name, decides), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					opts := offer(offerSDP)
					if decides {
						opts = dialog.InviteOpts{}
					}
					f := w.forks(opts)
					f.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					})
					f.says("A", 183, offerSDP, reliably(1)...)
					f.says("B", 180, "")
					if !decides {
						f.at["A"].next("PRACK")
					}
					end(f)
					f.empty()
				})
			})
		}
	}
}

// RFC 3262 4: no PRACK waits behind a request of the dialog's that hangs in a
// dial.
func TestPRACKDoesNotWaitBehindADialThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		// No host has that address: the connection is never made.
		f.answer(dialogtest.Response{Code: 180, ToTag: "A", Headers: []string{"Contact: <sip:a@10.0.0.44:5060;transport=tcp>"}})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stuck := began(func() error { _, err := f.d.Update(ctx, nil); return err })
		synctest.Wait()
		start := time.Now()
		f.says("B", 183, "", reliably(1)...)
		in := f.at["B"].next("PRACK")
		require.LessOrEqual(t, time.Since(start), time.Second)
		require.Empty(t, stuck)
		f.at["B"].reply(in, dialogtest.Response{Code: 200})
		f.says("B", 486, "")
		require.Error(t, f.d.WaitAnswer(context.Background()))
		require.Error(t, <-stuck)
	})
}

// RFC 6141 4.3: a reliable response moves the target, another does not.
func TestTheTargetOfAnEarlyDialogMovesByReliableResponses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		ring := func(user string, headers ...string) {
			l.answer(dialogtest.Response{Code: 180, Headers: append(headers, "Contact: <sip:"+user+"@"+peerIP+":5060>")})
			synctest.Wait()
		}
		ring("first")
		ring("second")
		require.Equal(t, "first", l.d.Info().RemoteTarget.User)
		ring("third", reliably(1)...)
		in := p.next("PRACK")
		require.Equal(t, "third", in.Request().Recipient.User)
		p.reply(in, dialogtest.Response{Code: 200})
		require.Equal(t, "third", l.d.Info().RemoteTarget.User)
		l.answer(dialogtest.Response{Code: 486})
		require.Error(t, l.d.WaitAnswer(context.Background()))
	})
}

// A request that the application sends when it learns of a reliable response follows the
// PRACK.
func TestNothingOvertakesAPRACK(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(offer(offerSDP))
			f.d.OnStateChange(func(dialog.DialogState) {
				go func() { _, _ = f.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP))) }()
			})
			f.says("A", 183, answerSDP, "Require: 100rel", "RSeq: 7", "Allow: UPDATE")
			prack := f.at["A"].next("PRACK")
			require.EqualValues(t, 2, prack.Request().CSeq().SeqNo)
			f.at["A"].reply(prack, dialogtest.Response{Code: 200})
			f.at["A"].reply(f.at["A"].next("UPDATE"), dialogtest.Response{Code: 200, Body: answerSDP})
			f.says("A", 486, "")
			f.empty()
		})
	}
}

// PRACKs and ACKs that did not get through, and leave once more when the response comes
// again.

// RFC 3261 12.2.2: what was sent after the PRACK has come before it, so it gets 500.
func TestPRACKThatALaterRequestHasOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls, lost := w.progressing(b, answerSDP), false
		w.net.SetPolicy(func(p dialogtest.Packet) []time.Duration {
			if !lost && string(p.Data[:5]) == "PRACK" {
				lost = true
				return nil
			}
			return []time.Duration{time.Millisecond}
		})
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := placed.(*dialog.Dialog)
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("hello"))))
		require.NoError(t, (<-calls).Accept(context.Background()))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NotEmpty(t, w.sent("10.0.0.2", "500 PRACK"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// RFC 6337 2.3: a peer that does not take the offer in a PRACK gets one without;
// an answer goes out again.
func TestPRACKThatIsRefusedIsSentAgain(t *testing.T) {
	for _, code := range []int{488, 500} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.calls(a, p, proposing(make(chan dialog.ForkInfo, 9)))
			ring := dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)}
			l.answer(ring)
			first := p.next("PRACK")
			require.NotEmpty(t, first.Message.Body())
			p.reply(first, dialogtest.Response{Code: code})
			p.quiet("PRACK", time.Second)
			l.answer(ring)
			second := p.next("PRACK")
			require.Empty(t, second.Message.Body())
			require.Equal(t, "1 1 INVITE", testkit.Value(second.Message, "RAck"))
			require.Equal(t, "3 PRACK", testkit.Value(second.Message, "CSeq"))
			p.reply(second, dialogtest.Response{Code: 200})
			l.answer(ring)
			p.quiet("PRACK", time.Second)
			l.answer(dialogtest.Response{Code: 200})
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			l.hangUp(p)
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return ourSession(), nil })
		ring := dialogtest.Response{Code: 183, Body: offerSDP, Headers: reliably(1)}
		for range 2 {
			l.answer(ring)
			in := p.next("PRACK")
			require.Equal(t, answerSDP, string(in.Message.Body()))
			p.reply(in, dialogtest.Response{Code: 500})
		}
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.hangUp(p)
	})
}

// RFC 3262 3: numbers are those of one transaction: a re-INVITE that goes out again
// with credentials has others, and its offer is open again.
func TestReliableResponsesToAReINVITEThatIsChallenged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		}), p)
		r := l.renegotiates(context.Background(), held(offerSDP))
		r.says(183, held(answerSDP), reliably(70)...)
		r.acknowledged("70 2 INVITE", 200)
		r.says(407, "", `Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`)
		r.in = p.next("INVITE")
		l.meets("UPDATE", 491)
		r.says(183, answerSDP, reliably(5)...)
		r.acknowledged("5 4 INVITE", 200)
		r.says(200, "")
		require.Empty(t, p.next("ACK").Message.Body())
		require.NoError(t, <-r.ended)
		require.Equal(t, answerSDP, string(r.body.Data()))
		l.stands(p)
	})
}

// A peer that answers no PRACK does not have us keep all that it sends.
func TestPRACKsThatWaitAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for n := range 40 {
			l.answer(dialogtest.Response{Code: 180 + n%4, Headers: reliably(1 + n)})
		}
		for n := 1; n <= 16; n++ {
			in := p.next("PRACK")
			require.Equal(t, fmt.Sprintf("%d 1 INVITE", n), testkit.Value(in.Message, "RAck"))
			p.reply(in, dialogtest.Response{Code: 200})
		}
		p.quiet("PRACK", time.Second)
		l.answer(dialogtest.Response{Code: 180, Headers: reliably(17)})
		p.reply(p.next("PRACK"), dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.hangUp(p)
	})
}

// Offers of ours in a PRACK (RFC 3262 5).
