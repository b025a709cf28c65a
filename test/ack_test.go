package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/internal/transport"
)

// D3: the ACK goes to the Contact of the 2xx by its route, with the INVITE's
// CSeq; so do later requests.
func TestACKGoesToTheRemoteTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, Headers: []string{"Contact: <sip:early@" + peerIP + ">"}})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{
			"Contact: <sip:bob@" + otherIP + ":5070;a=b>",
			"Record-Route: <sip:p2.example;lr>, <sip:" + proxyIP + ":5060;lr>",
		}})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		proxy.next("ACK")
		bye := l.hangUp(proxy)
		ack := w.one(stackIP, "ACK")
		for _, m := range []wire{ack, bye} {
			require.Equal(t, testkit.Describe(m.msg)+" sip:bob@"+otherIP+":5070;a=b SIP/2.0", m.startLine())
			require.Equal(t, []string{"<sip:" + proxyIP + ":5060;lr>", "<sip:p2.example;lr>"}, m.values("Route"), "RFC 3261 12.1.2: reversed")
			require.Equal(t, proxy.Addr(), m.to)
			require.Equal(t, l.stackTag, testkit.FromTag(m.msg))
			require.Equal(t, farTag, testkit.ToTag(m.msg))
			require.Equal(t, l.callID, m.value(t, "Call-ID"))
		}
		require.Equal(t, "1 ACK", ack.value(t, "CSeq"))
		require.Equal(t, "2 BYE", bye.value(t, "CSeq"))
		invite := w.one(stackIP, "INVITE")
		require.NotEqual(t, invite.value(t, "Via"), ack.value(t, "Via"), "RFC 3261 17.1.1.1: a branch of its own")
	})
}

// D3: the ACK to a re-INVITE has that one's CSeq, and the target of its 2xx.
func TestACKOfAReINVITEHasItsCSeq(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) })
		again := p.next("INVITE")
		require.Equal(t, uint32(2), again.Request().CSeq().SeqNo)
		require.Equal(t, farTag, testkit.ToTag(again.Message))
		require.Equal(t, versioned(answerSDP, 2), string(again.Request().Body()))
		require.Equal(t, l.target, contactOf(again.Message))
		p.reply(again, dialogtest.Response{Code: 200, Body: offerSDP, Headers: []string{"Contact: <sip:moved@" + otherIP + ":5060>"}})
		require.NoError(t, <-result)
		away.next("ACK")
		synctest.Wait()
		ack := w.last(stackIP, "ACK")
		require.Equal(t, "ACK sip:moved@"+otherIP+":5060 SIP/2.0", ack.startLine())
		require.Equal(t, "2 ACK", ack.value(t, "CSeq"))
		bye := l.hangUp(away)
		require.Equal(t, "BYE sip:moved@"+otherIP+":5060 SIP/2.0", bye.startLine())
		require.Equal(t, "3 BYE", bye.value(t, "CSeq"))
	})
}

// D6: a repeated 2xx gets the same ACK, byte for byte, each time.
func TestRepeated200GetsTheSameACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		for range 3 {
			time.Sleep(time.Second)
			l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
			synctest.Wait()
		}
		// Requests sent meanwhile do not change it.
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		again := p.next("INVITE")
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		synctest.Wait()
		acks := w.sent(stackIP, "ACK")
		require.Len(t, acks, 5)
		for _, ack := range acks {
			require.Equal(t, acks[0].raw, ack.raw)
		}
		for range 2 {
			p.reply(again, dialogtest.Response{Code: 200, Body: answerSDP})
			synctest.Wait()
		}
		require.NoError(t, <-result)
		acks = w.sent(stackIP, "ACK")[5:]
		require.Len(t, acks, 2)
		require.Equal(t, "2 ACK", acks[0].value(t, "CSeq"))
		require.Equal(t, acks[0].raw, acks[1].raw)
	})
}

// The ACK to a 2xx of ours: what it brings, and who waits for it.

// FT6: an ACK that brings no answer leaves our offer as the session that there is
// (judgement: RFC 3264 wants an answer): Hold has something to hold.
func TestOurOfferIsTheSessionAfterAnACKWithoutAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP), p, withoutBody)
		result := began(func() error { return l.d.Hold(context.Background()) })
		in := p.next("INVITE")
		require.Contains(t, string(in.Message.Body()), "m=audio 5000 ")
		require.Contains(t, string(in.Message.Body()), "a=sendonly")
		p.reply(in, dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-result)
		l.hangUp(p)
	})
}

// FT6: whoever waits for the ACK learns at once that the call has ended, whatever
// ended it.
func TestAWaitForTheACKEndsWithTheCall(t *testing.T) {
	for name, end := range map[string]func(l *peerCall) error{
		"Close":  func(l *peerCall) error { return l.d.Close() },
		"hangup": func(l *peerCall) error { l.ask("BYE"); l.next("200 BYE"); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.peer(peerIP)
				l := w.rings(w.stack(stackIP), p)
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				waiting := map[string]<-chan error{
					"ReInvite": began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) }),
					"Hold":     began(func() error { return l.d.Hold(context.Background()) }),
				}
				time.Sleep(3 * time.Second)
				start := time.Now()
				require.NoError(t, end(l))
				for op, result := range waiting {
					require.ErrorIs(t, <-result, dialog.ErrTerminated, op)
				}
				require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrTerminated)
				require.Zero(t, time.Since(start))
				if name == "Close" { // RFC 3261 15: the BYE waits for it as well
					l.acknowledge(1)
					p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
				}
			})
		})
	}
}

// unreachable is a target whose connection is never set up, and never refused.
const unreachable = "Contact: <sip:callee@10.0.0.66:5060;transport=tcp>"

// dialCount counts the connections that a stack tries to set up at a time.
type dialCount struct {
	transport.Network
	now, most, all atomic.Int32
}

func (n *dialCount) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.all.Add(1)
	n.most.Store(max(n.most.Load(), n.now.Add(1)))
	defer n.now.Add(-1)
	return n.Network.DialContext(ctx, network, address)
}

// dials counts the dials of a stack that the returned function configures.
func (w *world) dials(ip string) (*dialCount, func(*dialog.StackConfig)) {
	n := &dialCount{Network: w.net.Host(ip)}
	return n, func(c *dialog.StackConfig) { c.Network = n }
}

// FX3: a callee that repeats its 2xx a thousand times a second, and cannot be
// reached, has one dial at a time, and nothing queued. Its BYE is answered at once.
func TestRepeatedAnswersOfAnUnreachableCalleeQueueNothing(t *testing.T) {
	for name, c := range map[string]struct {
		contact string
		body    string // of the INVITE
		offer   string // of the 200
		tags    int
	}{
		"a dial":               {unreachable, offerSDP, answerSDP, 1},
		"a dial, a late offer": {unreachable, "", offerSDP, 1},
		"many forks":           {unreachable, offerSDP, answerSDP, 100},
		"a look-up":            {"Contact: <sip:callee@nobody.test>", offerSDP, answerSDP, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				count, counted := w.dials(stackIP)
				w.nameServer().fallSilent(true)
				a, p := w.stack(stackIP, counted, w.resolves(stackIP)), w.peer(peerIP)
				opts := dialog.InviteOpts{}
				if c.body != "" {
					opts = offer(c.body)
				}
				l := w.calls(a, p, opts)
				w.deaf()
				before, most := heap(), uint64(0)
				for i := range 5000 {
					tag := fmt.Sprint(farTag, i%c.tags)
					res := p.Response(l.invite.Request(), dialogtest.Response{Code: 200, ToTag: tag, Headers: []string{c.contact}, Body: c.offer})
					w.net.Inject(p.Addr(), a.Addr(), []byte(res))
					time.Sleep(time.Millisecond)
					if i%10 == 0 {
						synctest.Wait()
						require.Zero(t, a.Stats().Queues, "something waits on the call's worker")
					}
					if i%1000 == 999 {
						most = max(most, heap())
					}
				}
				require.Less(t, most, before+uint64(1+c.tags)<<20)
				require.LessOrEqual(t, count.most.Load(), int32(1))
				l.tag = farTag + "0"
				began := time.Now()
				l.ask("BYE")
				p.next("200 BYE")
				require.Zero(t, time.Since(began))
				<-l.d.Done()
				require.Equal(t, dialog.PartyRemote, l.d.Cause().By)

				if c.tags > 1 {
					w.stacks = nil // shut down here, while the BYEs to the forks are on their way
					require.True(t, testkit.OnlyUnreachable(a.Shutdown(context.Background()), false))
					return
				}
				// Over on both sides: what comes now is not worth a dial.
				time.Sleep(5 * time.Second)
				all := count.all.Load()
				for range 1000 {
					res := p.Response(l.invite.Request(), dialogtest.Response{Code: 200, ToTag: farTag + "0", Headers: []string{c.contact}, Body: c.offer})
					w.net.Inject(p.Addr(), a.Addr(), []byte(res))
					time.Sleep(10 * time.Millisecond)
				}
				require.Equal(t, all, count.all.Load())
			})
		})
	}
}

// An ACK that could not be sent had lost the answer it carried when it was
// tried again.
func TestSecondAttemptOfAnACKHasTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		takes := dialogtest.Response{
			Code: 200, Headers: []string{"Contact: <sip:peer@" + peerIP + ":5099;transport=tcp>"}, Body: offerSDP,
		}
		l.answer(takes)
		synctest.Wait() // the ACK is refused: no listener
		conns := w.accepts(peerIP + ":5099")
		l.answer(takes)
		ack := (<-conns).read()
		require.Equal(t, "ACK", testkit.Describe(ack.msg))
		require.Equal(t, answerSDP, ack.body())
	})
}

// A 2xx with Contact: * was never acknowledged.
func Test2xxWithoutAUsableContactIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.calls(w.stack(stackIP), w.peer(peerIP), offer(offerSDP))
		l.answer(dialogtest.Response{Code: 200, Headers: []string{"Contact: *"}, Body: answerSDP})
		l.next("ACK")
	})
}

// C10, RFC 3261 13.2.2.4: the offer in a 2xx is answered in the ACK, as
// OnOffer says.
func TestOfferInA2xxIsAnsweredInTheACK(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		require.Empty(t, w.one(stackIP, "INVITE").body())
		decide := make(chan struct{})
		l.d.OnOffer(func(_ context.Context, offer dialog.Body) (dialog.Body, error) {
			<-decide
			if string(offer.Data()) != offerSDP {
				t.Error("another offer")
			}
			return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
		})
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		// While the ACK waits: nothing is sent for a repeated 200, nothing can
		// overtake it, and the peer's re-INVITE has to wait.
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		l.ask("INVITE", withBody(offerSDP))
		p.next("491 INVITE")
		require.Error(t, l.d.ReInvite(context.Background(), offer(offerSDP)))
		require.Empty(t, w.sent(stackIP, "ACK"))
		require.NotEqual(t, dialog.DialogStateEstablished, l.d.State())
		close(decide)
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		ack := w.one(stackIP, "ACK")
		require.Equal(t, answerSDP, ack.body())
		require.Equal(t, "application/sdp", ack.value(t, "Content-Type"))
		l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		synctest.Wait()
		require.Equal(t, ack.raw, w.sent(stackIP, "ACK")[1].raw)
		// Our session is what we answered.
		l.d.OnOffer(nil)
		require.Contains(t, l.reinvites(withBody(offerSDP)).body(), "o=bob 7 2 IN IP4 10.0.0.2\r\n")
	})
}

// C10: without OnOffer the ACK has no body. If OnOffer refuses, panics or is too late, the ACK
// has port 0 in every line, and a BYE follows.
func TestOfferInA2xxThatIsNotTaken(t *testing.T) {
	const refused = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0 8\r\n"
	cases := []struct {
		name    string
		handler dialog.OfferHandler
		body    string
		after   time.Duration
		ends    bool
	}{
		{"nobody", nil, "", 0, false},
		{"refused", func(context.Context, dialog.Body) (dialog.Body, error) { return nil, io.EOF }, refused, 0, true},
		{"panic", func(context.Context, dialog.Body) (dialog.Body, error) { panic("oh") }, refused, 0, true},
		{"late", func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil }, refused, 24 * time.Second, true},
	}
	for _, again := range []bool{false, true} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s again %t", c.name, again), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, p := w.stack(stackIP), w.peer(peerIP)
					l := w.calls(a, p, dialog.InviteOpts{})
					seq := 1
					var result <-chan error
					if again {
						l.answer(dialogtest.Response{Code: 200})
						require.NoError(t, l.d.WaitAnswer(context.Background()))
						l.d.OnOffer(c.handler)
						result = began(func() error { return l.d.ReInvite(context.Background(), dialog.InviteOpts{}) })
						l.invite, seq = p.next("INVITE"), 2
					} else {
						l.d.OnOffer(c.handler)
						result = began(func() error { return l.d.WaitAnswer(context.Background()) })
					}
					start := time.Now()
					l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
					ack := p.next("ACK")
					require.Equal(t, fmt.Sprintf("%d ACK", seq), ack.Request().CSeq().Value())
					require.Equal(t, c.body, string(ack.Request().Body()))
					require.Equal(t, c.after, time.Since(start))
					if !c.ends {
						require.NoError(t, <-result)
						synctest.Wait()
						require.Equal(t, dialog.DialogStateEstablished, l.d.State())
						return
					}
					bye := p.next("BYE")
					require.Equal(t, fmt.Sprintf("%d BYE", seq+1), bye.Request().CSeq().Value())
					require.Equal(t, c.after, time.Since(start))
					p.reply(bye, dialogtest.Response{Code: 200})
					<-l.d.Done()
					if err := <-result; !again {
						require.Error(t, err)
					}
					require.Equal(t, dialog.PartyLocal, l.d.Cause().By)
				})
			})
		}
	}
}

// RFC 3261 13.2.2.4: an offer in a 2xx is answered in its ACK also where the BYE
// follows at once: in a call that was given up, and in a further fork.
func TestOfferInA2xxOfACallThatIsReleased(t *testing.T) {
	for _, givenUp := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(dialog.InviteOpts{})
			f.says("A", 180, "")
			f.says("B", 180, "")
			if givenUp {
				require.NoError(t, f.d.Close())
				f.next("CANCEL")
			} else {
				f.says("A", 200, offerSDP)
				require.Empty(t, f.at["A"].next("ACK").Message.Body(), "nobody decides, and there is no session")
			}
			f.says("B", 200, offerSDP)
			ack := f.at["B"].next("ACK")
			require.Contains(t, string(ack.Message.Body()), "m=audio 0 ")
			f.at["B"].reply(f.at["B"].next("BYE"), dialogtest.Response{Code: 200})
			if !givenUp {
				f.over("A")
				return
			}
			f.empty()
		})
	}
}

// C10: an offerless INVITE's 2xx carries our offer; the ACK's answer reaches the
// application.
func TestAnswerInTheACKReachesTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withBody(""))
		heard := bodies(l.d)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)))
		l.acknowledge(1, withBody(answerSDP))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(heard))
	})
}

// The 2xx to the INVITE comes again while the ACK to that of a re-INVITE waits for its
// answer: the first ACK was lost.
func TestACKIsRepeatedWhileAnotherWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		p.next("ACK")
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		r := l.renegotiates(context.Background(), "")
		r.says(200, offerSDP)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.Equal(t, "1 ACK", testkit.Value(p.next("ACK").Message, "CSeq"))
		r.says(200, offerSDP)
		p.quiet("ACK", time.Second)
		close(decide)
		require.Equal(t, "2 ACK", testkit.Value(p.next("ACK").Message, "CSeq"))
		require.NoError(t, <-r.ended)
		l.stands(p)
	})
}
