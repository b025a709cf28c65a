package test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
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

// Where a router, a phone behind it and a server outside live.
const (
	routerIP = "203.0.113.1"
	phoneIP  = "192.168.0.2"
	serverIP = "198.51.100.1"
)

// behind starts a stack on a host behind a router, bound to all its addresses as a
// phone is.
func (w *world) behind(r *dialogtest.NAT, ip string, change ...func(*dialog.StackConfig)) *dialog.Stack {
	w.t.Helper()
	r.Inside().Tap(w.tap)
	return w.stack(ip, append([]func(*dialog.StackConfig){func(c *dialog.StackConfig) {
		c.Network, c.Transport.Address = r.Host(ip), "0.0.0.0"
	}}, change...)...)
}

// FN1: RFC 3581 3: an INVITE over UDP is repeated while it rings, so that the router
// still knows the way back when the callee answers.
func TestACallThatRingsLongerThanTheRouterRemembersIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{}), phoneIP)
		server := w.stack(serverIP)
		ringing := waiting(server)
		d, err := phone.NewInvite(context.Background(), uri("bob", serverIP), offer(offerSDP))
		require.NoError(t, err)
		callee := <-ringing
		time.Sleep(105 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Len(t, times(w.sent(phoneIP, "INVITE")), 6, "one every 20 s")
		require.NoError(t, callee.Bye(context.Background(), ""))
		<-d.(*dialog.Dialog).Done()
	})
}

// FN1: a router that forgets sooner than the INVITE is repeated: the answer goes where
// the repetition comes from (RFC 3581 4).
func TestAnAnswerGoesWhereTheInviteComesFromInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{
			BindingTime: 5 * time.Second, RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent,
		}), phoneIP)
		server := w.stack(serverIP)
		ringing := waiting(server)
		d, err := phone.NewInvite(context.Background(), uri("bob", serverIP), offer(offerSDP))
		require.NoError(t, err)
		callee := <-ringing
		time.Sleep(8 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, callee.Bye(context.Background(), ""))
		<-d.(*dialog.Dialog).Done()
	})
}

// phoneCase is a scripted phone behind a router, in a call with a stack outside.
type phoneCase struct {
	*peerCall
	router *dialogtest.NAT
}

var privateContact = "Contact: <sip:peer@" + phoneIP + ":5060>"

// scripted binds a scripted phone behind a router that takes another port each time.
func (w *world) scripted() (*dialogtest.NAT, *peer) {
	w.t.Helper()
	r := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
	e, err := dialogtest.NewEndpoint(r.Host(phoneIP), phoneIP+":5060")
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = e.Close() })
	return r, &peer{Endpoint: e, t: w.t, ip: phoneIP}
}

// fromPhone is a call that the phone has made.
func (w *world) fromPhone(b *dialog.Stack, headers ...string) *phoneCase {
	w.t.Helper()
	r, p := w.scripted()
	return &phoneCase{w.incoming(b, p, withRport, withHeaders(append(headers, privateContact)...)), r}
}

// withRport has a request answered where it comes from (RFC 3581).
func withRport(r *dialogtest.Request) { r.Branch = "z9hG4bK" + dialog.TagGen() + ";rport" }

// seen is where the phone is seen now.
func (c *phoneCase) seen() string {
	c.t.Helper()
	public, ok := c.router.Binding(c.Addr(), c.stack)
	require.True(c.t, ok)
	return public.String()
}

// byeTo is where the stack's BYE goes.
func (c *phoneCase) byeTo() string {
	c.t.Helper()
	result := began(func() error { return c.d.Bye(context.Background(), "") })
	synctest.Wait()
	bye := c.w.last(serverIP, "BYE")
	<-result // nobody answers
	return bye.to.String()
}

// FN2: the way to a callee behind a NAT is that of its latest response.
func TestACalleeThatAnswersByANewBindingIsReachedThere(t *testing.T) {
	for _, again := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			server := w.stack(serverIP)
			r, p := w.scripted()
			require.NoError(t, p.Send(server.Addr(), "\r\n\r\n")) // as a registered phone does
			public, _ := r.Binding(p.Addr(), server.Addr())
			d, err := server.NewInvite(context.Background(), testkit.URIOver("udp", "peer", public), offer(offerSDP))
			require.NoError(t, err)
			invite := p.next("INVITE")
			p.reply(invite, dialogtest.Response{Code: 180, ToTag: farTag, Headers: []string{privateContact}})
			ok := dialogtest.Response{Code: 200, ToTag: farTag, Headers: []string{privateContact}, Body: answerSDP}
			if again { // the first 200 comes by the old way, and the ACK to it gets lost
				p.reply(invite, ok)
				synctest.Wait()
				p.next("ACK")
			}
			r.Forget()
			p.reply(invite, ok)
			p.next("ACK")
			l := &peerCall{peer: p, w: w, d: d.(*dialog.Dialog)}
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			result := began(func() error { return l.d.Bye(context.Background(), "") })
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		})
	}
}

// FN5: what is still to be said to an INVITE follows its sender: the 200 that no ACK has
// come for, and the answer of a call that rings.
func TestAnswersFollowAPhoneToItsNewBinding(t *testing.T) {
	for _, ringing := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			b := w.stack(serverIP)
			r, p := w.scripted()
			l := w.rings(b, p, withRport, withHeaders(privateContact))
			if !ringing {
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				p.next("200 INVITE")
			}
			r.Forget() // and the ACK gets lost
			l.ask("INFO", withRport)
			if ringing {
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			}
			l.final = p.next("200 INVITE")
			l.acknowledge(1)
			synctest.Wait()
			require.Equal(t, (&phoneCase{l, r}).seen(), (&phoneCase{l, r}).byeTo())
		})
	}
}

// FN5: any request that is in order for its call moves the way to a peer behind a NAT;
// one that is not moves nothing.
func TestAnyRequestInOrderMovesTheWayToAPhone(t *testing.T) {
	for _, method := range []string{"INFO", "OPTIONS", "MESSAGE", "NOTIFY"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := w.fromPhone(w.stack(serverIP))
				c.router.Forget()
				c.ask(method, withRport)
				synctest.Wait()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
	spoofed := map[string]func(*dialogtest.Request){
		"old":       func(r *dialogtest.Request) { r.CSeq = 1 },
		"other tag": func(r *dialogtest.Request) { r.FromTag = "guessed" },
	}
	for name, change := range spoofed {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c, thief := w.fromPhone(w.stack(serverIP)), w.peer(otherIP)
				require.NoError(t, thief.Send(c.stack, thief.Request(c.made("INFO", change))))
				thief.nextAny()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
}

func TestThePolicyKeepsTheWayToAPhone(t *testing.T) {
	for policy, moves := range map[dialog.MovePolicy][2]bool{
		dialog.MoveInOrder:     {true, true},
		dialog.MoveSameAddress: {true, false},
		dialog.MoveNever:       {false, false},
	} {
		for i, ip := range []string{publicIP, otherIP} {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(c *dialog.StackConfig) { c.MoveFlow = policy })
				l, moved := w.incoming(b, w.viaNAT(publicIP, 31337), withHeaders(privateContact)), w.viaNAT(ip, 4711)
				require.NoError(t, moved.Send(l.stack, moved.Request(l.made("OPTIONS"))))
				moved.next("200 OPTIONS")
				want := l.Addr()
				if moves[i] {
					want = moved.Addr()
				}
				require.Equal(t, want, l.ends().to)
			})
		}
	}
	_, err := dialog.NewStack(&dialog.StackConfig{MoveFlow: 7})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// FN4: a phone that does not answer is not looked for at its private address, which is
// somebody else's here; FN6: nor by TCP at its router, however long the request is.
func TestAPhoneThatIsSilentIsNotLookedForElsewhere(t *testing.T) {
	for _, size := range []int{10, 3000} {
		bubble(t, func(t *testing.T, w *world) {
			server := w.stack(serverIP, func(c *dialog.StackConfig) { c.TxTimeout = 10 * time.Second })
			c := w.fromPhone(server)
			c.router.Forget()
			began := time.Now()
			err := c.d.SendInfo(context.Background(), dialog.NewBody("text/plain", make([]byte, size)))
			require.ErrorIs(t, err, dialog.ErrTimeout)
			require.Equal(t, 10*time.Second, time.Since(began))
			<-c.d.Done()
			require.Equal(t, dialog.PartyTimeout, c.d.Cause().By)
			for _, m := range w.sent(serverIP, "INFO") {
				require.Equal(t, routerIP, m.to.Addr().String())
			}
		})
	}
}

// keepAlives counts the datagrams of line ends on a network, by who sends them.
type keepAlives struct {
	mu   sync.Mutex // guards the field below
	from map[string]int
}

func countKeepAlives(n *dialogtest.Network) *keepAlives {
	k := &keepAlives{from: make(map[string]int)}
	n.Tap(func(p dialogtest.Packet) {
		if string(p.Data) == "\r\n\r\n" {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.from[p.From.Addr().String()]++
		}
	})
	return k
}

// sent returns how many were, and begins anew.
func (k *keepAlives) sent(ip string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.from[ip]
	k.from[ip] = 0
	return n
}

// FN12: a call in which nothing is said lasts through a router that forgets silent flows
// after 30 seconds, whichever end is behind it.
func TestASilentCallThroughANATIsKeptOpen(t *testing.T) {
	for _, phoneCalls := range []bool{true, false} {
		for _, off := range []string{"neither", "phone", "server", "both"} {
			t.Run(fmt.Sprintf("phone calls: %v, off: %s", phoneCalls, off), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					keep := func(who string) func(*dialog.StackConfig) {
						return func(c *dialog.StackConfig) {
							if off == who || off == "both" {
								c.FlowKeepAlive = -1
							}
						}
					}
					r := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
					phone, server := w.behind(r, phoneIP, keep("phone")), w.stack(serverIP, keep("server"))
					d := w.throughNAT(r, phone, server, phoneCalls)
					counted := countKeepAlives(w.net)
					time.Sleep(time.Hour)
					_, open := r.Binding(phone.Addr(), server.Addr())
					require.Equal(t, off != "both", open)
					for ip, who := range map[string]string{routerIP: "phone", serverIP: "server"} {
						if n := counted.sent(ip); off == who || off == "both" {
							require.Zero(t, n, who)
						} else {
							require.GreaterOrEqual(t, n, 3600/25, who)
							require.LessOrEqual(t, n, 3600/20, who)
						}
					}
					if open {
						_, err := info(d)
						require.NoError(t, err)
						require.NoError(t, d.Bye(context.Background(), ""))
						time.Sleep(time.Minute)
						_, _ = counted.sent(routerIP), counted.sent(serverIP)
						time.Sleep(time.Hour)
						require.Zero(t, counted.sent(routerIP)+counted.sent(serverIP), "after the call")
					} else {
						_ = d.Close()
					}
				})
			})
		}
	}
}

// throughNAT makes a call between a phone, which has sent a request before that it has
// learnt its address by, and a server; it returns the server's end.
func (w *world) throughNAT(r *dialogtest.NAT, phone, server *dialog.Stack, phoneCalls bool) *dialog.Dialog {
	w.t.Helper()
	_, err := phone.Do(context.Background(), sip.NewRequest("OPTIONS", uri("server", serverIP)))
	require.NoError(w.t, err)
	if phoneCalls {
		_, d := w.established(phone, server)
		return d
	}
	calls := waiting(phone)
	public, _ := r.Binding(phone.Addr(), server.Addr())
	d, err := server.NewInvite(context.Background(), testkit.URIOver("udp", "phone", public), offer(offerSDP))
	require.NoError(w.t, err)
	require.NoError(w.t, (<-calls).Accept(context.Background(), withSDP(answerSDP)))
	require.NoError(w.t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
	synctest.Wait()
	return d.(*dialog.Dialog)
}

// Where no NAT is on the way over UDP nothing is sent.
func TestASilentCallWithoutANATStaysSilent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		counted := countKeepAlives(w.net)
		w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
		time.Sleep(time.Hour)
		require.Zero(t, counted.sent("10.0.0.1")+counted.sent("10.0.0.2"))
	})
}

// A connection that a call goes by is found to be dead while nothing is said, where its
// peer is known to answer, and the call goes on by another one.
func TestAConnectionOfASilentCallIsFoundToBeDead(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range []string{"ws", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				router, phone, server := w.cut(ca, transport, 0)
				time.Sleep(time.Hour)
				router.Forget()
				time.Sleep(25*time.Second + 10*time.Second)
				took, err := info(phone)
				require.NoError(t, err)
				require.Zero(t, took)
				_, err = info(server)
				require.NoError(t, err)
			})
		})
	}
}

// The way that is kept is the one that the call has moved to.
func TestTheFlowThatACallHasMovedToIsKeptOpen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.fromPhone(w.stack(serverIP))
		time.Sleep(time.Minute)
		c.router.Forget()
		c.ask("OPTIONS", withRport)
		time.Sleep(time.Hour)
		require.Equal(t, c.seen(), c.byeTo())
	})
}

func TestShutdownCrossesKeepAlives(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := w.net.NAT(routerIP, dialogtest.NATConfig{})
		every := func(c *dialog.StackConfig) { c.FlowKeepAlive = time.Nanosecond }
		phone, server := w.behind(r, phoneIP, every), w.stack(serverIP, every)
		for range 5 {
			w.throughNAT(r, phone, server, true)
		}
		time.Sleep(time.Second) // when all are due
		require.NoError(t, phone.Shutdown(context.Background()))
	})
}

// The way of a registration is kept open as long as that lasts: calls come by it.
func TestARegistrationThroughANATIsKeptOpen(t *testing.T) {
	for answer, lasts := range map[string]bool{
		"Contact: <sip:phone@192.168.0.2:5060>;expires=600": true,
		"Expires: 600": true,
		"Contact: <sip:phone@192.168.0.2:5060>;expires=0":  false,
		"Contact: <sip:phone@192.168.0.2:5060>;expires=-1": false,
		"X: 600": false,
	} {
		t.Run(answer, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				r := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true, Filtering: dialogtest.AddressAndPortDependent})
				phone, registrar := w.behind(r, phoneIP), w.stack(serverIP)
				name, value, _ := strings.Cut(answer, ": ")
				require.NoError(t, registrar.OnRequest("REGISTER", func(context.Context, *sip.Request) dialog.Answer {
					return dialog.Answer{Headers: []dialog.Header{{Name: name, Value: value}}}
				}))
				register := sip.NewRequest("REGISTER", uri("", serverIP))
				register.AppendHeader(sip.NewHeader("Expires", "600"))
				_, err := phone.Do(context.Background(), register)
				require.NoError(t, err)
				time.Sleep(9 * time.Minute)
				_, open := r.Binding(phone.Addr(), registrar.Addr())
				require.Equal(t, lasts, open)
				time.Sleep(2 * time.Minute)
				_, open = r.Binding(phone.Addr(), registrar.Addr())
				require.False(t, open)
				// Taking it back keeps nothing open.
				away := sip.NewRequest("REGISTER", uri("", serverIP))
				away.AppendHeader(sip.NewHeader("Expires", "0"))
				_, err = phone.Do(context.Background(), away)
				require.NoError(t, err)
				time.Sleep(time.Minute)
				_, open = r.Binding(phone.Addr(), registrar.Addr())
				require.False(t, open)
			})
		})
	}
}

// Of an INVITE that was forked the flow is kept of the fork that has answered, not of the
// one that was heard last.
func TestTheFlowOfTheForkThatHasAnsweredIsKeptOpen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		at := map[string]*peer{"A": w.viaNAT(publicIP, 1001), "B": w.viaNAT(publicIP, 1002)}
		l := w.calls(w.stack(stackIP), w.peer(peerIP), offer(offerSDP))
		var mu sync.Mutex
		kept := make(map[string]int)
		w.net.Tap(func(p dialogtest.Packet) {
			if string(p.Data) == "\r\n\r\n" {
				mu.Lock()
				defer mu.Unlock()
				kept[p.To.String()]++
			}
		})
		says := func(tag string, code int, body string) {
			res := dialogtest.Response{Code: code, ToTag: tag, Body: body, Headers: []string{privateContact}}
			require.NoError(t, at[tag].Send(l.stack, at[tag].Response(l.invite.Request(), res)))
			synctest.Wait()
		}
		says("A", 183, "")
		says("B", 183, "")
		says("A", 200, answerSDP)
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		at["A"].next("ACK")
		time.Sleep(time.Minute)
		mu.Lock()
		require.Zero(t, kept[at["B"].Addr().String()])
		require.NotZero(t, kept[at["A"].Addr().String()])
		mu.Unlock()
		require.NoError(t, l.d.Close())
	})
}

const movedIP = "10.9.9.9"

// roaming is a call of a stack that is bound to all addresses of a host.
func (w *world) roaming() (host *dialogtest.Host, stack *dialog.Stack, d *dialog.Dialog) {
	w.net.Unspecified = true
	host = w.net.Host("10.0.0.1")
	stack = w.stack("10.0.0.1", func(c *dialog.StackConfig) {
		c.Transport.Address, c.LearnPublicAddress = "0.0.0.0", true // nor does it say where we were seen before
	})
	d, _ = w.established(stack, w.stack("10.0.0.2"))
	return host, stack, d
}

// places are the addresses in the Via and, if there is one, the Contact of a request.
func places(req sip.Message) []string {
	list := []string{req.Via().Host}
	for _, h := range req.GetHeaders("Contact") {
		list = append(list, h.(*sip.ContactHeader).Address.Host)
	}
	return list
}

// FN7: a request that says where we are does so, also when we have moved just now.
func TestAReInviteAfterAMoveSaysWhereWeAre(t *testing.T) {
	for name, told := range map[string]bool{"a second later": false, "at once, the stack being told": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				host, stack, d := w.roaming()
				host.Move(movedIP)
				if told {
					stack.NetworkChanged()
				} else {
					time.Sleep(time.Second + 1)
				}
				require.NoError(t, d.ReInvite(context.Background(), offer(offerSDP)))
				require.Equal(t, []string{movedIP, movedIP}, places(w.last(movedIP, "INVITE").msg))
				require.NoError(t, d.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x"))))
				require.Equal(t, []string{movedIP}, places(w.last(movedIP, "INFO").msg))
			})
		})
	}
}

// A response names where we are, too.
func TestA200AfterAMoveSaysWhereWeAre(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		host, stack, _ := w.roaming()
		ringing := waiting(stack)
		host.Move(movedIP)
		time.Sleep(time.Second + 1)
		d, err := w.stacks[1].NewInvite(context.Background(), uri("alice", movedIP), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, (<-ringing).Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Equal(t, movedIP, response(w.last(movedIP, "200 INVITE").msg).Contact().Address.Host)
	})
}

// Without a network an address that was right is better than none.
func TestAReInviteWithoutANetworkSaysWhereWeWere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		down := &noRoutes{Host: w.net.Host("10.0.0.1")}
		w.net.Unspecified = true
		stack := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.Transport.Address, c.Network = "0.0.0.0", down })
		d, _ := w.established(stack, w.stack("10.0.0.2"))
		down.set(true)
		time.Sleep(time.Second + 1)
		require.NoError(t, d.ReInvite(context.Background(), offer(offerSDP)))
		require.Equal(t, []string{"10.0.0.1", "10.0.0.1"}, places(w.last("10.0.0.1", "INVITE").msg))
	})
}

// noRoutes is a host that can be told to know no routes.
type noRoutes struct {
	*dialogtest.Host

	mu   sync.Mutex // guards the field below
	down bool
}

func (n *noRoutes) set(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

func (n *noRoutes) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down && network == "udp" {
		return nil, fmt.Errorf("no route to %s", address)
	}
	return n.Host.DialContext(ctx, network, address)
}

func TestNetworkChangedCrossesWhatIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		_, stack, d := w.roaming()
		var all sync.WaitGroup
		for range 20 {
			all.Go(stack.NetworkChanged)
			all.Go(func() { _ = d.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x"))) })
			all.Go(func() { stack.PublicAddr(netip.MustParseAddrPort("10.0.0.2:5060")) })
		}
		all.Wait()
		require.NoError(t, d.ReInvite(context.Background(), offer(offerSDP)))
	})
	unstarted, err := dialog.NewStack(nil)
	require.NoError(t, err)
	unstarted.NetworkChanged()
	_, known := unstarted.PublicAddr(netip.MustParseAddrPort("10.0.0.2:5060"))
	require.False(t, known)
}

// FN13: who is behind a NAT learns from responses how it is seen, and tells it if asked
// to.
func TestAPhoneBehindANATLearnsHowItIsSeen(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		for _, learns := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %v", protocol, learns), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					over := func(c *dialog.StackConfig) { c.Transport.Protocol = protocol }
					r := w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true})
					phone := w.behind(r, phoneIP, over, func(c *dialog.StackConfig) { c.LearnPublicAddress = learns })
					server := w.stack(serverIP, over)
					_, known := phone.PublicAddr(server.Addr())
					require.False(t, known)
					d, callee := w.established(phone, server)
					from := map[string]string{"udp": phoneIP, "tcp": routerIP}[protocol] // what taps see
					require.Equal(t, []string{phoneIP, phoneIP}, places(w.last(from, "INVITE").msg))

					public, known := phone.PublicAddr(server.Addr())
					require.True(t, known)
					require.Equal(t, routerIP, public.Addr().String())
					if protocol == "udp" {
						bound, _ := r.Binding(phone.Addr(), server.Addr())
						require.Equal(t, bound, public)
					}
					want := netip.AddrPortFrom(netip.MustParseAddr(phoneIP), 5060)
					if learns {
						want = public
					}
					require.NoError(t, d.ReInvite(context.Background(), offer(offerSDP)))
					again := request(w.last(from, "INVITE").msg)
					contact := again.Contact().Address
					require.Equal(t, want.String(), fmt.Sprintf("%s:%d", contact.Host, contact.Port))
					require.Equal(t, want.String(), fmt.Sprintf("%s:%d", again.Via().Host, again.Via().Port))
					require.NoError(t, callee.ReInvite(context.Background(), offer(offerSDP)))
					ok := response(w.last(from, "200 INVITE").msg).Contact().Address
					require.Equal(t, want.String(), fmt.Sprintf("%s:%d", ok.Host, ok.Port))

					phone.NetworkChanged()
					_, known = phone.PublicAddr(server.Addr())
					require.False(t, known)
				})
			})
		}
	}
}

func TestAConfiguredPublicAddressIsToldAndNotTheOneThatIsLearnt(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{RandomPorts: true}), phoneIP, func(c *dialog.StackConfig) {
			c.LearnPublicAddress, c.Transport.PublicAddress = true, "sip.example.com"
		})
		d, _ := w.established(phone, w.stack(serverIP))
		require.NoError(t, d.ReInvite(context.Background(), offer(offerSDP)))
		contact := request(w.last(phoneIP, "INVITE").msg).Contact().Address
		require.Equal(t, "sip.example.com:5060", fmt.Sprintf("%s:%d", contact.Host, contact.Port))
	})
}

// A response teaches nothing unless it answers a request of ours, and says an address.
func TestOnlyAResponseThatSaysAnAddressTeachesOurs(t *testing.T) {
	for via, want := range map[string]string{
		";received=203.0.113.7;rport=4711":    "203.0.113.7:4711",
		";rport=4711;received=203.0.113.7":    "203.0.113.7:4711",
		";RPort=4711;Received=203.0.113.7":    "203.0.113.7:4711",
		";received=[2001:db8::7];rport=4711":  "[2001:db8::7]:4711",
		";received=2001:db8::7;rport=4711":    "[2001:db8::7]:4711",
		";rport=4711":                         "10.0.0.1:4711",
		";received=203.0.113.7":               "",
		";received=203.0.113.7;rport":         "",
		";received=203.0.113.7;rport=0":       "",
		";received=203.0.113.7;rport=65536":   "",
		";received=203.0.113.7;rport=-1":      "",
		";received=host.example;rport=4711":   "",
		";received;rport=4711":                "",
		";received=0.0.0.0;rport=4711":        "",
		";received=127.0.0.1;rport=4711":      "",
		";received=224.0.0.1;rport=4711":      "",
		";received=255.255.255.255;rport=471": "",
	} {
		for _, matched := range []bool{true, false} {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack("10.0.0.1"), w.peer("10.0.0.2")
				go func() {
					_, _ = a.Do(context.Background(), sip.NewRequest("OPTIONS", uri("bob", "10.0.0.2")))
				}()
				in := p.next("OPTIONS")
				own := ";rport"
				branch := testkit.BranchOf(in.Message)
				text := strings.Replace(okTo(in.Request()), own, via, 1)
				if !matched {
					text = strings.Replace(text, branch, branch+"x", 1)
				}
				require.NoError(t, p.Send(a.Addr(), text))
				synctest.Wait()
				seen, ok := a.PublicAddr(p.Addr())
				require.Equal(t, want != "" && matched, ok, via)
				if ok {
					require.Equal(t, want, seen.String(), via)
				}
				require.NoError(t, p.Send(a.Addr(), strings.Replace(okTo(in.Request()), own, "", 1)))
			})
		}
	}
}

// okTo is a 200 that repeats what it has to.
func okTo(req *sip.Request) string {
	lines := []string{"SIP/2.0 200 OK"}
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		lines = append(lines, req.GetHeader(name).String())
	}
	return strings.Join(append(lines, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
}

// FN5: what the application is still deciding is answered where the peer is by then, and
// the call stays there.
func TestTheAnswerToAReInviteFollowsThePhone(t *testing.T) {
	for _, method := range []string{"INVITE", "UPDATE"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := w.fromPhone(w.stack(serverIP))
				decide := make(chan struct{})
				c.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
					<-decide
					return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
				})
				c.ask(method, withRport, withHeaders(privateContact), withBody(offerSDP))
				seq := c.seq
				synctest.Wait()
				c.router.Forget()
				c.ask("INFO", withRport, withHeaders(privateContact))
				c.next("200 INFO")
				close(decide)
				c.next("200 " + method)
				require.Equal(t, c.seen(), c.d.Flow().Remote().String())
				if method == "INVITE" {
					c.acknowledge(seq)
				}
				synctest.Wait()
				require.Equal(t, c.seen(), c.byeTo())
			})
		})
	}
}
