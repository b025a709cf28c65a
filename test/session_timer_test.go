package test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

func lasting(d time.Duration) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.SessionExpires = d }
}

// RFC 4028: two of our own stacks keep a call alive, by UPDATE.
func TestSessionIsRefreshed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1", lasting(10*time.Minute)), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		ok := w.sent("10.0.0.2", "200 INVITE")[0].msg
		require.Equal(t, "600;refresher=uac", testkit.Value(ok, "Session-Expires"))
		require.Equal(t, "timer", testkit.Value(ok, "Require"))
		time.Sleep(time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.InDelta(t, 12, len(w.sent("10.0.0.1", "UPDATE")), 1)
		require.Equal(t, "600;refresher=uac", testkit.Value(w.sent("10.0.0.1", "UPDATE")[0].msg, "Session-Expires"))
		require.Empty(t, w.sent("10.0.0.2", "UPDATE"), "one side refreshes")
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// FD12. RFC 4028 9: Require: timer is a MUST where the peer refreshes, and a SHOULD
// where we do, if the peer knows of it.
func TestRequireTimerIsSentToPeersThatSupportIt(t *testing.T) {
	for _, c := range []struct{ supported, expires, want, require string }{
		{"Supported: timer", "Session-Expires: 1800;refresher=uac", "1800;refresher=uac", "timer"},
		{"Supported: timer", "Session-Expires: 1800;refresher=uas", "1800;refresher=uas", "timer"},
		{"Supported: timer", "Session-Expires: 1800", "1800;refresher=uac", "timer"},
		{"Supported: path", "Session-Expires: 1800", "1800;refresher=uas", ""},
		{"Supported: timer", "X-None: x", "", ""},
	} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p, withHeaders(c.supported, c.expires))
			l.ask("INVITE", withHeaders(c.supported, c.expires), withBody(offerSDP))
			again := l.peer.final("INVITE")
			l.acknowledge(l.seq)
			l.ask("UPDATE", withHeaders(c.supported, c.expires))
			for _, res := range []sip.Message{l.final.Message, again, l.peer.final("UPDATE")} {
				require.Equal(t, c.want, testkit.Value(res, "Session-Expires"), "%v", c)
				require.Equal(t, c.require, testkit.Value(res, "Require"), "%v", c)
			}
			l.hangUp(p)
		})
	}
}

// Zero obeys when asked and never asks.
func TestNoTimerUnlessRequested(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, _ := w.established(a, b)
		require.Empty(t, testkit.Value(w.sent("10.0.0.1", "INVITE")[0].msg, "Session-Expires"))
		require.Empty(t, testkit.Value(w.sent("10.0.0.2", "200 INVITE")[0].msg, "Session-Expires"))
		require.Contains(t, testkit.Value(w.sent("10.0.0.1", "INVITE")[0].msg, "Supported"), "timer")
		time.Sleep(24 * time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
	})
}

// A peer that takes no UPDATE is refreshed by a re-INVITE with the same session.
func TestSessionIsRefreshedByReInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.timed(b, p, "1800;refresher=uas")
		start := time.Now()
		time.Sleep(899 * time.Second)
		re := p.next("INVITE")
		require.Equal(t, 900*time.Second, time.Since(start))
		require.Equal(t, "1800;refresher=uac", testkit.Value(re.Message, "Session-Expires"))
		require.Equal(t, answerSDP, string(re.Message.Body()))
		p.reply(re, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Session-Expires: 1800;refresher=uac"}, Body: offerSDP})
		p.next("ACK")
		time.Sleep(time.Minute)
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		hangUp(t, d, p)
	})
}

// timed makes a call whose INVITE has a Session-Expires.
func (w *world) timed(b *dialog.Stack, p *peer, expires string, headers ...string) (*dialog.Dialog, func(method string, seq uint32, headers ...string) dialogtest.Request) {
	w.t.Helper()
	return w.called(b, p, answerSDP, append(headers, "Supported: timer", "Session-Expires: "+expires)...)
}

// RFC 4028 10: a BYE comes the smaller of 32 s and a third before the end.
func TestCallEndsWhenTheRefreshDoesNotCome(t *testing.T) {
	for expires, life := range map[string]time.Duration{"1800;refresher=uac": 1768 * time.Second, "90;refresher=uac": 60 * time.Second} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			d, _ := w.timed(b, p, expires)
			start := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			got, err := p.Recv(ctx)
			require.NoError(t, err)
			require.Equal(t, "BYE", testkit.Describe(got.Message))
			require.Equal(t, life, time.Since(start))
			p.reply(got, dialogtest.Response{Code: 200})
			<-d.Done()
			require.Equal(t, dialog.PartyTimeout, d.Cause().By)
		})
	}
}

func TestRefreshOfThePeerKeepsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.timed(b, p, "90;refresher=uac")
		for i := range 10 {
			time.Sleep(45 * time.Second)
			res := p.ask(b, inside("UPDATE", uint32(11+i), contactOfPeer, "Supported: timer", "Session-Expires: 90;refresher=uac"))
			require.Equal(t, 200, res.StatusCode)
			require.Equal(t, "90;refresher=uac", testkit.Value(res, "Session-Expires"))
		}
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.Equal(t, 200, p.ask(b, inside("UPDATE", 30, contactOfPeer)).StatusCode, "no Session-Expires: the timer is off")
		time.Sleep(time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		hangUp(t, d, p)
	})
}

// RFC 4028 7.2: as caller, when the 2xx leaves the refreshing to the callee.
func TestCallerLeavesTheRefreshToTheCallee(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP, lasting(2*time.Minute)), p, "Session-Expires: 120;refresher=uas")
		for range 10 {
			time.Sleep(time.Minute)
			l.ask("UPDATE", withHeaders("Supported: timer", "Session-Expires: 120;refresher=uac"))
			require.Equal(t, "120;refresher=uac", testkit.Value(p.final("UPDATE"), "Session-Expires"))
		}
		last := time.Now()
		bye := p.next("BYE")
		require.Equal(t, 88*time.Second, time.Since(last))
		p.reply(bye, dialogtest.Response{Code: 200})
		require.Len(t, w.sent(stackIP, "INVITE"), 1, "the refresh is not ours")
		require.Empty(t, w.sent(stackIP, "UPDATE"))
	})
}

func TestRefreshThatFailsEndsTheCallInTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.timed(b, p, "900;refresher=uas")
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		for d.State() == dialog.DialogStateEstablished {
			got, err := p.Recv(ctx)
			require.NoError(t, err)
			switch testkit.Describe(got.Message) {
			case "INVITE":
				p.reply(got, dialogtest.Response{Code: 503})
			case "BYE":
				p.reply(got, dialogtest.Response{Code: 200})
				synctest.Wait()
			}
		}
		require.Equal(t, 868*time.Second, time.Since(start))
		require.Greater(t, len(w.sent("10.0.0.2", "INVITE")), 1)
	})
}

// RFC 4028 6: too small an interval is refused, and a refusal obeyed.
func TestIntervalTooSmall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1", lasting(2*time.Minute))
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MinSE = 10 * time.Minute })
		caller, _ := w.established(a, b)
		require.Equal(t, "600", testkit.Value(w.sent("10.0.0.2", "422 INVITE")[0].msg, "Min-SE"))
		invites := w.sent("10.0.0.1", "INVITE")
		require.Len(t, invites, 2)
		require.Equal(t, "120", testkit.Value(invites[0].msg, "Session-Expires"))
		require.Equal(t, "600", testkit.Value(invites[1].msg, "Session-Expires"))
		require.Equal(t, "600", testkit.Value(invites[1].msg, "Min-SE"))
		require.Equal(t, "2 INVITE", testkit.Value(invites[1].msg, "CSeq"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

func TestEndless422Ends(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1", lasting(2*time.Minute)), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{})
		require.NoError(t, err)
		for range 4 {
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 422, ToTag: "x", Headers: []string{"Min-SE: 300"}})
		}
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 422, refused.StatusCode)
	})
}

// RFC 4028 7.4: what a request of the peer's or a 422 has demanded in this call is
// asked for by each request that follows.
func TestLargestMinSEIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.timed(b, p, "200;refresher=uas", "Min-SE: 100")
		refreshed := func(minSE, interval string, answer dialogtest.Response) {
			re := p.next("INVITE")
			require.Equal(t, minSE, testkit.Value(re.Message, "Min-SE"))
			require.Equal(t, interval+";refresher=uac", testkit.Value(re.Message, "Session-Expires"))
			p.reply(re, answer)
			p.next("ACK")
		}
		ok := func(interval string) dialogtest.Response {
			return dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Session-Expires: " + interval + ";refresher=uac"}, Body: offerSDP}
		}
		time.Sleep(99 * time.Second)
		refreshed("100", "200", dialogtest.Response{Code: 422, Headers: []string{"Min-SE: 300"}})
		refreshed("300", "300", ok("300"))
		time.Sleep(149 * time.Second)
		refreshed("300", "300", ok("300"))
		synctest.Wait()
		hangUp(t, d, p)
	})
}

// A refresh that fails while the peer has refreshed the session itself is not
// tried again before the next is due.
func TestRefreshThatThePeerHasMadeMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.timed(b, p, "1800;refresher=uas")
		time.Sleep(899 * time.Second)
		refused := func() { p.reply(p.next("INVITE"), dialogtest.Response{Code: 491}); p.next("ACK") }
		refused()
		res := p.ask(b, inside("UPDATE", 11, contactOfPeer, "Supported: timer", "Session-Expires: 1800;refresher=uas"))
		require.Equal(t, 200, res.StatusCode)
		since := time.Now()
		stop := p.answers(always(491))
		time.Sleep(40 * time.Second)
		stop()
		sent := len(w.sent("10.0.0.2", "INVITE"))
		time.Sleep(890*time.Second - time.Since(since))
		require.Len(t, w.sent("10.0.0.2", "INVITE"), sent)
		re := p.next("INVITE")
		require.Equal(t, 900*time.Second, time.Since(since))
		p.reply(re, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Session-Expires: 1800;refresher=uac"}, Body: offerSDP})
		p.next("ACK")
		synctest.Wait()
		hangUp(t, d, p)
	})
}

// A refresh while the peer holds the call is not a hold of the application: when the peer
// resumes, so do we.
func TestRefreshOnHoldDoesNotKeepTheHold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.timed(b, p, "1800;refresher=uas")
		offered := func(seq uint32, body string) string {
			r := inside("UPDATE", seq, contactOfPeer, "Supported: timer", "Session-Expires: 1800;refresher=uas")
			r.Body = body
			return string(p.ask(b, r).Body())
		}
		require.Contains(t, offered(11, held(offerSDP)), "a=recvonly")
		time.Sleep(899 * time.Second)
		re := p.next("INVITE")
		require.Contains(t, string(re.Message.Body()), "a=sendrecv") // RFC 6337 5.3
		p.reply(re, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Session-Expires: 1800;refresher=uac"}, Body: held(offerSDP)})
		p.next("ACK")
		synctest.Wait()
		require.Contains(t, offered(12, offerSDP), "a=sendrecv")
		hangUp(t, d, p)
	})
}

// RFC 4028 7.4: the answer to a refresh says that nothing has changed, where nothing
// has.
func TestAnswerToARefreshKeepsTheSession(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			d, inside := w.timed(b, p, "1800;refresher=uac")
			seq := uint32(10)
			answered := func(body string, headers ...string) string {
				seq++
				r := inside(method, seq, append(headers, contactOfPeer, "Supported: timer")...)
				r.Body = body
				res := p.ask(b, r)
				if method == "INVITE" {
					require.NoError(t, p.Send(b.Addr(), p.Request(inside("ACK", seq))))
				}
				return string(res.Body())
			}
			const refresh = "Session-Expires: 1800;refresher=uac"
			require.Equal(t, answerSDP, answered(offerSDP, refresh))
			onHold := answered(held(offerSDP), refresh)
			require.Contains(t, onHold, "o=bob 7 2 ")
			require.Equal(t, onHold, answered(held(offerSDP), refresh))
			require.Contains(t, answered(offerSDP, refresh), "o=bob 7 3 ")
			require.Contains(t, answered(offerSDP), "o=bob 7 4 ", "no refresh")

			refused := began(func() error { return d.Hold(context.Background()) })
			hold := p.next("INVITE")
			require.Contains(t, string(hold.Message.Body()), "o=bob 7 5 ")
			p.reply(hold, dialogtest.Response{Code: 488})
			require.Error(t, <-refused)
			p.next("ACK")
			again := answered(offerSDP, refresh)
			require.Contains(t, again, "o=bob 7 6 ", "the version of the refused offer is used up")
			require.Equal(t, again, answered(offerSDP, refresh))
			require.NoError(t, d.Close())
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		})
	}
}

// RFC 6337 5.2.5: after an offer of ours that was refused a refresh does not go back
// to the version before.
func TestRefreshAfterARefusedOfferRaisesTheVersion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, _ := w.timed(b, p, "1800;refresher=uas")
		refused := began(func() error { return d.Hold(context.Background()) })
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 488})
		require.Error(t, <-refused)
		p.next("ACK")
		time.Sleep(899 * time.Second)
		for _, version := range []string{"o=bob 7 3 ", "o=bob 7 3 "} {
			re := p.next("INVITE")
			require.Contains(t, string(re.Message.Body()), version)
			require.Contains(t, string(re.Message.Body()), "a=sendrecv")
			p.reply(re, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer, "Session-Expires: 1800;refresher=uac"}, Body: offerSDP})
			p.next("ACK")
			time.Sleep(899 * time.Second)
		}
		hangUp(t, d, p)
	})
}

// RFC 4028 6, 9: too small an interval gets 422 from whoever can be told, and is
// raised otherwise; what cannot be read asks for nothing.
func TestSessionIntervalsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		headers []string
		code    int
		granted string
	}{
		{[]string{"Supported: timer", "Session-Expires: 599"}, 422, ""},
		{[]string{"Session-Expires: 599"}, 200, "600;refresher=uas"},
		{[]string{"Supported: timer", "Session-Expires: 0"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: -5"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: soon"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: 99999999999999999999"}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: "}, 200, ""},
		{[]string{"Supported: timer", "Session-Expires: 900;refresher=nobody"}, 200, "900;refresher=uac"},
		{[]string{"Supported: timer", "Session-Expires: 900", "Min-SE: many"}, 200, "900;refresher=uac"},
	} {
		for _, method := range []string{"INVITE", "re-INVITE", "UPDATE"} {
			t.Run(method+" "+c.headers[len(c.headers)-1], func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.MinSE = 10 * time.Minute }), w.peer(peerIP)
					if method == "INVITE" {
						accepting(t, b)
						res := p.invited(b, c.headers...)
						require.Equal(t, c.code, res.StatusCode)
						require.Equal(t, c.granted, testkit.Value(res, "Session-Expires"))
						p.bye(b)
						require.Empty(t, b.Dialogs())
						return
					}
					l := w.incoming(b, p)
					method := method[len(method)-6:]
					l.ask(method, withHeaders(c.headers...))
					res := p.final(method)
					require.Equal(t, c.code, res.StatusCode)
					require.Equal(t, c.granted, testkit.Value(res, "Session-Expires"))
					if method == "INVITE" && res.StatusCode == 200 {
						l.acknowledge(l.seq)
					}
					l.stands(p)
				})
			})
		}
	}
}

// withoutUpdate lets a stack's Allow say nothing of UPDATE: its sessions are refreshed
// by re-INVITE.
func withoutUpdate(c *dialog.StackConfig) {
	c.Network = networkWithoutUpdate{c.Network.(*dialogtest.Host)}
}

type networkWithoutUpdate struct{ *dialogtest.Host }

func (n networkWithoutUpdate) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := n.Host.ListenPacket(ctx, network, address)
	return connWithoutUpdate{conn}, err
}

type connWithoutUpdate struct{ net.PacketConn }

func (c connWithoutUpdate) WriteTo(data []byte, to net.Addr) (int, error) {
	changed := bytes.Replace(data, []byte("OPTIONS, UPDATE, "), []byte("OPTIONS, "), 1)
	if _, err := c.PacketConn.WriteTo(changed, to); err != nil {
		return 0, err
	}
	return len(data), nil
}

// bothRefresh makes a call of 90 s between two stacks that are both refreshers: both asked for
// a timer at once, and each was named the refresher by the other.
func (w *world) bothRefresh(a, b *dialog.Stack) (caller, callee *dialog.Dialog) {
	w.t.Helper()
	caller, callee = w.established(a, b)
	w.delayed(50 * time.Millisecond)
	asks := action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Update(ctx, nil, dialog.Header{Name: "Session-Expires", Value: "90"})
		return err
	}}
	err1, err2 := together(caller, callee, asks, asks)
	require.NoError(w.t, err1)
	require.NoError(w.t, err2)
	return caller, callee
}

// With an UPDATE the two refreshes cross for as long as the call lasts, and do no harm.
func TestRefreshesThatCross(t *testing.T) {
	for method, change := range map[string]func(*dialog.StackConfig){"UPDATE": func(*dialog.StackConfig) {}, "INVITE": withoutUpdate} {
		t.Run(method+" and UPDATE", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				caller, callee := w.bothRefresh(w.stack("10.0.0.1"), w.stack("10.0.0.2", change))
				time.Sleep(10*refreshAt + 10*time.Second)
				one, other := w.sent("10.0.0.1", method), w.sent("10.0.0.2", "UPDATE")
				require.Len(t, one, 11)
				require.Len(t, other, 11)
				require.Len(t, w.sent("10.0.0.2", "200 "+method), 11)
				require.Len(t, w.sent("10.0.0.1", "200 UPDATE"), 11)
				require.Equal(t, one[10].at, other[10].at)
				require.Equal(t, dialog.DialogStateEstablished, caller.State())
				require.Equal(t, dialog.DialogStateEstablished, callee.State())
				require.NoError(t, caller.Bye(context.Background(), ""))
				w.nothingLeft()
			})
		})
	}
}

// By re-INVITE both get 491, and both come again, the callee's first (RFC 3261 14.1).
// That one settles whose task it is: the caller's says so too, and from then on the
// callee refreshes alone.
func TestRefreshesByReInviteThatCross(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.bothRefresh(w.stack("10.0.0.1", withoutUpdate), w.stack("10.0.0.2", withoutUpdate))
		time.Sleep(refreshAt + 10*time.Second)
		one, other := w.sent("10.0.0.1", "INVITE"), w.sent("10.0.0.2", "INVITE")
		require.Len(t, one, 3, "the first, the refresh, and that again")
		require.Len(t, other, 2)
		require.Equal(t, one[1].at, other[0].at)
		for side, again := range map[string]struct {
			wire
			least, most time.Duration
		}{
			"10.0.0.2": {one[2], 2100 * time.Millisecond, 4 * time.Second}, "10.0.0.1": {other[1], 0, 2 * time.Second},
		} {
			refused := w.one(side, "491 INVITE").at.Add(50 * time.Millisecond)
			require.GreaterOrEqual(t, again.at.Sub(refused), again.least)
			require.LessOrEqual(t, again.at.Sub(refused), again.most)
		}
		require.Equal(t, "90;refresher=uac", testkit.Value(other[1].msg, "Session-Expires"))
		require.Equal(t, "90;refresher=uas", testkit.Value(one[2].msg, "Session-Expires"))
		require.Contains(t, w.one("10.0.0.1", "200 INVITE").body(), "o=alice 1 2 ")
		require.Equal(t, versioned(offerSDP, 3), one[2].body(), "all that is wanted, not what the answer had to leave out")
		require.Equal(t, answerSDP, other[1].body())

		settled := one[2].at
		time.Sleep(10 * refreshAt)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 3)
		refreshed := w.sent("10.0.0.2", "INVITE")
		require.Equal(t, settled.Add(50*time.Millisecond+refreshAt), refreshed[2].at)
		require.GreaterOrEqual(t, len(refreshed), 2+9)
		require.Empty(t, w.sent("10.0.0.1", "BYE"))
		require.Empty(t, w.sent("10.0.0.2", "BYE"))
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.NoError(t, callee.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// Also where a re-INVITE of the application's is not to be sent again, a refresh is:
// the callee's first.
func TestRefreshesThatCrossComeAgainWithoutRetries(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.bothRefresh(w.stack("10.0.0.1", withoutUpdate, withoutRetry), w.stack("10.0.0.2", withoutUpdate, withoutRetry))
		time.Sleep(10 * refreshAt)
		require.Len(t, w.sent("10.0.0.1", "INVITE"), 2, "the first, and the refresh")
		require.Len(t, w.sent("10.0.0.1", "491 INVITE"), 1)
		require.Len(t, w.sent("10.0.0.2", "491 INVITE"), 1)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// A stream that one side holds stays on hold when a refresh of the other side crosses it,
// until the first resumes.
func TestRefreshThatCrossesAHoldKeepsTheHold(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.established(w.stack("10.0.0.1", lasting(2*refreshAt)), w.stack("10.0.0.2", withoutUpdate))
		w.delayed(50 * time.Millisecond)
		time.Sleep(refreshAt)
		require.NoError(t, callee.Hold(context.Background()))
		time.Sleep(5 * time.Second)
		require.Len(t, w.sent("10.0.0.2", "491 INVITE"), 1)
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=sendonly", "the answer to the refresh")
		require.NoError(t, callee.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.1", "200 INVITE").body(), "a=sendrecv")
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}

// Two sides that hold at the same instant resume one after the other: then both send
// again.
func TestHoldsThatCrossAreUndone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		w.delayed(50 * time.Millisecond)
		err1, err2 := together(caller, callee, holds, holds)
		require.NoError(t, err1)
		require.NoError(t, err2)
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=inactive")
		require.NoError(t, caller.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.2", "200 INVITE").body(), "a=sendonly")
		require.NoError(t, callee.Resume(context.Background()))
		require.Contains(t, w.last("10.0.0.1", "200 INVITE").body(), "a=sendrecv")
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
		w.versionsTell()
	})
}
