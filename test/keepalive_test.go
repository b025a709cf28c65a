package test

import (
	"context"
	"fmt"
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
