package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// A restored call of either role, on each transport and IP version: the peer, or the
// restored side, offers anew and hangs up. Connections are lost with the process; over a
// WebSocket the client has to speak first (RFC 7118 5).
func TestRestoredCallsOnAllTransports(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range testkit.AllTransports() {
		for _, ips := range [][2]string{{stackIP, peerIP}, {"fd00::1", "fd00::9"}} {
			for _, caller := range []bool{true, false} {
				for _, speaks := range []string{"the peer", "the restored side"} {
					if testkit.IsWS(transport) && caller == (speaks == "the peer") {
						continue // a client accepts no connections
					}
					name := transport + " " + ips[0] + ", "
					if caller {
						name += "calling, "
					}
					t.Run(name+speaks+" speaks", func(t *testing.T) {
						bubble(t, func(t *testing.T, w *world) {
							w.restoredOver(transport, ips, ca, caller, speaks == "the peer")
						})
					})
				}
			}
		}
	}
}

func (w *world) restoredOver(transport string, ips [2]string, ca *testcert.Authority, caller, peerSpeaks bool) {
	w.t.Helper()
	ctx := context.Background()
	here, far := w.site(ips[0], transport, ca), w.site(ips[1], transport, ca)
	from, to := far, here
	if caller {
		from, to = here, far
	}
	theirs, ours := w.connectedOver(from, to)
	if caller {
		theirs, ours = ours, theirs
	}
	text := w.written(ours)
	w.crash(here.Stack)
	again := w.site(ips[0], transport, ca)
	ours = w.restored(again.Stack, text)
	speakers := []*dialog.Dialog{ours, theirs}
	if peerSpeaks {
		speakers = []*dialog.Dialog{theirs, ours}
	}
	for _, d := range speakers {
		require.NoError(w.t, d.SendInfo(ctx, nil))
		require.NoError(w.t, d.ReInvite(ctx, offer(versioned(offerSDP, 5))))
		require.NoError(w.t, d.Hold(ctx))
		synctest.Wait()
	}
	require.NoError(w.t, speakers[1].Bye(ctx, ""))
	synctest.Wait()
	for _, d := range speakers {
		require.Equal(w.t, dialog.DialogStateTerminated, d.State())
	}
}

// connectedOver makes a call between two sites.
func (w *world) connectedOver(from, to *site) (caller, callee *dialog.Dialog) {
	w.t.Helper()
	calls := waiting(to.Stack)
	placed, err := from.NewInvite(context.Background(), to.uri("bob"), offer(offerSDP))
	require.NoError(w.t, err)
	callee = <-calls
	require.NoError(w.t, callee.Accept(context.Background(), withSDP(answerSDP)))
	caller = placed.(*dialog.Dialog)
	require.NoError(w.t, caller.WaitAnswer(context.Background()))
	synctest.Wait()
	return caller, callee
}

// A first hop that routes strictly stays the Request-URI (RFC 3261 12.2.1.1).
func TestRestoredCallBehindAStrictRouter(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		proxy := w.peer(proxyIP)
		l := w.incoming(s, p, withHeaders("Record-Route: <sip:10.0.0.7:5060>", "Record-Route: <sip:10.0.0.9:5060;lr>"))
		l.restart()
		bye := l.hangUp(proxy)
		require.Equal(t, "BYE sip:10.0.0.7:5060 SIP/2.0", bye.startLine())
		require.Equal(t, []string{"<sip:10.0.0.9:5060;lr>", "<sip:peer@10.0.0.9:5060>"}, bye.values("Route"))
	})
}

// A peer behind a NAT is reached where its messages came from, not by its Contact.
func TestRestoredCallBehindANAT(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		always := func(c *dialog.StackConfig) { c.NAT = dialog.NATAlways }
		s, p := w.stack(stackIP, always), w.peer(peerIP)
		l := w.incoming(s, p, withHeaders("Contact: <sip:peer@192.168.1.7:5062>"))
		l.restart(always)
		bye := l.hangUp(p)
		require.Equal(t, "BYE sip:peer@192.168.1.7:5062 SIP/2.0", bye.startLine())
		require.Equal(t, p.Addr(), bye.to)
	})
}

// The socket is the one that the call went by: a NAT lets nothing else through.
func TestRestoredCallGoesByItsSocket(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		two := func(c *dialog.StackConfig) {
			c.NAT = dialog.NATAlways
			c.Listeners = []dialog.TransportConfig{{Protocol: "udp", Address: stackIP, Port: 5070}}
		}
		s, p := w.stack(stackIP, two), w.peer(peerIP)
		calls := waiting(s)
		second := s.Addrs()[1]
		require.NoError(t, p.Send(second, p.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:service@" + second.String(), FromTag: farTag, Headers: []string{"Contact: <sip:peer@192.168.1.7>"}, Body: offerSDP,
		})))
		d := <-calls
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		final := p.next("200 INVITE").Response()
		require.NoError(t, p.Send(second, p.Request(dialogtest.Request{
			Method: "ACK", URI: contactOf(final), FromTag: farTag, To: final.To().Address.String(), ToTag: testkit.ToTag(final),
		})))
		synctest.Wait()
		text := w.written(d)
		w.crash(s)
		d = w.restored(w.stack(stackIP, two), text)
		hangUp(t, d, p)
		require.Equal(t, second, w.one(stackIP, "BYE").from)
	})
}

// A restored session timer continues; a session that expired in the meantime is refreshed
// once, immediately, whichever side the refresher was.
func TestRestoredSessionTimer(t *testing.T) {
	const expires = 60 * time.Second // of an interval of 90 s (RFC 4028 10)
	for name, c := range map[string]struct {
		refresher      string
		away           time.Duration
		least, longest time.Duration // until a refresh of ours; zero: none comes
	}{
		"our refresh is due":     {"uas", 10 * time.Second, 35 * time.Second, 35 * time.Second},
		"our refresh is overdue": {"uas", 50 * time.Second, 0, 2 * time.Second},
		"it has expired":         {"uas", 10 * time.Minute, 0, 2 * time.Second},
		"it has expired, theirs": {"uac", 10 * time.Minute, 0, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				l := w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher="+c.refresher, "Allow: INVITE, UPDATE"))
				text := w.written(l.d)
				w.crash(s)
				time.Sleep(c.away)
				l.d = w.restored(w.stack(stackIP), text)
				began := time.Now()
				in := p.next("UPDATE")
				require.LessOrEqual(t, time.Since(began), c.longest)
				require.GreaterOrEqual(t, time.Since(began), c.least)
				p.reply(in, granted(""))
				time.Sleep(40 * time.Second)
				require.Equal(t, dialog.DialogStateEstablished, l.d.State())
				hangUp(t, l.d, p)
			})
		})
	}
	t.Run("the peer's refresh does not come", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s, p := w.stack(stackIP), w.peer(peerIP)
			l := w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uac"))
			began := time.Now()
			l.restart()
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			require.Equal(t, expires, time.Since(began).Round(time.Second))
			<-l.d.Done()
			require.Equal(t, "timeout BYE session expired", l.d.Cause().String())
		})
	})
	t.Run("it has expired, and the peer knows no call", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			s, p := w.stack(stackIP), w.peer(peerIP)
			l := w.incoming(s, p, withHeaders("Supported: timer", "Session-Expires: 90;refresher=uas", "Allow: INVITE, UPDATE"))
			text := w.written(l.d)
			w.crash(s)
			time.Sleep(time.Hour)
			l.d = w.restored(w.stack(stackIP), text)
			p.reply(p.next("UPDATE"), dialogtest.Response{Code: 481})
			p.reply(p.next("BYE"), dialogtest.Response{Code: 481})
			<-l.d.Done()
			synctest.Wait()
			require.Empty(t, w.stacks[0].Dialogs())
		})
	})
}
