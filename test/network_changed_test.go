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
	"sipdialog.example/dialog/internal/testkit"
)

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

func TestNetworkChangedCrossesRequests(t *testing.T) {
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
		require.Equal(t, "sip.example.com:0", fmt.Sprintf("%s:%d", contact.Host, contact.Port)) // the usual port is left out
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
