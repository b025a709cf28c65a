package transport

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/sipmsg"
)

func TestUDP_each_answer_leaves_by_the_socket_its_request_came_to(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	first := listen(t, l, "udp", "127.0.0.1:0")
	second := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	self := loopback(peer).String()

	sendUDP(t, peer, first, options("one", self, ""))
	one := next(t, arrivals)
	sendUDP(t, peer, second, options("two", self, ""))
	two := next(t, arrivals)
	require.False(t, one.flow.Same(two.flow))

	require.NoError(t, l.Reply(one.flow, one.m).Send(ok("one")))
	answer, from := receiveUDP(t, peer)
	require.Contains(t, answer, "Call-ID: one")
	require.Equal(t, first, from)
	require.NoError(t, l.Reply(two.flow, two.m).Send(ok("two")))
	_, from = receiveUDP(t, peer)
	require.Equal(t, second, from)
}

func TestUDP_message_carries_where_it_came_from(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	sendUDP(t, peer, addr, options("x", "127.0.0.1", "hello"))
	a := next(t, arrivals)
	require.Equal(t, loopback(peer), a.flow.RemoteAddr())
	require.Equal(t, addr, a.flow.LocalAddr())
	require.False(t, a.flow.Reliable())
	require.Equal(t, "UDP", a.msg.Transport())
	require.Equal(t, loopback(peer).String(), a.msg.Source())
	require.Equal(t, "hello", string(a.msg.Body()))
	require.NoError(t, a.flow.Err())
	require.EqualValues(t, 1, l.Stats().MessagesIn)
}

func TestUDP_dual_stack_socket_serves_both_families(t *testing.T) {
	if probe, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6:", err)
	} else {
		require.NoError(t, probe.Close())
	}
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "udp", ":0")
	for _, host := range []string{"127.0.0.1", "::1"} {
		peer := bindUDP(t, net.JoinHostPort(host, "0"))
		to := netip.AddrPortFrom(netip.MustParseAddr(host), addr.Port())
		sendUDP(t, peer, to, options("x", net.JoinHostPort(host, "5060"), ""))
		a := next(t, arrivals)
		require.Equal(t, Local{Transport: "UDP", Host: host, Port: int(addr.Port())}, a.flow.Local())
		require.NoError(t, a.flow.Send(ok("x")))
		_, from := receiveUDP(t, peer)
		require.Equal(t, to, from)

		flow, err := l.Connect(context.Background(), Target{Transport: "udp", Addr: loopback(peer)})
		require.NoError(t, err)
		require.True(t, flow.Same(a.flow))
	}
}

func TestUDP_body_follows_Content_Length(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	self := loopback(peer).String()
	start := []string{"OPTIONS sip:b@example.com SIP/2.0", "Via: SIP/2.0/UDP " + self + ";branch=z9hG4bK1",
		"From: <sip:a@example.com>;tag=a", "To: <sip:b@example.com>", "Call-ID: length", "CSeq: 1 OPTIONS"}
	with := func(body string, lines ...string) string { return text(body, append(start[:6:6], lines...)...) }

	sendUDP(t, peer, addr, with("all the rest"))
	require.Equal(t, "all the rest", string(next(t, arrivals).msg.Body()))

	sendUDP(t, peer, addr, with("short and more", "Content-Length: 5"))
	a := next(t, arrivals)
	require.Equal(t, "short", string(a.msg.Body()))
	require.Equal(t, 1, strings.Count(a.msg.String(), "Content-Length"))

	sendUDP(t, peer, addr, with("too short", "Content-Length: 9999"))
	answer, _ := receiveUDP(t, peer)
	require.Contains(t, answer, "SIP/2.0 400 Content-Length Beyond the Message\r\n")
	require.Contains(t, answer, "Call-ID: length\r\n")

	// A response is dropped, an ACK as well; the message after them arrives.
	sendUDP(t, peer, addr, strings.Replace(string(ok("lie")), "Content-Length: 0", "Content-Length: 9", 1))
	sendUDP(t, peer, addr, strings.ReplaceAll(with("", "Content-Length: 9"), "OPTIONS", "ACK"))
	sendUDP(t, peer, addr, "\r\n\r\n")
	sendUDP(t, peer, addr, "\x00\x01\x00\x00")
	sendUDP(t, peer, addr, "\r\n"+with("end"))
	require.Equal(t, "end", string(next(t, arrivals).msg.Body()))
	require.EqualValues(t, 1, l.Stats().Answered400)
	require.EqualValues(t, 3, l.Stats().Malformed)
}

func TestUDP_malformed_request_is_answered_with_what_is_there(t *testing.T) {
	l, _ := startLayer(t, Config{})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	self := loopback(peer).String()
	broken := text("", "INVITE sip:b@example.com SIP/2.0", "no colon",
		"Via: SIP/2.0/UDP "+self+";branch=z9hG4bK1, SIP/2.0/UDP other.example.com;branch=z9hG4bK0",
		"CSeq: 36893488147419103232 INVITE", "To: <sip:b@example.com>", "Call-ID: bad")
	sendUDP(t, peer, addr, broken)
	first, _ := receiveUDP(t, peer)
	require.True(t, strings.HasPrefix(first, "SIP/2.0 400 Malformed Header Field\r\n"), first)
	require.Contains(t, first, "Via: SIP/2.0/UDP "+self+";branch=z9hG4bK1, SIP/2.0/UDP other.example.com;branch=z9hG4bK0\r\n")
	require.Contains(t, first, "CSeq: 36893488147419103232 INVITE\r\n")
	require.Contains(t, first, "To: <sip:b@example.com>;tag=")
	require.NotContains(t, first, "From:")

	// RFC 3261 8.2.7: the repetition gets the same tag.
	sendUDP(t, peer, addr, broken)
	second, _ := receiveUDP(t, peer)
	require.Equal(t, first, second)
}

func TestUDP_handler_panic_costs_one_message(t *testing.T) {
	l := New(Config{})
	t.Cleanup(func() { _ = l.Close() })
	arrivals := make(chan arrival, 2)
	l.Handle(func(m *sipmsg.Message, flow *Flow) {
		if m.CallID == "boom" {
			panic("boom")
		}
		arrivals <- arrival{m, m.SIP(), flow}
	})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	sendUDP(t, peer, addr, options("boom", "127.0.0.1", ""))
	sendUDP(t, peer, addr, options("fine", "127.0.0.1", ""))
	require.Equal(t, "fine", string(*next(t, arrivals).msg.CallID()))
	require.EqualValues(t, 1, l.Stats().Panics)
}

func TestUDP_trace_sees_messages_both_ways(t *testing.T) {
	events := make(chan Event, 4)
	l, arrivals := startLayer(t, Config{Trace: func(e Event) {
		e.Data = append([]byte(nil), e.Data...)
		events <- e
	}})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	peer := bindUDP(t, "127.0.0.1:0")
	sendUDP(t, peer, addr, "\r\n\r\n") // a keep-alive is not a message
	sendUDP(t, peer, addr, options("seen", "127.0.0.1", ""))
	require.NoError(t, next(t, arrivals).flow.Send(ok("seen")))
	in, out := <-events, <-events
	require.False(t, in.Outbound)
	require.Equal(t, options("seen", "127.0.0.1", ""), string(in.Data))
	require.Equal(t, addr, in.Local)
	require.Equal(t, loopback(peer), in.Remote)
	require.True(t, out.Outbound)
	require.Equal(t, ok("seen"), out.Data)
}

func TestUDP_a_message_is_traced_before_it_can_be_answered(t *testing.T) {
	order := make(chan string, 4)
	l, arrivals := startLayer(t, Config{
		Network: writeWatcher{wrote: func() { order <- "written" }},
		Trace: func(e Event) {
			if e.Outbound {
				order <- "traced"
			}
		},
	})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	sendUDP(t, bindUDP(t, "127.0.0.1:0"), addr, options("order", "127.0.0.1", ""))
	require.NoError(t, next(t, arrivals).flow.Send(ok("order")))
	require.Equal(t, []string{"traced", "written"}, []string{<-order, <-order})
}

// writeWatcher is the operating system's network with a hook on datagrams sent.
type writeWatcher struct {
	osNetwork
	wrote func()
}

func (w writeWatcher) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := w.osNetwork.ListenPacket(ctx, network, address)
	return watchedConn{conn, w.wrote}, err
}

type watchedConn struct {
	net.PacketConn
	wrote func()
}

func (c watchedConn) WriteTo(data []byte, to net.Addr) (int, error) {
	c.wrote()
	return c.PacketConn.WriteTo(data, to)
}

func TestUDP_bind_error_is_returned(t *testing.T) {
	l, _ := startLayer(t, Config{})
	addr := listen(t, l, "udp", "127.0.0.1:0")
	_, err := l.Listen(context.Background(), ListenConfig{Transport: "udp", Address: addr.String()})
	require.ErrorContains(t, err, "address already in use")
	_, err = l.Listen(context.Background(), ListenConfig{Transport: "sctp", Address: "127.0.0.1:0"})
	require.ErrorIs(t, err, ErrUnsupportedTransport)
}

func TestUDP_connect_needs_a_socket_of_the_family(t *testing.T) {
	l, _ := startLayer(t, Config{})
	to := func(s string) Target { return Target{Transport: "UDP", Addr: netip.MustParseAddrPort(s)} }
	_, err := l.Connect(context.Background(), to("127.0.0.1:5060"))
	require.ErrorIs(t, err, ErrNoListener)
	listen(t, l, "udp", "127.0.0.1:0")
	_, err = l.Connect(context.Background(), to("[::1]:5060"))
	require.ErrorIs(t, err, ErrNoListener)
	_, err = l.Connect(context.Background(), to("127.0.0.1:0"))
	require.ErrorIs(t, err, ErrBadTarget)
	_, err = l.Connect(context.Background(), to("127.0.0.1:5060"))
	require.NoError(t, err)
}

// FT11: the loopback interface reaches this machine only, so a socket bound to it is not used
// for other peers, whichever was bound first.
func TestUDP_a_socket_on_loopback_is_for_loopback(t *testing.T) {
	for _, order := range [][]string{{"127.0.0.1", "10.0.0.1"}, {"10.0.0.1", "127.0.0.1"}} {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, _ := startLayer(t, Config{Network: hosts{network}})
		for _, ip := range order {
			listen(t, l, "udp", ip+":5060")
		}
		for peer, own := range map[string]string{"127.0.0.7": "127.0.0.1", "10.0.0.9": "10.0.0.1", "192.0.2.1": "10.0.0.1"} {
			flow, err := l.Connect(context.Background(), Target{Transport: "udp", Addr: netip.MustParseAddrPort(peer + ":5060")})
			require.NoError(t, err)
			require.Equal(t, own, flow.LocalAddr().Addr().String(), "to %s, bound %v", peer, order)
		}
	}
}

// hosts is a machine with as many addresses as it is asked for.
type hosts struct{ network *dialogtest.Network }

func (h hosts) at(address string) *dialogtest.Host {
	return h.network.Host(netip.MustParseAddrPort(address).Addr().String())
}

func (h hosts) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return h.at(address).ListenPacket(ctx, network, address)
}

func (h hosts) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return h.at(address).Listen(ctx, network, address)
}

func (h hosts) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.network.Host("10.0.0.1").DialContext(ctx, network, address)
}
