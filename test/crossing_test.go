package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Each pair of requests, one of either side, that cross on the wire: between two
// stacks here, with a scripted peer below. Whatever they are,
// both sides agree in the end and nothing is left (RFC 5407, RFC 6141, RFC 3261
// 14).

// action is what an application does with a call, or what its session timer does.
type action struct {
	name string
	do   func(ctx context.Context, d *dialog.Dialog) error
}

// refreshAt is when the session timer of a call of 90 s refreshes it.
const refreshAt = 45 * time.Second

var (
	reInvites = action{"re-INVITE", func(ctx context.Context, d *dialog.Dialog) error {
		return d.ReInvite(ctx, offer(answerSDP))
	}}
	updates = action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Update(ctx, ourSession())
		return err
	}}
	refreshes = action{"refresh", func(context.Context, *dialog.Dialog) error { return nil }} // by itself
	renews    = action{"refresh by re-INVITE", refreshes.do}                                  // by itself, where the peer takes no UPDATE
	refers    = action{"REFER", func(ctx context.Context, d *dialog.Dialog) error {
		return d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{NoReferSub: true})
	}}
	hangsUp  = action{"BYE", func(ctx context.Context, d *dialog.Dialog) error { return d.Bye(ctx, "") }}
	holds    = action{"hold", func(ctx context.Context, d *dialog.Dialog) error { return d.Hold(ctx) }}
	accepts  = action{"200", func(ctx context.Context, d *dialog.Dialog) error { return d.Accept(ctx, withSDP(answerSDP)) }}
	rejects  = action{"486", func(ctx context.Context, d *dialog.Dialog) error { return d.Reject(ctx, 486, "") }}
	proceeds = action{"183", func(ctx context.Context, d *dialog.Dialog) error { return d.Provisional(ctx, 183, "") }}
	touches  = action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error { _, err := d.Update(ctx, nil); return err }}
	cancels  = action{"CANCEL", func(ctx context.Context, d *dialog.Dialog) error { return d.Hangup(ctx) }}
)

// delayed lets every message take that long.
func (w *world) delayed(by time.Duration) {
	w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{by} })
}

// together has both sides act at once, and returns what came of it.
func together(caller, callee *dialog.Dialog, one, other action) (error, error) {
	first := began(func() error { return one.do(context.Background(), caller) })
	err := other.do(context.Background(), callee)
	return <-first, err
}

// nothingLeft waits until the stacks have had the time to forget, and checks that
// they did.
func (w *world) nothingLeft() {
	w.t.Helper()
	time.Sleep(3 * time.Minute)
	for _, s := range w.stacks {
		require.Zero(w.t, testkit.Held(s))
	}
}

// versionsTell checks that two sessions of one side that differ have two versions
// (RFC 3264 8, RFC 6337 5.2.5).
func (w *world) versionsTell() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	said := make(map[string]string)
	for _, m := range w.log {
		_, rest, found := strings.Cut(m.body(), "o=")
		if !found {
			continue
		}
		origin, _, _ := strings.Cut(rest, "\r\n")
		origin = m.from.String() + " " + origin
		if before, known := said[origin]; known {
			require.Equal(w.t, before, m.body(), testkit.Describe(m.msg))
		}
		said[origin] = m.body()
	}
}

// The response of each side to the other's request: as sent by the callee, and by the caller.
// With a BYE the other request gets 481, unless its response came before.
func TestRequestsOfTwoStacksThatCross(t *testing.T) {
	pending := []string{"491 INVITE", "491 UPDATE"}
	for _, c := range []struct {
		one, other         action
		byCallee, byCaller string
	}{
		{reInvites, reInvites, "491 INVITE", "491 INVITE"},
		{reInvites, updates, "491 INVITE", "491 UPDATE"},
		{updates, reInvites, "491 UPDATE", "491 INVITE"},
		{holds, holds, "491 INVITE", "491 INVITE"},
		{updates, updates, "491 UPDATE", "491 UPDATE"},
		{refreshes, reInvites, "200 UPDATE", "200 INVITE"},
		{refreshes, updates, "200 UPDATE", "200 UPDATE"},
		{refreshes, refers, "200 UPDATE", "202 REFER"},
		{refreshes, touches, "200 UPDATE", "200 UPDATE"},
		{refreshes, holds, "200 UPDATE", "200 INVITE"},
		{renews, reInvites, "491 INVITE", "491 INVITE"},
		{renews, updates, "491 INVITE", "491 UPDATE"},
		{renews, holds, "491 INVITE", "491 INVITE"},
		{renews, touches, "200 INVITE", "200 UPDATE"},
		{renews, refers, "200 INVITE", "202 REFER"},
		{renews, hangsUp, "481 INVITE", "200 BYE"},
		{holds, updates, "491 INVITE", "491 UPDATE"},
		{updates, holds, "491 UPDATE", "491 INVITE"},
		{holds, touches, "200 INVITE", "200 UPDATE"},
		{holds, refers, "200 INVITE", "202 REFER"},
		{refers, holds, "202 REFER", "200 INVITE"},
		{holds, hangsUp, "481 INVITE", "200 BYE"},
		{hangsUp, holds, "200 BYE", "481 INVITE"},
		{reInvites, refers, "200 INVITE", "202 REFER"},
		{refers, reInvites, "202 REFER", "200 INVITE"},
		{updates, refers, "200 UPDATE", "202 REFER"},
		{refers, updates, "202 REFER", "200 UPDATE"},
		{refers, refers, "202 REFER", "202 REFER"},
		{hangsUp, reInvites, "200 BYE", "481 INVITE"},
		{reInvites, hangsUp, "481 INVITE", "200 BYE"},
		{hangsUp, updates, "200 BYE", "481 UPDATE"},
		{updates, hangsUp, "481 UPDATE", "200 BYE"},
		{hangsUp, refers, "200 BYE", "481 REFER"},
		{refers, hangsUp, "481 REFER", "200 BYE"},
		{refreshes, hangsUp, "481 UPDATE", "200 BYE"},
		{hangsUp, hangsUp, "200 BYE", "200 BYE"},
	} {
		t.Run(c.one.name+" and "+c.other.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				takes := func(*dialog.StackConfig) {}
				if c.one.name == renews.name {
					takes = withoutUpdate
				}
				a, b := w.stack("10.0.0.1", lasting(90*time.Second)), w.stack("10.0.0.2", takes)
				caller, callee := w.established(a, b)
				w.delayed(50 * time.Millisecond)
				if c.one.name == refreshes.name || c.one.name == renews.name {
					time.Sleep(refreshAt)
				}
				err1, err2 := together(caller, callee, c.one, c.other)
				time.Sleep(5 * time.Second) // a refresh that was put off
				require.NotEmpty(t, w.sent("10.0.0.2", c.byCallee))
				require.NotEmpty(t, w.sent("10.0.0.1", c.byCaller))

				if c.one.name == "BYE" || c.other.name == "BYE" {
					require.Equal(t, dialog.DialogStateTerminated, caller.State())
					require.Equal(t, dialog.DialogStateTerminated, callee.State())
				} else {
					require.NoError(t, err1)
					require.NoError(t, err2)
					for _, answer := range pending { // once: the windows of RFC 3261 14.1 do not meet
						require.LessOrEqual(t, len(w.sent("10.0.0.1", answer)), 1)
					}
					_, err := callee.Renegotiate(context.Background(), nil)
					require.NoError(t, err, "no offer is open")
					time.Sleep(10 * refreshAt)
					require.Equal(t, dialog.DialogStateEstablished, caller.State(), "it has been refreshed meanwhile")
					require.Equal(t, dialog.DialogStateEstablished, callee.State())
					require.NoError(t, caller.Bye(context.Background(), ""))
				}
				w.nothingLeft()
				w.versionsTell()
			})
		})
	}
}

// Before the answer: the caller's CANCEL and UPDATE, and its PRACK, which leaves by
// itself, against what the callee does.
func TestRequestsBeforeTheAnswerThatCross(t *testing.T) {
	nothing := action{"PRACK", func(context.Context, *dialog.Dialog) error { return nil }}
	for _, reliable := range []dialog.Reliability{dialog.ReliableOff, dialog.ReliableRequired} {
		for _, one := range []action{cancels, touches, nothing} {
			for _, other := range []action{accepts, rejects, proceeds, touches, cancels} {
				name := one.name + " and " + other.name
				if other.name == cancels.name {
					name = one.name + " and 480"
				}
				if reliable == dialog.ReliableRequired {
					name += ", reliably"
				}
				t.Run(name, func(t *testing.T) { crossesBeforeTheAnswer(t, reliable, one, other) })
			}
		}
	}
}

func crossesBeforeTheAnswer(t *testing.T, reliable dialog.Reliability, one, other action) {
	bubble(t, func(t *testing.T, w *world) {
		as := func(c *dialog.StackConfig) { c.Reliable = reliable }
		a, b := w.stack("10.0.0.1", as), w.stack("10.0.0.2", as)
		calls := waiting(b)
		w.delayed(50 * time.Millisecond)
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := placed.(*dialog.Dialog), <-calls
		time.Sleep(50 * time.Millisecond) // the 180 is there, and its PRACK leaves
		synctest.Wait()
		err1, err2 := together(caller, callee, one, other)
		time.Sleep(5 * time.Second)
		if one.name == cancels.name {
			require.NoError(t, err1)
			require.Equal(t, dialog.DialogStateTerminated, caller.State())
			require.Equal(t, dialog.DialogStateTerminated, callee.State())
			require.NotEmpty(t, w.sent("10.0.0.1", "CANCEL"))
			w.nothingLeft()
			return
		}
		if err1 != nil { // the call was over before the UPDATE was answered
			require.True(t, errors.Is(err1, dialog.ErrTerminated) || callee.State() == dialog.DialogStateTerminated, "%v", err1)
		}
		require.NoError(t, err2)
		want := map[string]dialog.DialogState{"200": dialog.DialogStateEstablished, "486": dialog.DialogStateTerminated, "CANCEL": dialog.DialogStateTerminated}
		if state, ok := want[other.name]; ok {
			require.Equal(t, state, caller.State())
			require.Equal(t, state, callee.State())
		} else {
			require.Equal(t, dialog.DialogStateRinging, caller.State())
			require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
			require.NoError(t, caller.WaitAnswer(context.Background()))
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
	})
}

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

// The response of the stack to a request that crosses one of its own. The peer then responds
// by the RFC: with 491 to crossing offers, with 481 after its BYE.
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
