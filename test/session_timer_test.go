package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
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
		require.Equal(t, "600;refresher=uac", value(ok, "Session-Expires"))
		require.Equal(t, "timer", value(ok, "Require"))
		time.Sleep(time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.Equal(t, dialog.DialogStateEstablished, callee.State())
		require.InDelta(t, 12, len(w.sent("10.0.0.1", "UPDATE")), 1)
		require.Equal(t, "600;refresher=uac", value(w.sent("10.0.0.1", "UPDATE")[0].msg, "Session-Expires"))
		require.Empty(t, w.sent("10.0.0.2", "UPDATE"), "one side refreshes")
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// FD12. RFC 4028 9: Require: timer is a MUST where the peer refreshes, and a SHOULD
// where we do, if the peer knows of it.
func TestRequireTimerGoesWithTheAnswerToWhoKnowsIt(t *testing.T) {
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
				require.Equal(t, c.want, value(res, "Session-Expires"), "%v", c)
				require.Equal(t, c.require, value(res, "Require"), "%v", c)
			}
			l.hangUp(p)
		})
	}
}

// Zero obeys when asked and never asks.
func TestNoTimerUnlessSomebodyAsks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, _ := w.established(a, b)
		require.Empty(t, value(w.sent("10.0.0.1", "INVITE")[0].msg, "Session-Expires"))
		require.Empty(t, value(w.sent("10.0.0.2", "200 INVITE")[0].msg, "Session-Expires"))
		require.Contains(t, value(w.sent("10.0.0.1", "INVITE")[0].msg, "Supported"), "timer")
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
		require.Equal(t, "1800;refresher=uac", value(re.Message, "Session-Expires"))
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
			require.Equal(t, "BYE", describe(got.Message))
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
			require.Equal(t, "90;refresher=uac", value(res, "Session-Expires"))
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
			require.Equal(t, "120;refresher=uac", value(p.final("UPDATE"), "Session-Expires"))
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
			switch describe(got.Message) {
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
		require.Equal(t, "600", value(w.sent("10.0.0.2", "422 INVITE")[0].msg, "Min-SE"))
		invites := w.sent("10.0.0.1", "INVITE")
		require.Len(t, invites, 2)
		require.Equal(t, "120", value(invites[0].msg, "Session-Expires"))
		require.Equal(t, "600", value(invites[1].msg, "Session-Expires"))
		require.Equal(t, "600", value(invites[1].msg, "Min-SE"))
		require.Equal(t, "2 INVITE", value(invites[1].msg, "CSeq"))
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
			require.Equal(t, minSE, value(re.Message, "Min-SE"))
			require.Equal(t, interval+";refresher=uac", value(re.Message, "Session-Expires"))
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
		for range 3 {
			refused()
		}
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

// A refresh while the peer holds the call is no choice of the application's: when
// the peer resumes, so do we.
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
