package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// sends has the peer send a request inside the call, as a side that has not heard
// of ours.
func (l *peerCall) sends(request string) (method string) {
	l.t.Helper()
	switch request {
	case "re-INVITE":
		l.ask("INVITE", withBody(offerSDP))
		return "INVITE"
	case "UPDATE":
		l.ask("UPDATE", withBody(offerSDP))
	case "refresh":
		l.ask("UPDATE", withHeaders("Supported: timer", "Session-Expires: 90;refresher=uac"))
		return "UPDATE"
	case "REFER":
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@10.0.0.3>", "Refer-Sub: false"))
	default:
		l.ask(request)
	}
	return request
}

// What the stack answers to a request that crosses one of its own, which the peer
// answers afterwards as the RFC has it: with 491 where offers meet, with 481 after
// its BYE.
func TestRequestsThatCrossThoseOfAPeer(t *testing.T) {
	theirs := []string{"re-INVITE", "UPDATE", "refresh", "REFER", "BYE"}
	for _, c := range []struct {
		ours   action
		method string
		codes  [5]int // the answers to theirs
		meet   [5]int // the peer's to ours
	}{
		{reInvites, "INVITE", [5]int{491, 491, 200, 202, 200}, [5]int{491, 491, 200, 200, 481}},
		{updates, "UPDATE", [5]int{491, 491, 200, 202, 200}, [5]int{491, 491, 200, 200, 481}},
		{refreshes, "UPDATE", [5]int{200, 200, 200, 202, 200}, [5]int{200, 200, 200, 200, 481}},
		{refers, "REFER", [5]int{200, 200, 200, 202, 200}, [5]int{202, 202, 202, 202, 481}},
		{hangsUp, "BYE", [5]int{481, 481, 481, 481, 200}, [5]int{200, 200, 200, 200, 200}},
	} {
		for i, their := range theirs {
			t.Run(c.ours.name+" and their "+their, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b, p := w.stack(stackIP), w.peer(peerIP)
					l := w.incoming(b, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uas", "Allow: INVITE, UPDATE"))
					if c.ours.name == refreshes.name {
						time.Sleep(refreshAt)
					}
					result := began(func() error { return c.ours.do(context.Background(), l.d) })
					in := p.next(c.method)
					method := l.sends(their)
					seq := l.seq
					res := p.final(method)
					require.Equal(t, c.codes[i], res.StatusCode)
					if method == "INVITE" && res.StatusCode == 200 {
						l.acknowledge(seq)
					}
					p.reply(in, acceptance(c.method, c.meet[i]))
					l.settles(p, c.method, c.meet[i])
					err := <-result
					if their == "BYE" || c.method == "BYE" {
						synctest.Wait()
						require.Equal(t, dialog.DialogStateTerminated, l.d.State())
						w.nothingLeft()
						return
					}
					require.NoError(t, err)
					l.stands(p)
					w.nothingLeft()
				})
			})
		}
	}
}

// acceptance is a response, with an answer where there was an offer.
func acceptance(method string, code int) dialogtest.Response {
	r := dialogtest.Response{Code: code, Headers: []string{contactOfPeer, "Session-Expires: 90;refresher=uac", "Refer-Sub: false"}}
	if code == 200 && (method == "INVITE" || method == "UPDATE") {
		r.Body = offerSDP
	}
	return r
}

// settles answers our request when it comes again.
func (l *peerCall) settles(p *peer, method string, code int) {
	l.t.Helper()
	if code == 491 {
		p.reply(p.next(method), acceptance(method, 200))
	}
	synctest.Wait()
}

// A CANCEL of ours is on its way, and the peer has done something else meanwhile:
// the call is over, and what it answered gets its ACK and BYE (RFC 5407 3.1.2).
func TestCANCELThatCrosses(t *testing.T) {
	for name, meanwhile := range map[string]func(l *peerCall, p *peer){
		"a 200": func(l *peerCall, p *peer) {
			l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
			p.next("ACK")
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		},
		"a 486": func(l *peerCall, p *peer) { l.answer(dialogtest.Response{Code: 486}); p.next("ACK") },
		"a 183": func(l *peerCall, p *peer) { l.answer(dialogtest.Response{Code: 183}); l.answers487(p) },
		"a reliable 183": func(l *peerCall, p *peer) {
			l.answer(dialogtest.Response{Code: 183, Headers: []string{contactOfPeer, demands, "RSeq: 7"}, Body: answerSDP})
			p.reply(p.next("PRACK"), dialogtest.Response{Code: 200})
			l.answers487(p)
		},
		"UPDATE": func(l *peerCall, p *peer) {
			l.ask("UPDATE")
			require.Equal(l.t, 200, p.final("UPDATE").StatusCode)
			l.answers487(p)
		},
		"UPDATE with an offer": func(l *peerCall, p *peer) {
			l.ask("UPDATE", withBody(offerSDP))
			require.Equal(l.t, 491, p.final("UPDATE").StatusCode)
			l.answers487(p)
		},
		"re-INVITE": func(l *peerCall, p *peer) {
			l.ask("INVITE", withBody(offerSDP))
			require.Equal(l.t, 491, p.final("INVITE").StatusCode)
			l.answers487(p)
		},
		"REFER": func(l *peerCall, p *peer) {
			l.ask("REFER", withHeaders("Refer-To: <sip:carol@10.0.0.3>"))
			require.GreaterOrEqual(l.t, p.final("REFER").StatusCode, 400)
			l.answers487(p)
		},
		"BYE": func(l *peerCall, p *peer) {
			l.ask("BYE")
			require.Equal(l.t, 200, p.final("BYE").StatusCode)
			l.answers487(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.alerting(a, p)
				ended := began(func() error { return l.d.Hangup(context.Background()) })
				cancel := p.next("CANCEL")
				meanwhile(l, p)
				p.reply(cancel, dialogtest.Response{Code: 200, ToTag: farTag})
				require.NoError(t, <-ended)
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				w.nothingLeft()
			})
		})
	}
}

// answers487 ends a cancelled INVITE.
func (l *peerCall) answers487(p *peer) {
	l.t.Helper()
	l.answer(dialogtest.Response{Code: 487})
	p.next("ACK")
}

// RFC 5407 3.1.3, 3.1.6: the peer's BYE comes before its ACK, which was lost or is
// late: the call is over, and the 200 is not repeated any more.
func TestBYEOfThePeerBeforeItsACK(t *testing.T) {
	for _, late := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.unacknowledged(b, p)
			l.ask("BYE")
			p.next("200 BYE")
			<-l.d.Done()
			require.Equal(t, "remote BYE", l.d.Cause().String())
			if late {
				l.acknowledge(1)
			}
			p.quiet("200 INVITE", time.Minute)
			require.Empty(t, w.sent(stackIP, "BYE"))
			w.nothingLeft()
		})
	}
}

// The peer's CANCEL meets what we send: the call is over, unless it was answered
// (RFC 3261 9.2).
func TestCANCELOfThePeerThatCrosses(t *testing.T) {
	for _, ours := range []action{touches, proceeds, accepts, rejects, cancels} {
		for _, reliably := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reliably %v", ours.name, reliably), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b, p := w.stack(stackIP), w.peer(peerIP)
					var l *peerCall
					if reliably {
						l = w.rings(b, p, withHeaders(knows))
						l.progress(183, withSDP(answerSDP))
						early := p.next("183 INVITE")
						l.pracked(early.Message)
					} else {
						l = w.rings(b, p)
					}
					result := began(func() error { return ours.do(context.Background(), l.d) })
					synctest.Wait()
					l.cancels()
					p.next("200 CANCEL")
					synctest.Wait()
					switch ours.name {
					case touches.name:
						update := w.last(stackIP, "UPDATE")
						require.NotEmpty(t, w.sent(stackIP, "487 INVITE"))
						require.NoError(t, p.Send(l.stack, p.Response(request(update.msg), dialogtest.Response{Code: 481})))
						require.Error(t, <-result)
					case accepts.name:
						l.acknowledge(1)
						require.NoError(t, <-result)
						l.stands(p)
					default:
						require.NoError(t, <-result)
					}
					synctest.Wait()
					require.Equal(t, dialog.DialogStateTerminated, l.d.State())
					l.acknowledgesRefusal(w)
					w.nothingLeft()
				})
			})
		}
	}
}

// acknowledgesRefusal sends the ACK to a final answer that refused the peer's
// INVITE, if there was one.
func (l *peerCall) acknowledgesRefusal(w *world) {
	l.t.Helper()
	for _, final := range []string{"487 INVITE", "486 INVITE", "480 INVITE"} {
		if len(w.sent(stackIP, final)) > 0 {
			l.acknowledge(1, func(r *dialogtest.Request) { r.Branch = branchIn(l.inviteText) })
		}
	}
}

// A PRACK of ours, with an offer or without, that a request of the peer's crosses: to
// a reliable response to a re-INVITE, whose offer that response has answered.
func TestPRACKOfOurReINVITEThatCrosses(t *testing.T) {
	for their, codes := range map[string]map[bool]int{
		"re-INVITE": {false: 491, true: 491}, "UPDATE": {false: 200, true: 491},
		"refresh": {false: 200, true: 200}, "REFER": {false: 202, true: 202}, "BYE": {false: 200, true: 200},
	} {
		for offers, code := range codes {
			t.Run(fmt.Sprintf("%s, with an offer %v", their, offers), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					p := w.peer(peerIP)
					l := w.outgoing(w.stack(stackIP), p)
					opts := offer(held(offerSDP))
					if offers {
						opts = proposing(make(chan dialog.ForkInfo, 9))
					}
					result := began(func() error { return l.d.ReInvite(context.Background(), opts) })
					in := p.next("INVITE")
					p.reply(in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
					prack := p.next("PRACK")
					require.Equal(t, offers, len(prack.Message.Body()) > 0)
					method := l.sends(their)
					require.Equal(t, code, p.final(method).StatusCode)
					if their == "BYE" {
						p.reply(prack, dialogtest.Response{Code: 481})
						p.reply(in, dialogtest.Response{Code: 487})
						require.Error(t, <-result)
						require.Empty(t, w.sent(stackIP, "BYE"))
						w.nothingLeft()
						return
					}
					p.reply(prack, dialogtest.Response{Code: 200, Body: map[bool]string{true: answerSDP}[offers]})
					p.reply(in, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}})
					require.NoError(t, <-result)
					again := began(func() error { return l.d.Hold(context.Background()) })
					p.reply(p.next("INVITE"), acceptance("INVITE", 200))
					require.NoError(t, <-again, "no offer is open")
					l.stands(p)
					w.nothingLeft()
				})
			})
		}
	}
}
