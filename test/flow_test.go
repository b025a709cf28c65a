package test

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// overTCP is a peer's text as it says it on a stream.
func overTCP(text string) string { return strings.Replace(text, "SIP/2.0/UDP", "SIP/2.0/TCP", 1) }

func withTCP(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" }

// alsoTCP has a stack listen on UDP and TCP.
func alsoTCP(c *dialog.StackConfig) {
	c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: c.Transport.Address, Port: c.Transport.Port}}
}

// accepts listens for streams and returns those that are opened.
func (w *world) accepts(address string) <-chan *stream {
	w.t.Helper()
	host, _, err := net.SplitHostPort(address)
	require.NoError(w.t, err)
	listener, err := w.net.Host(host).Listen(context.Background(), "tcp", address)
	require.NoError(w.t, err)
	opened := make(chan *stream, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			opened <- &stream{Conn: conn, t: w.t, r: bufio.NewReader(conn)}
		}
	}()
	return opened
}

// next returns the next message on a stream that is what the test expects.
func (s *stream) next(what string) wire {
	s.t.Helper()
	require.NoError(s.t, s.SetReadDeadline(time.Now().Add(2*time.Minute)))
	for {
		if m := s.read(); testkit.Describe(m.msg) == what {
			return m
		}
	}
}

// streamCall is a peerCall whose INVITE went over a stream.
type streamCall struct {
	*peerCall
	conn *stream
}

// say sends the peer's next request inside the dialog on the stream.
func (l *streamCall) say(method string, change ...func(*dialogtest.Request)) {
	l.t.Helper()
	l.conn.write(overTCP(l.Request(l.made(method, change...))))
}

// incomingTCP has the peer call the stack by TCP, and the call is answered.
func (w *world) incomingTCP(b *dialog.Stack, p *peer, change ...func(*dialogtest.Request)) *streamCall {
	w.t.Helper()
	conn, err := w.net.Host(p.ip).DialContext(context.Background(), "tcp", b.Addr().String())
	require.NoError(w.t, err)
	calls := make(chan dialog.IDialog, 1)
	b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
	l := &streamCall{conn: &stream{Conn: conn, t: w.t, r: bufio.NewReader(conn)}, peerCall: &peerCall{
		peer: p, w: w, stack: b.Addr(), tag: farTag,
		stackURI: "sip:service@" + b.Addr().String(), peerURI: "sip:caller@" + p.Addr().String(),
	}}
	l.target = l.stackURI
	l.say("INVITE", append(change, withBody(offerSDP))...)
	l.d = (<-calls).(*dialog.Dialog)
	require.NoError(w.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
	ok := l.conn.next("200 INVITE")
	l.callID, l.stackTag, l.target = ok.msg.CallID().Value(), testkit.ToTag(ok.msg), contactOf(ok.msg)
	l.say("ACK", func(r *dialogtest.Request) { r.CSeq = 1 })
	synctest.Wait()
	return l
}

// outgoingTCP has the stack call the peer, which takes it by TCP.
func (w *world) outgoingTCP(a *dialog.Stack, p *peer, headers ...string) *streamCall {
	w.t.Helper()
	opened := w.accepts(p.Addr().String())
	target := uri("bob", p.ip)
	target.UriParams.Add("transport", "tcp")
	d, err := a.NewInvite(context.Background(), target, offer(offerSDP))
	require.NoError(w.t, err)
	conn := <-opened
	invite := conn.next("INVITE")
	conn.write(p.Response(request(invite.msg), dialogtest.Response{Code: 200, ToTag: farTag, Headers: headers, Body: answerSDP}))
	l := &streamCall{conn: conn, peerCall: &peerCall{peer: p, w: w, d: d.(*dialog.Dialog)}}
	require.NoError(w.t, l.d.WaitAnswer(context.Background()))
	synctest.Wait()
	require.Empty(w.t, opened, "one connection")
	return l
}

// ends has the stack send BYE, and returns where that went.
func (l *peerCall) ends() wire {
	l.t.Helper()
	result := began(func() error { return l.d.Bye(context.Background(), "") })
	synctest.Wait()
	bye := l.w.last(stackIP, "BYE")
	<-result // no response
	return bye
}

// contactTCP is a Contact of the peer that is not used while its connection is open.
const contactTCP = "Contact: <sip:peer@" + peerIP + ":5070;transport=tcp>"

func TestRequestsToACallerGoByItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, withTCP), w.peer(peerIP)
		elsewhere := w.accepts(peerIP + ":5070")
		l := w.incomingTCP(b, p, withHeaders(contactTCP))
		require.NoError(t, l.d.Refer(context.Background(), uri("c", otherIP), dialog.ReferOpts{}))
		require.Equal(t, "REFER sip:peer@"+peerIP+":5070;transport=tcp SIP/2.0", l.conn.next("REFER").startLine())
		require.Equal(t, l.conn.LocalAddr().String(), l.ends().to.String())
		l.conn.next("BYE")
		require.Empty(t, elsewhere)
	})
}

func TestRequestsToACalleeGoByTheConnectionOfTheInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, withTCP), w.peer(peerIP)
		l := w.outgoingTCP(a, p, "Contact: <sip:peer@"+peerIP+":5060;transport=tcp>")
		l.conn.next("ACK")
		first := w.one(stackIP, "INVITE")
		bye := l.ends()
		require.Equal(t, first.from, bye.from)
		require.Equal(t, first.to, bye.to)
		require.Equal(t, bye.from, w.one(stackIP, "ACK").from)
		l.conn.next("BYE")
	})
}

// A callee that names another port is not the next hop that the INVITE had.
func TestRequestsToACalleeOnAnotherPortGoThere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, withTCP), w.peer(peerIP)
		there := w.accepts(peerIP + ":5070")
		l := w.outgoingTCP(a, p, contactTCP)
		conn := <-there
		require.Equal(t, conn.RemoteAddr().String(), l.ends().from.String())
		conn.next("ACK")
		conn.next("BYE")
		require.Empty(t, there)
	})
}

func TestRequestsToACallerWhoseConnectionIsLostGoToItsContact(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, withTCP), w.peer(peerIP)
		elsewhere := w.accepts(peerIP + ":5070")
		l := w.incomingTCP(b, p, withHeaders(contactTCP))
		require.NoError(t, l.conn.Close())
		synctest.Wait()
		require.Equal(t, peerIP+":5070", l.ends().to.String())
		(<-elsewhere).next("BYE")
	})
}

// The next hop is the first route: it is asked where a request goes, not the
// peer.
func TestConnectionIsLeftWhenARecordedRouteLeadsElsewhere(t *testing.T) {
	route := "Record-Route: <sip:" + proxyIP + ":5060;transport=tcp;lr>"
	for name, call := range map[string]func(w *world) *streamCall{
		"caller": func(w *world) *streamCall {
			return w.incomingTCP(w.stack(stackIP, withTCP), w.peer(peerIP), withHeaders(route, contactTCP))
		},
		"callee": func(w *world) *streamCall {
			return w.outgoingTCP(w.stack(stackIP, withTCP), w.peer(peerIP), route, contactTCP)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				proxy := w.accepts(proxyIP + ":5060")
				l := call(w)
				require.Equal(t, proxyIP+":5060", l.ends().to.String())
				require.Len(t, proxy, 1)
				bye := (<-proxy).next("BYE")
				require.Equal(t, "BYE sip:peer@"+peerIP+":5070;transport=tcp SIP/2.0", bye.startLine())
			})
		})
	}
}

// A call that came by a proxy's connection goes back by it.
func TestConnectionOfTheProxyThatRecordedItselfIsUsed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, proxy := w.stack(stackIP, withTCP), w.peer(proxyIP)
		route := "Record-Route: <sip:" + proxyIP + ";transport=tcp;lr>"
		l := w.incomingTCP(b, proxy, withHeaders(route, contactTCP))
		require.Equal(t, l.conn.LocalAddr().String(), l.ends().to.String())
	})
}

// publicIP is where the messages of a peer behind a NAT come from, privateIP
// where it believes to be.
const (
	publicIP  = "198.51.100.7"
	privateIP = "192.168.1.5"
)

// natCase says whether the peer is found at its source rather than its Contact.
type natCase struct {
	name    string
	policy  dialog.NATPolicy
	source  string
	contact string
	headers []string
	found   bool
}

var natCases = []natCase{
	{"auto, private behind public", dialog.NATAuto, publicIP, privateIP, nil, true},
	{"auto, private and private", dialog.NATAuto, peerIP, privateIP, nil, false},
	{"auto, public and public", dialog.NATAuto, publicIP, "203.0.113.5", nil, false},
	{"never", dialog.NATNever, publicIP, privateIP, nil, false},
	{"always, private and private", dialog.NATAlways, peerIP, privateIP, nil, true},
	{"always, public and public", dialog.NATAlways, publicIP, "203.0.113.5", nil, true},
	{"always, a name", dialog.NATAlways, publicIP, "phone.example", nil, true},           // FN10
	{"auto, of a provider's network", dialog.NATAuto, publicIP, "100.64.1.2", nil, true}, // FN9
	{"auto, the last one of it", dialog.NATAuto, publicIP, "100.127.255.254", nil, true},
	{"auto, behind the provider's network", dialog.NATAuto, "100.64.1.2", privateIP, nil, true},
	{"auto, both in the provider's network", dialog.NATAuto, "100.64.1.2", "100.64.1.3", nil, false},
	{"auto, of a link", dialog.NATAuto, publicIP, "169.254.3.4", nil, true},
	{"auto, of a link, in a site", dialog.NATAuto, peerIP, "169.254.3.4", nil, true},
	{"auto, of a link by IPv6", dialog.NATAuto, publicIP, "[fe80::1]", nil, true},
	{"auto, of a site by IPv6", dialog.NATAuto, publicIP, "[fd00::1]", nil, true},
	{"auto, its loopback", dialog.NATAuto, publicIP, "127.0.0.1", nil, true},
	{"auto, none", dialog.NATAuto, publicIP, "0.0.0.0", nil, true},
	{"auto, nobody's name", dialog.NATAuto, publicIP, "x7f3.invalid", nil, true},
}

// viaNAT is a peer that speaks from a port that a NAT has chosen.
func (w *world) viaNAT(ip string, port uint16) *peer {
	w.t.Helper()
	e, err := dialogtest.NewEndpoint(w.net.Host(ip), netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = e.Close() })
	return &peer{Endpoint: e, t: w.t, ip: ip}
}

// reached checks where the stack sends its requests in a call.
func (c natCase) reached(t *testing.T, l *peerCall) {
	t.Helper()
	want := l.Addr()
	if !c.found {
		want = netip.MustParseAddrPort(c.contact + ":5060")
	}
	bye := l.ends()
	require.Equal(t, want, bye.to)
	require.Equal(t, "BYE sip:peer@"+c.contact+":5060 SIP/2.0", bye.startLine(), "the target stays")
	for _, ack := range l.w.sent(stackIP, "ACK") {
		require.Equal(t, want, ack.to)
	}
}

func TestCallerBehindANATIsFoundAtItsSource(t *testing.T) {
	cases := append(natCases[:len(natCases):len(natCases)],
		natCase{"auto, by a proxy", dialog.NATAuto, publicIP, privateIP, []string{"Via: SIP/2.0/UDP 192.168.1.5;branch=z9hG4bKfirst"}, false})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(s *dialog.StackConfig) { s.NAT = c.policy })
				contact := "Contact: <sip:peer@" + c.contact + ":5060>"
				c.reached(t, w.incoming(b, w.viaNAT(c.source, 31337), withHeaders(append(c.headers, contact)...)))
			})
		})
	}
}

func TestCalleeBehindANATIsFoundAtItsSource(t *testing.T) {
	for _, c := range natCases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP, func(s *dialog.StackConfig) { s.NAT = c.policy })
				c.reached(t, w.outgoing(a, w.viaNAT(c.source, 5060), "Contact: <sip:peer@"+c.contact+":5060>"))
			})
		})
	}
}

func TestRecordedRouteGoesBeforeTheSourceOfAPeerBehindANAT(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.NAT = dialog.NATAlways })
		l := w.incoming(b, w.viaNAT(publicIP, 31337),
			withHeaders("Record-Route: <sip:"+proxyIP+":5060;lr>", "Contact: <sip:peer@"+privateIP+":5060>"))
		require.Equal(t, proxyIP+":5060", l.ends().to.String())
	})
}

// A peer that has learnt its address, and says so in a re-INVITE, is found there.
func TestPeerThatRefreshesItsTargetIsBehindANATNoLonger(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.viaNAT(publicIP, 31337), withHeaders("Contact: <sip:peer@"+privateIP+":5060>"))
		l.ask("INVITE", withHeaders("Contact: <sip:peer@203.0.113.5:5060>"))
		l.next("200 INVITE")
		l.acknowledge(2)
		synctest.Wait()
		require.Equal(t, "203.0.113.5:5060", l.ends().to.String())
	})
}

// RFC 3261 18.1.1: a long request goes by TCP, but the peer cannot connect back there.
func TestContactOfALongRequestNamesTheListenerThatThereIs(t *testing.T) {
	for name, c := range map[string]struct {
		config  func(*dialog.StackConfig)
		contact string
	}{
		"bound":       {func(*dialog.StackConfig) {}, stackIP + ":5060"},
		"any port":    {func(c *dialog.StackConfig) { c.Transport.Port = 0 }, stackIP + ":49152"},
		"public":      {func(c *dialog.StackConfig) { c.Transport.PublicAddress, c.Transport.PublicPort = publicIP, 7000 }, publicIP + ":7000"},
		"TCP as well": {alsoTCP, stackIP + ":5060;transport=tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP, c.config), w.peer(peerIP)
				opened := w.accepts(p.Addr().String())
				_, err := a.NewInvite(context.Background(), uri("bob", peerIP), offer(offerSDP+strings.Repeat("a=x\r\n", 300)))
				require.NoError(t, err)
				conn := <-opened
				invite := conn.next("INVITE")
				require.True(t, strings.HasPrefix(invite.value(t, "Via"), "SIP/2.0/TCP "))
				require.Equal(t, "<sip:SoftPhone@"+c.contact+">", invite.value(t, "Contact"))
				conn.write(p.Response(request(invite.msg), dialogtest.Response{Code: 486, ToTag: farTag}))
				conn.next("ACK")
			})
		})
	}
}

// FT11: an UPDATE refreshes the target, as a re-INVITE does (RFC 3311 5.2), and with it
// the place where a peer is found that is behind a NAT by now.
func TestAnUpdateFromANewPlaceMovesTheFlow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, moved := w.stack(stackIP), w.viaNAT(publicIP, 4711)
		contact := withHeaders("Contact: <sip:peer@" + privateIP + ":5060>")
		l := w.incoming(b, w.viaNAT(publicIP, 31337), withHeaders("Contact: <sip:peer@"+publicIP+":31337>"))
		require.NoError(t, moved.Send(l.stack, moved.Request(l.made("UPDATE", contact))))
		moved.next("200 UPDATE")
		require.Equal(t, moved.Addr(), l.ends().to)
	})
}

// FT11: who calls from this machine is behind no NAT, whatever its Contact says.
func TestAPeerOnLoopbackIsBehindNoNAT(t *testing.T) {
	c := natCase{"", dialog.NATAuto, "127.0.0.9", privateIP, nil, false}
	bubble(t, func(t *testing.T, w *world) {
		c.reached(t, w.incoming(w.stack(stackIP), w.viaNAT(c.source, 31337), withHeaders("Contact: <sip:peer@"+c.contact+":5060>")))
	})
}

// A request with the branch of another, which a stranger may guess, moves no answer
// unless it is of the same call.
func TestAGuessedBranchMovesNoAnswer(t *testing.T) {
	for name, change := range map[string]func(*dialogtest.Request){
		"Call-ID":  func(r *dialogtest.Request) { r.CallID = "other" },
		"From tag": func(r *dialogtest.Request) { r.FromTag = "other" },
		"CSeq":     func(r *dialogtest.Request) { r.CSeq++ },
		"none":     func(*dialogtest.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p, stranger := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
				calls := waiting(s)
				r := dialogtest.Request{
					Method: "INVITE", URI: "sip:b@" + stackIP, CallID: "call", FromTag: farTag, CSeq: 7,
					Branch: "z9hG4bK-1-0;rport", Body: offerSDP,
				}
				require.NoError(t, p.Send(s.Addr(), p.Request(r)))
				call := <-calls
				change(&r)
				require.NoError(t, stranger.Send(s.Addr(), p.Request(r)))
				synctest.Wait()
				require.NoError(t, call.Accept(context.Background(), withSDP(answerSDP)))
				to := p.Addr()
				if name == "none" {
					to = stranger.Addr() // a router has another binding
				}
				require.Equal(t, to, w.sent(stackIP, "200 INVITE")[0].to)
			})
		})
	}
}
