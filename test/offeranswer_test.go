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
		// RFC 6337 4.1: the offer is to come.
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
