package test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The rows D1 to D3, D6 and D8, and the offer in a 2xx: calls of our own.

// D1: once the peer's tag is known its requests find the call.
func TestRequestsOfTheCalleeFindTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		half := l.d.Key()
		require.Equal(t, dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag}, half)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))

		full := dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag, RemoteTag: farTag}
		require.Equal(t, full, l.d.Key())
		for _, key := range []dialog.DialogKey{full, half} {
			found, ok := a.DialogByKey(key)
			require.True(t, ok)
			require.Same(t, l.d, found)
		}
		require.Equal(t, "SIP/2.0 200 OK", l.reinvites(withBody(offerSDP)).startLine())
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("202 REFER")
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		// Another tag is another dialog.
		l.ask("BYE", func(r *dialogtest.Request) { r.FromTag = "stranger" })
		p.next("481 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.ask("BYE")
		p.next("200 BYE")
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		for _, key := range []dialog.DialogKey{full, half} {
			_, ok := a.DialogByKey(key)
			require.False(t, ok)
		}
	})
}

// D1: requests inside the early dialog find it too.
func TestRequestsInTheEarlyDialogFindTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.alerting(a, p)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, farTag, l.d.Key().RemoteTag)
		l.ask("INFO")
		p.next("200 INFO")
		// ANSWERS: an INVITE while our own is pending.
		require.Equal(t, "SIP/2.0 491 Request Pending", l.reinvites(withBody(offerSDP)).startLine())
		// A REFER needs an established call.
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("491 REFER")
		l.answer(dialogtest.Response{Code: 486})
		require.Error(t, l.d.WaitAnswer(context.Background()))
	})
}

// D2: answered calls that have ended leave nothing behind: MaxDialogs bounds
// the calls in progress, not those there ever were.
func TestEndedCallsMakeRoomForOthers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.MaxDialogs = 1 }), w.peer(peerIP)
		for range 10 {
			l := w.outgoing(a, p)
			_, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP))
			require.ErrorIs(t, err, dialog.ErrMaxDialogs)
			l.ask("BYE")
			p.next("200 BYE")
			synctest.Wait()
		}
		for range 10 {
			l := w.outgoing(a, p)
			result := began(func() error { return l.d.Bye(context.Background(), "") })
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		}
		for range 10 {
			l := w.calls(a, p, offer(offerSDP))
			l.answer(dialogtest.Response{Code: 486})
			var refused *dialog.ResponseError
			require.ErrorAs(t, l.d.WaitAnswer(context.Background()), &refused)
			require.Equal(t, 486, refused.StatusCode)
		}
	})
}

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
			require.Equal(t, describe(m.msg)+" sip:bob@"+otherIP+":5070;a=b SIP/2.0", m.startLine())
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

// D3: neither a refusal nor an unreliable provisional response to a re-INVITE
// moves the target (RFC 3261 12.2.1.2, RFC 6141 4.3).
func TestOnlyA2xxRefreshesTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		again := p.next("INVITE")
		moved := []string{"Contact: <sip:moved@" + otherIP + ":5060>"}
		p.reply(again, dialogtest.Response{Code: 183, Headers: moved})
		p.reply(again, dialogtest.Response{Code: 488, Headers: moved})
		var refused *dialog.ResponseError
		require.ErrorAs(t, <-result, &refused)
		require.Equal(t, 488, refused.StatusCode)
		require.Equal(t, "ACK sip:peer@"+peerIP+":5060 SIP/2.0", w.last(stackIP, "ACK").startLine())
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", l.hangUp(p).startLine())
	})
}

// D3, RFC 3261 12.2.1.1: a first hop that routes strictly is the Request-URI,
// and the target the last Route; it is where the request goes.
func TestStrictRouterFindsItselfInTheRequestURI(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		l := w.outgoing(a, p,
			"Record-Route: <sip:p2.example;lr>", "Record-Route: <sip:"+proxyIP+":5060;x=1>")
		bye := l.hangUp(proxy)
		for _, m := range []wire{w.one(stackIP, "ACK"), bye} {
			require.Equal(t, describe(m.msg)+" sip:"+proxyIP+":5060;x=1 SIP/2.0", m.startLine())
			require.Equal(t, []string{"<sip:p2.example;lr>", "<sip:peer@" + peerIP + ":5060>"}, m.values("Route"))
			require.Equal(t, proxy.Addr(), m.to)
		}
	})
}

// D3: the route set stays that of the first 2xx: Record-Route in a re-INVITE
// does not change it (RFC 3261 12.2).
func TestRouteSetStaysForTheLifeOfTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		l.reinvites(withBody(offerSDP), withHeaders("Record-Route: <sip:"+proxyIP+";lr>"))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP, Headers: []string{"Record-Route: <sip:" + proxyIP + ";lr>"}})
		require.NoError(t, <-result)
		require.Empty(t, l.hangUp(p).values("Route"))
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

// D8: the body of an 18x reaches the application, and so does the 2xx's.
func TestBodyOfAProvisionalResponseIsDelivered(t *testing.T) {
	const early = "v=0\r\no=early 1 1 IN IP4 10.0.0.9\r\ns=-\r\nt=0 0\r\n"
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		heard := bodies(l.d)
		l.answer(dialogtest.Response{Code: 183, Body: early})
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + early}, drained(heard))
		l.answer(dialogtest.Response{Code: 180})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(heard))
	})
	// Nobody registered yet: the latest is kept for the first who does.
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 183, Body: "v=0\r\n"})
		l.answer(dialogtest.Response{Code: 183, Body: early})
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + early}, drained(bodies(l.d)))
		l.answer(dialogtest.Response{Code: 486})
		synctest.Wait()
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

// C10: nobody decides: ACK without body. Refused, late or panicking:
// every port 0, then BYE.
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
