package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// RFC 6141 4: which messages move the target of a dialog. Reliable provisional
// responses are tested with RFC 3262.

func movedTo(user string) string { return "Contact: <sip:" + user + "@10.0.0.9:5060>" }

// targetUser is the user of the URI that the stack's next request goes to.
func (l *peerCall) targetUser() string { return l.d.Info().RemoteTarget.User }

// RFC 6141 4.6: a request moves it when it is accepted, not before, and not when
// it is refused.
func TestRequestMovesTheTargetOnceItIsAccepted(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		for _, refuse := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p, withHeaders(movedTo("here")))
				decide := make(chan error)
				l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					return dialog.NewBody("application/sdp", []byte(answerSDP)), <-decide
				})
				l.ask(method, withBody(offerSDP), withHeaders(movedTo("there")))
				synctest.Wait()
				require.Equal(t, "here", l.targetUser(), "undecided")
				if refuse {
					decide <- context.Canceled
					require.Equal(t, 488, p.final(method).StatusCode)
					require.Equal(t, "here", l.targetUser())
				} else {
					decide <- nil
					require.Equal(t, 200, p.final(method).StatusCode)
					require.Equal(t, "there", l.targetUser())
				}
				if method == "INVITE" && !refuse {
					l.acknowledge(l.seq)
				}
				bye := l.hangUp(p)
				require.Contains(t, bye.startLine(), map[bool]string{true: "sip:here@", false: "sip:there@"}[refuse])
			})
		}
	}
}

// RFC 6141 4.3: what moved while a re-INVITE was open stays moved when that is
// refused.
func TestTargetThatMovedInsideARefusedReINVITEStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		decide := make(chan error)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, <-decide })
		l.ask("INVITE", withBody(offerSDP), withHeaders(movedTo("refused")))
		l.ask("UPDATE", withHeaders(movedTo("there")))
		require.Equal(t, 200, p.final("UPDATE").StatusCode)
		require.Equal(t, "there", l.targetUser())
		decide <- context.Canceled
		require.Equal(t, 488, p.final("INVITE").StatusCode)
		require.Equal(t, "there", l.targetUser())
		l.hangUp(p)
	})
	// The same with a re-INVITE of ours.
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		result := began(func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) })
		re := p.next("INVITE")
		l.ask("UPDATE", withHeaders(movedTo("there")))
		require.Equal(t, 200, p.final("UPDATE").StatusCode)
		p.reply(re, dialogtest.Response{Code: 488, Headers: []string{movedTo("refused")}})
		require.Error(t, <-result)
		require.Equal(t, "there", l.targetUser())
		l.hangUp(p)
	})
}

// RFC 6141 4.7: a 2xx moves it, an unreliable provisional response and a failure
// do not.
func TestResponseMovesTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p, withHeaders(movedTo("here")))
		for code, want := range map[int]string{200: "there", 488: "here"} {
			for method, ask := range map[string]func() error{
				"INVITE": func() error { return l.d.ReInvite(context.Background(), offer(answerSDP)) },
				"UPDATE": func() error { _, err := l.d.Update(context.Background(), nil); return err },
			} {
				l.ask("UPDATE", withHeaders(movedTo("here")))
				require.Equal(t, 200, p.final("UPDATE").StatusCode)
				result := began(ask)
				in := p.next(method)
				if method == "INVITE" {
					p.reply(in, dialogtest.Response{Code: 183, Headers: []string{movedTo("early")}})
					synctest.Wait()
					require.Equal(t, "here", l.targetUser())
				}
				p.reply(in, dialogtest.Response{Code: code, Headers: []string{movedTo("there")}, Body: map[bool]string{true: offerSDP}[code == 200]})
				require.Equal(t, code == 200, <-result == nil)
				require.Equal(t, want, l.targetUser(), "%d to %s", code, method)
			}
		}
		l.hangUp(p)
	})
}

// RFC 6141 4.4, 4.5: our own Contact is the same in every message that could move
// it at the peer.
func TestOurOwnTargetStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack(stackIP), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		for _, d := range []*dialog.Dialog{caller, callee} {
			require.NoError(t, d.ReInvite(context.Background(), dialog.InviteOpts{}))
			_, err := d.Update(context.Background(), nil)
			require.NoError(t, err)
		}
		for ip, user := range map[string]string{stackIP: "SoftPhone", "10.0.0.2": "bob"} {
			for _, what := range []string{"INVITE", "UPDATE", "200 INVITE", "200 UPDATE"} {
				for _, m := range w.sent(ip, what) {
					require.Equal(t, "<sip:"+user+"@"+ip+":5060>", m.value(t, "Contact"))
				}
			}
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// RFC 6141 4.9: an unreliable provisional response makes an early dialog, and does
// not move its target; the 2xx does.
func TestEarlyTargetIsNotMovedByASecondProvisionalResponse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for _, contact := range []string{"first", "second"} {
			l.answer(dialogtest.Response{Code: 180, Headers: []string{movedTo(contact)}})
			synctest.Wait()
			require.Equal(t, "first", l.targetUser())
		}
		l.answer(dialogtest.Response{Code: 200, Headers: []string{movedTo("third")}, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "sip:third@10.0.0.9:5060", p.next("ACK").Request().Recipient.String())
		l.hangUp(p)
	})
}

// RFC 6141 4.8: a response and a request of the peer's may overtake each other. It
// moves by the request, whichever comes first, as responses do not move who can
// send a request.
func TestRequestThatCrossesAResponseMovesTheTarget(t *testing.T) {
	for _, ours := range []action{reInvites, touches} {
		for _, requestFirst := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(b, p, withHeaders(movedTo("here")))
				result := began(func() error { return ours.do(context.Background(), l.d) })
				method := map[string]string{"re-INVITE": "INVITE", "UPDATE": "UPDATE"}[ours.name]
				in := p.next(method)
				answers := func() {
					p.reply(in, dialogtest.Response{Code: 200, Headers: []string{movedTo("here")}, Body: offerSDP})
					require.NoError(t, <-result)
				}
				moves := func() {
					l.ask("UPDATE", withHeaders(movedTo("there")))
					require.Equal(t, 200, p.final("UPDATE").StatusCode)
				}
				if requestFirst {
					moves()
					answers()
				} else {
					answers()
					moves()
				}
				require.Equal(t, "there", l.targetUser())
				require.Contains(t, l.hangUp(p).startLine(), "sip:there@")
			})
		}
	}
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
			require.Equal(t, testkit.Describe(m.msg)+" sip:"+proxyIP+":5060;x=1 SIP/2.0", m.startLine())
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

// C3: Record-Route is in the 180 and the 2xx once, as it came, and is the
// callee's route in that order.
func TestRecordRouteIsCopiedOnceAndIsTheCalleesRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		near, far := "<sip:"+proxyIP+":5060;lr>", "<sip:p2.example:5060;lr>"
		l := w.incoming(b, p, withHeaders("Record-Route: "+near, "Record-Route: "+far))
		for _, what := range []string{"180 INVITE", "200 INVITE"} {
			require.Equal(t, []string{near, far}, w.one(stackIP, what).values("Record-Route"), what)
		}
		bye := l.hangUp(proxy)
		require.Equal(t, []string{near, far}, bye.values("Route"))
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", bye.startLine())
		require.Equal(t, proxy.Addr(), bye.to)
		require.Empty(t, w.one(stackIP, "100 INVITE").values("Record-Route"))
	})
}

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

func TestOutboundProxyIsAPreloadedRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: "10.0.0.9", Port: 5060} })
		proxy := w.peer("10.0.0.9")
		_, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: "nowhere.invalid"}, dialog.InviteOpts{})
		require.NoError(t, err)
		in := proxy.next("INVITE")
		require.Equal(t, "<sip:10.0.0.9:5060;lr>", testkit.Value(in.Message, "Route"))
		require.Equal(t, "sip:bob@nowhere.invalid", in.Request().Recipient.String())
		proxy.reply(in, dialogtest.Response{Code: 404, ToTag: "x"})
	})
}

// An outbound proxy with a transport parameter lost its lr, and was taken for a
// strict router.
func TestOutboundProxyWithATransportRoutesLoosely(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p, proxy := w.peer(peerIP), uri("", peerIP)
		proxy.UriParams = sip.NewParams()
		proxy.UriParams.Add("transport", "udp")
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.OutboundProxy = &proxy })
		_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.77"), offer(offerSDP))
		require.NoError(t, err)
		require.Equal(t, "10.0.0.77", p.next("INVITE").Request().Recipient.Host)
	})
}
