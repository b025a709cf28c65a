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

// One offer at a time (RFC 3264 4), whichever message it is in, and what is left
// when it comes to nothing.

// open is an offer that is open; settle answers it.
type open func(l *peerCall) (settle func())

// ours has the application send a request that the peer answers later.
func ours(method string, ask func(l *peerCall) error) open {
	return func(l *peerCall) func() {
		result := began(func() error { return ask(l) })
		in := l.next(method)
		return func() {
			l.reply(in, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
			require.NoError(l.t, <-result)
		}
	}
}

// theirs has the peer send an offer that the application decides later.
func theirs(method string, change ...func(*dialogtest.Request)) open {
	return func(l *peerCall) func() {
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		l.ask(method, append([]func(*dialogtest.Request){withBody(offerSDP)}, change...)...)
		seq := l.seq
		synctest.Wait()
		return func() {
			close(decide)
			require.Equal(l.t, 200, l.peer.final(method).StatusCode)
			if method == "INVITE" {
				l.acknowledge(seq)
			}
		}
	}
}

// oursIn2xx has the peer ask for an offer, which its ACK answers later.
func oursIn2xx(l *peerCall) func() {
	l.ask("INVITE")
	seq := l.seq
	require.Equal(l.t, 200, l.peer.final("INVITE").StatusCode)
	return func() { l.acknowledge(seq, withBody(offerSDP)) }
}

func ourSession() dialog.Body { return dialog.NewBody("application/sdp", []byte(answerSDP)) }

// Which other requests an open offer keeps waiting: the peer's get a 491 or 500,
// the application's ErrPending, or wait themselves.
func TestOneOfferAtATime(t *testing.T) {
	type codes map[string]int
	type waits map[string]bool
	for name, c := range map[string]struct {
		open  open
		codes codes
		waits waits
	}{
		"our re-INVITE": {
			ours("INVITE", func(l *peerCall) error { return l.asks(context.Background(), "INVITE") }),
			codes{"INVITE": 491, "UPDATE": 491, "UPDATE without an offer": 200}, waits{"INVITE": true, "UPDATE": true},
		},
		"our UPDATE": {
			ours("UPDATE", func(l *peerCall) error { return l.asks(context.Background(), "UPDATE") }),
			codes{"INVITE": 491, "UPDATE": 491, "UPDATE without an offer": 200},
			waits{"INVITE": true, "UPDATE": true, "UPDATE without an offer": true},
		},
		"our UPDATE without an offer": {
			ours("UPDATE", func(l *peerCall) error { return l.asks(context.Background(), "UPDATE without an offer") }),
			codes{"INVITE": 200, "UPDATE": 200, "UPDATE without an offer": 200},
			waits{"UPDATE": true, "UPDATE without an offer": true},
		},
		"our offer in a 2xx": {
			oursIn2xx, codes{"INVITE": 491, "UPDATE": 491, "UPDATE without an offer": 200}, waits{"INVITE": true, "UPDATE": true},
		},
		"their re-INVITE": {
			theirs("INVITE"), codes{"INVITE": 500, "UPDATE": 500, "UPDATE without an offer": 200}, waits{"INVITE": true, "UPDATE": true},
		},
		// RFC 6337 4.1: the offer is expected in the 2xx.
		"our re-INVITE without an offer": {
			ours("INVITE", func(l *peerCall) error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) }),
			codes{"INVITE": 491, "UPDATE": 200, "UPDATE without an offer": 200}, waits{"INVITE": true, "UPDATE": true},
		},
		"their re-INVITE without an offer": {
			theirs("INVITE", withoutBody), codes{"INVITE": 500, "UPDATE": 500, "UPDATE without an offer": 200}, waits{"INVITE": true, "UPDATE": true},
		},
		"their UPDATE": {
			theirs("UPDATE"), codes{"INVITE": 500, "UPDATE": 500, "UPDATE without an offer": 500}, waits{"INVITE": true, "UPDATE": true},
		},
	} {
		for other, code := range c.codes {
			t.Run(name+" and their "+other, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.peer(peerIP)
					l := w.incoming(w.stack(stackIP, withoutRetry), p)
					settle := c.open(l)
					l.meets(other, code)
					settle()
					l.stands(p)
				})
			})
		}
		for other := range c.waits {
			t.Run(name+" and our "+other, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.peer(peerIP)
					l := w.incoming(w.stack(stackIP, withoutRetry), p)
					settle := c.open(l)
					ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
					defer cancel()
					err := l.asks(ctx, other)
					require.True(t, errors.Is(err, dialog.ErrPending) || errors.Is(err, context.DeadlineExceeded), "%v", err)
					settle()
					l.stands(p)
				})
			})
		}
	}
}

// meets has the peer send a request, and checks its answer.
func (l *peerCall) meets(other string, code int) {
	l.t.Helper()
	method, body := other, offerSDP
	if other == "UPDATE without an offer" {
		method, body = "UPDATE", ""
	}
	l.ask(method, withBody(body))
	seq := l.seq
	for {
		res := l.peer.final(method)
		if res.CSeq().SeqNo != seq {
			continue
		}
		require.Equal(l.t, code, res.StatusCode)
		if res.CSeq().MethodName == sip.INVITE && code == 200 {
			l.acknowledge(seq)
		}
		return
	}
}

// asks has the application send such a request.
func (l *peerCall) asks(ctx context.Context, other string) error {
	switch other {
	case "INVITE":
		return l.d.ReInvite(ctx, dialog.InviteOpts{Body: ourSession()})
	case "UPDATE":
		_, err := l.d.Update(ctx, ourSession())
		return err
	}
	_, err := l.d.Update(ctx, nil)
	return err
}

// RFC 3261 14.1, RFC 6337 3.1: whatever becomes of an offer, the session is the
// last one that both agreed to. Hold and Resume say so.
func TestSessionIsTheLastOneAgreedUpon(t *testing.T) {
	failures := map[string]func(p *peer, in dialogtest.Received){
		"refused": func(p *peer, in dialogtest.Received) { p.reply(in, dialogtest.Response{Code: 488}) },
		"refused after a 183": func(p *peer, in dialogtest.Received) {
			p.reply(in, dialogtest.Response{Code: 183, Body: offerSDP})
			p.reply(in, dialogtest.Response{Code: 500})
		},
		"pending":        func(p *peer, in dialogtest.Received) { p.reply(in, dialogtest.Response{Code: 491}) },
		"never answered": func(p *peer, in dialogtest.Received) { p.reply(in, dialogtest.Response{Code: 100}) },
	}
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, withoutRetry, func(c *dialog.StackConfig) { c.RingingLimit = 10 * time.Second }), w.peer(peerIP)
				l := w.incoming(b, p)
				for _, change := range []func(context.Context) error{
					l.d.Hold,
					func(ctx context.Context) error { return l.d.ReInvite(ctx, offer(held(answerSDP))) },
				} {
					result := began(func() error { return change(context.Background()) })
					in := p.next("INVITE")
					require.Contains(t, string(in.Message.Body()), "a=sendonly")
					fail(p, in)
					require.Error(t, <-result)
					if name == "never answered" {
						p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
						p.reply(in, dialogtest.Response{Code: 487})
						p.next("ACK")
					}
					require.Equal(t, dialog.DialogStateEstablished, l.d.State())
					l.ask("INVITE")
					res := p.final("INVITE")
					require.Contains(t, string(res.Body()), "a=sendrecv", "what was not agreed to is not offered")
					l.acknowledge(l.seq, withBody(offerSDP))
					synctest.Wait()
				}
				l.stands(p)
			})
		})
	}
}

// RFC 6141 3.3: nor does an offer of the peer's that is refused change it, whatever
// the application has put beside its refusal.
func TestRefusedOfferOfThePeerChangesNothing(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.incoming(b, p)
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				return dialog.NewBody("application/sdp", []byte(held(answerSDP))), errors.New("no")
			})
			l.ask(method, withBody(held(offerSDP)))
			require.Equal(t, 488, p.final(method).StatusCode)
			l.d.OnOffer(nil)
			l.ask("INVITE")
			offered := string(p.final("INVITE").Body())
			require.Contains(t, offered, "o=bob 7 2 ")
			require.Contains(t, offered, "a=sendrecv")
			l.acknowledge(l.seq, withBody(offerSDP))
			l.stands(p)
		})
	}
}

// RFC 3261 14.1: ReInvite that is given up is cancelled, and changes nothing.
func TestHoldThatIsGivenUpChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		ctx, cancel := context.WithCancel(context.Background())
		result := began(func() error { return l.d.Hold(ctx) })
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 180})
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-result, context.Canceled)
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		p.reply(in, dialogtest.Response{Code: 487})
		p.next("ACK")
		synctest.Wait()
		resumed := began(func() error { return l.d.Resume(context.Background()) })
		in = p.next("INVITE")
		require.Contains(t, string(in.Message.Body()), "a=sendrecv")
		p.reply(in, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-resumed)
		l.stands(p)
	})
}

// A refused Resume leaves what is held on hold.
func TestRefusedResumeStaysOnHold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		for _, step := range []struct {
			change func(context.Context) error
			code   int
			want   string
		}{{l.d.Hold, 200, "a=sendonly"}, {l.d.Resume, 488, "a=sendrecv"}, {l.d.Hold, 200, "a=sendonly"}, {l.d.Resume, 200, "a=sendrecv"}} {
			result := began(func() error { return step.change(context.Background()) })
			in := p.next("INVITE")
			require.Contains(t, string(in.Message.Body()), step.want)
			p.reply(in, dialogtest.Response{Code: step.code, Headers: []string{contactOfPeer}, Body: map[bool]string{true: offerSDP}[step.code == 200]})
			require.Equal(t, step.code == 200, <-result == nil)
			if step.code != 200 {
				l.ask("UPDATE", withBody(offerSDP))
				require.Contains(t, string(p.final("UPDATE").Body()), "a=sendonly", "still held")
			}
		}
		l.stands(p)
	})
}

// An offer of ours that the ACK does not answer is taken back.
func TestOfferThatTheACKDoesNotAnswerIsTakenBack(t *testing.T) {
	for _, answered := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.incoming(b, p)
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				return dialog.NewBody("application/sdp", []byte(held(answerSDP))), nil
			})
			l.ask("INVITE")
			require.Contains(t, string(p.final("INVITE").Body()), "a=sendonly")
			if answered {
				l.acknowledge(l.seq, withBody(offerSDP))
			} else {
				l.acknowledge(l.seq)
			}
			l.d.OnOffer(nil)
			l.ask("INVITE")
			require.Equal(t, answered, strings.Contains(string(p.final("INVITE").Body()), "a=sendonly"))
			l.acknowledge(l.seq, withBody(offerSDP))
			l.stands(p)
		})
	}
}

// A decision that comes when the re-INVITE has its answer, and the session has
// changed, is one too many.
func TestDecisionOnAReINVITEThatIsAnswered(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p)
			decide := make(chan struct{})
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				<-decide
				if refuses {
					return nil, errors.New("no")
				}
				return ourSession(), nil
			})
			invite := l.ask("INVITE")
			synctest.Wait()
			r := l.made("CANCEL")
			l.seq--
			r.CSeq, r.Branch = l.seq, branchIn(invite)
			require.NoError(t, p.Send(l.stack, l.Request(r)))
			require.Equal(t, 487, p.final("INVITE").StatusCode)
			l.d.OnOffer(nil)
			l.ask("UPDATE", withBody(held(offerSDP)))
			require.Equal(t, 200, p.final("UPDATE").StatusCode)
			close(decide)
			synctest.Wait()
			w.one(stackIP, "200 INVITE")
			l.acknowledge(2, func(r *dialogtest.Request) { r.Branch = branchIn(invite) })
			l.stands(p)
		})
	}
}

// Offers that are still open when the INVITE that they came in has its final answer:
// none stays so.

// The peer does not wait for the PRACK, as it should (RFC 3262 3).
func TestOfferInA1xxIsDecidedAfterThe2xx(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(dialog.InviteOpts{})
		decide := make(chan struct{})
		f.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		f.says("A", 183, offerSDP, reliably(1)...)
		f.says("A", 200, "")
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.ErrorIs(t, f.d.Hold(context.Background()), dialog.ErrPending)
		close(decide)
		in := f.at["A"].next("PRACK")
		require.Equal(t, answerSDP, string(in.Message.Body()))
		f.at["A"].reply(in, dialogtest.Response{Code: 200})
		synctest.Wait()
		held := began(func() error { return f.d.Hold(context.Background()) })
		f.at["A"].reply(f.at["A"].next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-held)
		f.over("A")
	})
}

// A PRACK that gets no answer ends no call that stands.
func TestPRACKWithAnOfferThatIsNeverAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, proposing(make(chan dialog.ForkInfo, 9)))
		l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		p.next("PRACK")
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		time.Sleep(40 * time.Second)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		held := began(func() error { return l.d.Hold(context.Background()) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{contactOfPeer}})
		require.NoError(t, <-held)
		l.hangUp(p)
	})
}

// Another early dialog becomes the call.
func TestUpdateThatIsOpenInAForkThatLoses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), withoutRetry)
		f.says("A", 183, answerSDP, reliably(1)...)
		f.at["A"].reply(f.at["A"].next("PRACK"), dialogtest.Response{Code: 200})
		f.says("B", 183, answerSDP, reliably(1)...)
		f.at["B"].reply(f.at["B"].next("PRACK"), dialogtest.Response{Code: 200})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		updated := began(func() error { _, err := f.d.Update(ctx, ourSession()); return err })
		f.at["A"].next("UPDATE")
		f.says("B", 200, "")
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Error(t, <-updated)
		held := began(func() error { return f.d.Hold(context.Background()) })
		f.at["B"].reply(f.at["B"].next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-held)
		f.over("B")
	})
}

// An answer in its 200 after the refusal is a new agreement: no session has to be restored
// (RFC 6141 3.4).
func TestPRACKWithAnOfferOutlivesItsReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		result := began(func() error { return l.d.ReInvite(context.Background(), proposing(make(chan dialog.ForkInfo, 9))) })
		in := p.next("INVITE")
		p.reply(in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
		prack := p.next("PRACK")
		p.reply(in, dialogtest.Response{Code: 403})
		require.Error(t, <-result)
		synctest.Wait()
		p.reply(prack, dialogtest.Response{Code: 200, Body: answerSDP})
		synctest.Wait()
		p.quiet("INVITE", time.Minute)
		held := began(func() error { return l.d.Hold(context.Background()) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: offerSDP, Headers: []string{contactOfPeer}})
		require.NoError(t, <-held)
		l.stands(p)
	})
}

// What a peer sends that it should not, each with its answer: the call goes on,
// or ends as calls do. How damaged bytes are treated is in malformed_test.go.

const notSDP = "m=audio\r\nthis is not a session\r\n"

// FS6: the application's SDP is passed on as it is; an undecided re-INVITE or UPDATE with
// malformed SDP gets 488 with a Warning (RFC 3261 14.2, RFC 3311 5.2).
func TestOfferThatDoesNotParse(t *testing.T) {
	for _, handler := range []string{"none", "answers", "refuses"} {
		t.Run(handler, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p, withBody(notSDP))
				require.Equal(t, notSDP, <-bodiesOnly(l.d), "the application has it as it came")
				l.accepted()
				switch handler {
				case "answers":
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
						return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
					})
				case "refuses":
					l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("cannot be read") })
				}
				for _, method := range []string{"INVITE", "UPDATE"} {
					l.ask(method, withBody(notSDP), withHeaders("Contact: <sip:moved@10.0.0.9:5060>"))
					res := p.final(method)
					switch {
					case handler == "answers":
						require.Equal(t, 200, res.StatusCode)
						require.Equal(t, answerSDP, string(res.Body()))
					default:
						require.Equal(t, 488, res.StatusCode)
						require.NotEmpty(t, testkit.Value(res, "Warning"))
					}
					if method == "INVITE" && res.StatusCode == 200 {
						l.acknowledge(l.seq)
					}
				}
				require.Equal(t, handler == "answers", l.d.Info().RemoteTarget.User == "moved")
				l.stands(p)
			})
		})
	}
}

// bodiesOnly is bodies without the content types.
func bodiesOnly(d *dialog.Dialog) <-chan string {
	list := make(chan string, 100)
	d.OnBody(func(b dialog.Body) { list <- string(b.Data()) })
	return list
}

// In a 2xx, offer or answer, and in an ACK it is the application's to judge: where
// it refuses an offer that cannot be read, nothing can be answered, and the call
// ends (RFC 3261 13.2.2.4).
func TestAcceptanceWithABodyThatDoesNotParse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		got := bodiesOnly(l.d)
		l.answer(dialogtest.Response{Code: 200, Body: notSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, notSDP, <-got)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: notSDP})
		require.NoError(t, <-result)
		result = began(func() error {
			body, err := l.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(offerSDP)))
			if err == nil && string(body.Data()) != notSDP {
				err = errors.New("another body")
			}
			return err
		})
		p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: notSDP})
		require.NoError(t, <-result)
		l.stands(p)
	})
	for _, refuse := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			opts := dialog.InviteOpts{}
			if refuse {
				opts.Setup = func(d *dialog.Dialog) {
					d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
				}
			}
			l := w.calls(a, p, opts)
			l.answer(dialogtest.Response{Code: 200, Body: notSDP})
			ack := p.next("ACK")
			require.Empty(t, ack.Message.Body())
			if !refuse {
				l.stands(p)
				return
			}
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			<-l.d.Done()
		})
	}
}

// A body where nothing was offered answers nothing: in an ACK it goes to OnBody
// and changes no session, in the 200 to an UPDATE it goes nowhere.
func TestAnswerToNoOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		got := bodiesOnly(l.d)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{offerSDP, answerSDP}, drained(got))

		result := began(func() error {
			body, err := l.d.Update(context.Background(), nil)
			if err == nil && body != nil {
				err = errors.New("an answer to no offer")
			}
			return err
		})
		p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-result)
		synctest.Wait()
		require.Empty(t, drained(got))

		// Nothing is open afterwards.
		l.ask("INVITE", withBody(offerSDP))
		require.Equal(t, 200, p.final("INVITE").StatusCode)
		l.acknowledge(l.seq)
		l.stands(p)
	})
}

// RFC 3261 14.2, RFC 3311 5.2: of two offers at once the second has to wait.
func TestTwoOffersAtOnce(t *testing.T) {
	for _, c := range []struct {
		first, second string
		code          int
	}{
		{"INVITE", "INVITE", 500}, {"INVITE", "UPDATE", 500}, {"UPDATE", "UPDATE", 500}, {"UPDATE", "INVITE", 500},
	} {
		t.Run(c.first+" and "+c.second, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p)
				decide := make(chan struct{})
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					<-decide
					return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
				})
				l.ask(c.first, withBody(offerSDP))
				first := l.seq
				synctest.Wait()
				l.ask(c.second, withBody(offerSDP))
				refused := p.final(c.second)
				require.Equal(t, c.code, refused.StatusCode)
				require.NotEmpty(t, testkit.Value(refused, "Retry-After"))
				close(decide)
				res := p.final(c.first)
				require.Equal(t, 200, res.StatusCode)
				require.Equal(t, first, res.CSeq().SeqNo)
				if c.first == "INVITE" {
					l.acknowledge(first)
				}
				l.stands(p)
			})
		})
	}
}

// RFC 3261 8.2.3: with AcceptBodies another type gets 415; without, the application decides,
// and the default 200 has no body. The session does not change.
func TestReINVITEWithAnotherContentType(t *testing.T) {
	for _, listed := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP, func(c *dialog.StackConfig) {
				if listed {
					c.AcceptBodies = []string{"application/sdp"}
				}
			}), w.peer(peerIP)
			l := w.incoming(b, p)
			for _, method := range []string{"INVITE", "UPDATE"} {
				l.ask(method, withHeaders("Content-Type: text/plain"), withBody("hello"))
				res := p.final(method)
				require.Equal(t, map[bool]int{true: 415, false: 200}[listed], res.StatusCode)
				require.Equal(t, listed, testkit.Value(res, "Accept") == "application/sdp")
				require.Empty(t, res.Body())
				if method == "INVITE" && !listed {
					l.acknowledge(l.seq)
				}
			}
			l.ask("INVITE") // without an offer: our session is as it was
			res := p.final("INVITE")
			require.Contains(t, string(res.Body()), "m=audio 5000 RTP/AVP 0\r\n")
			l.acknowledge(l.seq, withBody(offerSDP))
			l.stands(p)
		})
	}
}
