package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// longSDP is an offer that makes a request too long for UDP (RFC 3261 18.1.1).
var longSDP = offerSDP + strings.Repeat("a=x\r\n", 300)

// ways says how the requests that ip has sent went: "ACK TCP 10.0.0.9:5060".
func (w *world) ways(ip string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, m := range w.log {
		if _, ok := m.msg.(*sip.Request); ok && m.from.Addr().String() == ip {
			list = append(list, fmt.Sprint(describe(m.msg), " ", m.msg.Via().Transport, " ", m.to))
		}
	}
	return list
}

// serve answers each request that a stream brings until it ends; an INVITE gets
// these headers.
func (s *stream) serve(p *peer, headers ...string) {
	for {
		if _, err := s.r.Peek(1); err != nil {
			return
		}
		req, ok := s.read().msg.(*sip.Request)
		if !ok || req.Method == sip.ACK {
			continue
		}
		res := dialogtest.Response{Code: 200, ToTag: farTag}
		if req.Method == sip.INVITE {
			res.Headers, res.Body = headers, answerSDP
		}
		s.write(p.Response(req, res))
	}
}

// servesTCP serves all streams that are opened to an address.
func (w *world) servesTCP(p *peer, address string, headers ...string) {
	opened := w.accepts(address)
	go func() {
		for {
			select {
			case s := <-opened:
				go s.serve(p, headers...)
			case <-w.t.Context().Done():
				return
			}
		}
	}()
}

// FD8: the ACK to an INVITE that went by TCP for its size, and what followed, went
// by UDP: what was short overtook what was long.
func TestWhatFollowsALongInviteStaysOnItsConnection(t *testing.T) {
	at := peerIP + ":5060"
	for name, c := range map[string]struct {
		headers []string
		config  func(*dialog.StackConfig)
		target  sip.Uri
		stays   bool
	}{
		"Contact without a transport": {headers: []string{"Contact: <sip:peer@" + at + ">"}, stays: true},
		"without a port":              {headers: []string{"Contact: <sip:peer@" + peerIP + ">"}, stays: true},
		"UDP by name":                 {headers: []string{"Contact: <sip:peer@" + at + ";transport=UDP>"}, stays: true},
		"a route":                     {headers: []string{"Record-Route: <sip:" + peerIP + ";lr;ftag=x>", "Contact: <sip:peer@" + otherIP + ">"}, stays: true},
		"a route by name": {
			headers: []string{"Record-Route: <sip:proxy.test;r2=on;lr>", "Contact: <sip:peer@" + otherIP + ">"}, stays: true,
			config: func(c *dialog.StackConfig) {
				c.Resolver = nil
				c.OutboundProxy = &sip.Uri{Scheme: "sip", Host: "Proxy.test"}
			}, target: uri("bob", "example.test"),
		},
		"listens on TCP too": {headers: []string{"Contact: <sip:peer@" + at + ">"}, config: alsoTCP, stays: true},
		"another port":       {headers: []string{"Contact: <sip:peer@" + peerIP + ":5070>"}},
		"another host":       {headers: []string{"Contact: <sip:peer@" + otherIP + ":5060>"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.net.Name("proxy.test", peerIP)
				config := func(*dialog.StackConfig) {}
				if c.config != nil {
					config = c.config
				}
				a, p := w.stack(stackIP, config), w.peer(peerIP)
				if c.target.Host == "" {
					c.target = uri("bob", peerIP)
				}
				w.servesTCP(p, at, c.headers...)
				d, err := a.NewInvite(context.Background(), c.target, offer(longSDP))
				require.NoError(t, err)
				call := d.(*dialog.Dialog)
				require.NoError(t, call.WaitAnswer(context.Background()))
				if !c.stays {
					synctest.Wait()
					for _, way := range w.ways(stackIP)[1:] {
						require.Contains(t, way, " UDP ")
					}
					require.NoError(t, call.Close())
					return
				}
				require.NoError(t, call.SendInfo(context.Background(), nil))
				require.NoError(t, call.Bye(context.Background(), ""))
				require.Equal(t, []string{"INVITE TCP " + at, "ACK TCP " + at, "INFO TCP " + at, "BYE TCP " + at}, w.ways(stackIP))
			})
		})
	}
}

// FD8: a re-INVITE, too, of either side's call; and an UPDATE.
func TestWhatFollowsALongReInviteStaysOnItsConnection(t *testing.T) {
	at := peerIP + ":5060"
	for name, make := range map[string]func(w *world, s *dialog.Stack, p *peer) *peerCall{
		"caller": func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.outgoing(s, p) },
		"callee": func(w *world, s *dialog.Stack, p *peer) *peerCall { return w.incoming(s, p) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				l := make(w, s, p)
				w.servesTCP(p, at)
				before := len(w.ways(stackIP))
				require.NoError(t, l.d.ReInvite(context.Background(), offer(longSDP)))
				require.NoError(t, l.d.ReInvite(context.Background(), offer(offerSDP)))
				_, err := l.d.Update(context.Background(), nil)
				require.NoError(t, err)
				require.NoError(t, l.d.Bye(context.Background(), ""))
				require.Equal(t, []string{
					"INVITE TCP " + at, "ACK TCP " + at, "INVITE TCP " + at, "ACK TCP " + at, "UPDATE TCP " + at, "BYE TCP " + at,
				}, w.ways(stackIP)[before:])
			})
		})
	}
}

// A connection that is lost is followed by what the next hop says: UDP.
func TestWhatFollowsALongInviteGoesByUDPOnceItsConnectionIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		opened := w.accepts(p.Addr().String())
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(longSDP))
		require.NoError(t, err)
		conn := <-opened
		invite := conn.next("INVITE")
		answer := p.Response(request(invite.msg), dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		conn.write(answer)
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		conn.next("ACK")
		require.NoError(t, conn.Close())
		synctest.Wait()
		// The ACK to the 200 that comes again finds its way.
		require.NoError(t, p.Send(a.Addr(), answer))
		p.next("ACK")
		require.Equal(t, p.Addr(), (&peerCall{w: w, peer: p, d: d.(*dialog.Dialog)}).ends().to)
		require.Contains(t, w.ways(stackIP), "BYE UDP "+peerIP+":5060")
	})
}

// An early dialog's requests, and the CANCEL, stay as well.
func TestPRACKOfALongInviteStaysOnItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		opened := w.accepts(p.Addr().String())
		d, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(longSDP))
		require.NoError(t, err)
		conn := <-opened
		invite := request(conn.next("INVITE").msg)
		for _, tag := range []string{"one", "two"} {
			conn.write(p.Response(invite, dialogtest.Response{Code: 183, ToTag: tag, Headers: []string{"Require: 100rel", "RSeq: 1"}, Body: answerSDP}))
			conn.write(p.Response(request(conn.next("PRACK").msg), dialogtest.Response{Code: 200}))
		}
		require.NoError(t, d.Close())
		conn.write(p.Response(request(conn.next("CANCEL").msg), dialogtest.Response{Code: 200}))
		conn.write(p.Response(invite, dialogtest.Response{Code: 487, ToTag: "one"}))
		conn.next("ACK")
		synctest.Wait()
	})
}

// FD9: a connection was left for UDP because the Contact did not name its
// transport.
func TestRequestsToACallerWhoseContactNamesNoTransportGoByItsConnection(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		stays bool
	}{
		"port":            {[]string{"Contact: <sip:peer@" + peerIP + ":5060>"}, true},
		"no port":         {[]string{"Contact: <sip:peer@" + peerIP + ">"}, true},
		"maddr":           {[]string{"Contact: <sip:peer@phone.invalid;maddr=" + peerIP + ">"}, true},
		"its proxy":       {[]string{"Record-Route: <sip:" + peerIP + ";lr>", "Contact: <sip:peer@" + otherIP + ">"}, true},
		"UDP by name":     {[]string{"Contact: <sip:peer@" + peerIP + ";transport=udp>"}, false},
		"UDP in capitals": {[]string{"Contact: <sip:peer@" + peerIP + ";Transport=UDP>"}, false},
		"another host":    {[]string{"Contact: <sip:peer@" + otherIP + ">"}, false},
		"another's maddr": {[]string{"Contact: <sip:peer@" + peerIP + ";maddr=" + otherIP + ">"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, alsoTCP), w.peer(peerIP)
				l := w.incomingTCP(b, p, withHeaders(c.lines...))
				bye := l.ends()
				require.Equal(t, c.stays, bye.to.String() == l.conn.LocalAddr().String())
				require.Equal(t, c.stays, strings.HasPrefix(bye.value(t, "Via"), "SIP/2.0/TCP "))
			})
		})
	}
}

func TestRequestsToACallerWhoseContactNamesNoTransportGoByUDPOnceItsConnectionIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, alsoTCP), w.peer(peerIP)
		l := w.incomingTCP(b, p, withHeaders("Contact: <sip:peer@"+peerIP+":5060>"))
		require.NoError(t, l.conn.Close())
		synctest.Wait()
		bye := l.ends()
		require.Equal(t, p.Addr(), bye.to)
		require.True(t, strings.HasPrefix(bye.value(t, "Via"), "SIP/2.0/UDP "))
	})
}

// FD9: so it is with TLS, where leaving the connection would mean to speak in the
// clear.
func TestRequestsToATLSCallerWhoseContactNamesNoTransportGoByItsConnection(t *testing.T) {
	for _, contact := range []string{peerIP + ":5061", peerIP} {
		bubble(t, func(t *testing.T, w *world) {
			secure := testcert.New(t)
			b := w.stack(stackIP, func(c *dialog.StackConfig) {
				c.Listeners = []dialog.TransportConfig{{Protocol: "tls", Address: stackIP, Port: 5061, TLSConfig: secure.Server(stackIP)}}
			})
			a := w.site(peerIP, "tls", secure)
			calls := waiting(b)
			opts := offer(offerSDP)
			opts.Contact = &sip.Uri{Scheme: "sip", User: "peer", Host: contact}
			d, err := a.NewInvite(context.Background(), testkit.URIOver("tls", "bob", b.Addrs()[1]), opts)
			require.NoError(t, err)
			callee := <-calls
			require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			time.Sleep(time.Second)
			require.NoError(t, callee.SendInfo(context.Background(), nil))
			require.Equal(t, "TLS", a.messages(false, "INFO")[0].Transport)
			require.NoError(t, callee.Bye(context.Background(), ""))
			dialled, accepted := a.host.connections()
			require.Equal(t, [2]int{1, 0}, [2]int{dialled, accepted})
		})
	}
}
