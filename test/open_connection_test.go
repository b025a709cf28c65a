package test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
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
			list = append(list, fmt.Sprint(testkit.Describe(m.msg), " ", m.msg.Via().Transport, " ", m.to))
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
func TestRequestsAfterALongInviteStayOnItsConnection(t *testing.T) {
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
func TestRequestsAfterALongReInviteStayOnItsConnection(t *testing.T) {
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
func TestRequestsAfterALongInviteGoByUDPOnceItsConnectionIsLost(t *testing.T) {
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
			synctest.Wait()
			require.NoError(t, callee.SendInfo(context.Background(), nil))
			require.Equal(t, "TLS", a.messages(false, "INFO")[0].Transport)
			require.NoError(t, callee.Bye(context.Background(), ""))
			dialled, accepted := a.host.connections()
			require.Equal(t, [2]int{1, 0}, [2]int{dialled, accepted})
		})
	}
}

// cut is a call between a phone behind a router, which has connected to a server, and
// that server; a request that is not answered leaves it as it is.
func (w *world) cut(ca *testcert.Authority, transport string, keepAlive time.Duration) (router *dialogtest.NAT, phone, server *dialog.Dialog) {
	w.t.Helper()
	over := func(ip string) func(*dialog.StackConfig) {
		return func(c *dialog.StackConfig) {
			c.Transport.Protocol, c.KeepUnanswered, c.FlowKeepAlive = transport, true, keepAlive
			if testkit.IsSecure(transport) {
				c.Transport.TLSConfig, c.TLS = ca.Server(ip), ca.Client()
			}
		}
	}
	router = w.net.NAT(routerIP, dialogtest.NATConfig{})
	phone, server = w.established(w.behind(router, phoneIP, over(phoneIP)), w.stack(serverIP, over(serverIP)))
	return router, phone, server
}

// info sends an INFO, and returns what came of it and how long that took.
func info(d *dialog.Dialog) (time.Duration, error) {
	began := time.Now()
	err := d.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x")))
	return time.Since(began), err
}

// FN8: of a connection that has died without a word one request is the victim; the next
// goes by a new one, and so does what comes back.
func TestTheRequestAfterOneThatTimedOutGoesByANewConnection(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				router, phone, server := w.cut(ca, transport, -1)
				router.Forget()
				took, err := info(phone)
				require.ErrorIs(t, err, dialog.ErrTimeout)
				require.Equal(t, 32*time.Second, took)
				took, err = info(phone)
				require.NoError(t, err)
				require.Zero(t, took)
				_, err = info(server)
				require.NoError(t, err)
			})
		})
	}
}

// A request to a peer that accepts no connections uses the open connection, and does not wait
// once that is known to be dead.
func TestNothingWaitsLongForAConnectionThatIsDead(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				router, phone, server := w.cut(ca, transport, -1)
				router.Forget()
				first := began(func() error { _, err := info(server); return err })
				time.Sleep(30 * time.Second)
				took, err := info(server)
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.Equal(t, 12*time.Second, took, "the first one's timeout, and ten seconds")
				require.ErrorIs(t, <-first, dialog.ErrTimeout)
				took, err = info(server)
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.Zero(t, took)
				require.Equal(t, dialog.DialogStateEstablished, server.State())

				_, _ = info(phone) // finds out, too
				_, err = info(phone)
				require.NoError(t, err)
				_, err = info(server)
				require.NoError(t, err)
			})
		})
	}
}

// breaks makes a call over TCP whose connections break, once, when the callee has
// read such a request and before it can answer it.
func (w *world) breaks(method string) (caller, callee *dialog.Dialog) {
	var on atomic.Bool
	tcp := func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" }
	a := w.stack("10.0.0.1", tcp)
	b := w.stack("10.0.0.2", tcp, func(c *dialog.StackConfig) {
		c.Trace = func(e dialog.TraceEvent) {
			if !e.Outbound && strings.HasPrefix(string(e.Data), method+" ") && on.CompareAndSwap(true, false) {
				w.net.BreakStreams()
			}
		}
	})
	caller, callee = w.established(a, b)
	on.Store(true)
	return caller, callee
}

// RFC 3263 4.3: a request whose connection breaks before any response is sent once more,
// identical but for its branch. A peer that has read the first copy does nothing twice: the
// CSeq is not new (RFC 3261 12.2.2).
func TestARequestRepeatedOnANewConnectionIsHandledOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("INFO")
		var handled atomic.Int32
		require.NoError(t, callee.OnRequest("INFO", func(context.Context, *sip.Request) dialog.Answer {
			handled.Add(1)
			return dialog.Answer{}
		}))
		// The answer to the first may come by a connection that the peer makes,
		// before the loss is seen here.
		if err := caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("once"))); err != nil {
			var refused *dialog.ResponseError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 500, refused.StatusCode)
			sent := w.sent("10.0.0.1", "INFO")
			require.Len(t, sent, 2)
			require.Equal(t, request(sent[0].msg).CSeq().SeqNo, request(sent[1].msg).CSeq().SeqNo)
			require.NotEqual(t, testkit.BranchOf(sent[0].msg), testkit.BranchOf(sent[1].msg))
		}
		synctest.Wait()
		require.EqualValues(t, 1, handled.Load())
		require.NoError(t, caller.Bye(context.Background(), ""))
		<-callee.Done()
	})
}
