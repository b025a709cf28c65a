package dialogtest_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

func newNetwork(t *testing.T) *dialogtest.Network {
	n := dialogtest.NewNetwork()
	t.Cleanup(n.Close)
	return n
}

func bind(t *testing.T, h *dialogtest.Host, address string) net.PacketConn {
	t.Helper()
	s, err := h.ListenPacket(context.Background(), "udp", address)
	require.NoError(t, err)
	return s
}

// received reads one datagram.
func received(t *testing.T, s net.PacketConn) (text, from string) {
	t.Helper()
	buf := make([]byte, 2000)
	n, addr, err := s.ReadFrom(buf)
	require.NoError(t, err)
	return string(buf[:n]), addr.String()
}

// connected returns both ends of a connection between two hosts.
func connected(t *testing.T, n *dialogtest.Network) (here, far net.Conn) {
	t.Helper()
	l, err := n.Host("10.0.0.2").Listen(context.Background(), "tcp", ":0")
	require.NoError(t, err)
	here, err = n.Host("10.0.0.1").DialContext(context.Background(), "tcp", l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return here, far
}

func TestDatagramsArriveInOrderWithTheirSource(t *testing.T) {
	for _, ips := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
		n := newNetwork(t)
		a := bind(t, n.Host(ips[0]), ":5060")
		b := bind(t, n.Host(ips[1]), net.JoinHostPort(ips[1], "0"))
		require.Equal(t, net.JoinHostPort(ips[0], "5060"), a.LocalAddr().String())
		for _, text := range []string{"one", "two", "three"} {
			_, err := a.WriteTo([]byte(text), b.LocalAddr())
			require.NoError(t, err)
		}
		for _, text := range []string{"one", "two", "three"} {
			got, from := received(t, b)
			require.Equal(t, text, got)
			require.Equal(t, a.LocalAddr().String(), from)
		}
	}
}

func TestBindingsBehaveAsThoseOfTheOperatingSystem(t *testing.T) {
	n := newNetwork(t)
	h, ctx := n.Host("10.0.0.1"), context.Background()
	first := bind(t, h, "0.0.0.0:5060")
	var opErr *net.OpError

	_, err := h.ListenPacket(ctx, "udp", ":5060")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorAs(t, err, &opErr)
	_, err = h.ListenPacket(ctx, "udp", "10.0.0.9:5060")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	_, err = h.ListenPacket(ctx, "udp6", ":0")
	require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
	_, err = h.ListenPacket(ctx, "tcp", ":0")
	require.ErrorAs(t, err, new(net.UnknownNetworkError))
	_, err = h.ListenPacket(ctx, "udp", "5060")
	require.Error(t, err)

	_, err = h.Listen(ctx, "tcp", ":5060")
	require.NoError(t, err, "TCP ports are not UDP ports")
	_, err = h.Listen(ctx, "tcp", ":5060")
	require.ErrorIs(t, err, syscall.EADDRINUSE)

	require.NoError(t, first.Close())
	require.ErrorIs(t, first.Close(), net.ErrClosed)
	bind(t, h, ":5060")
	x, y := bind(t, h, ":0"), bind(t, h, ":0")
	require.NotEqual(t, x.LocalAddr().String(), y.LocalAddr().String())
}

func TestDialledDatagramSocketKnowsItsAddressAndItsPeer(t *testing.T) {
	n := newNetwork(t)
	peer := bind(t, n.Host("10.0.0.2"), ":5060")
	stranger := bind(t, n.Host("10.0.0.3"), ":5060")
	c, err := n.Host("10.0.0.1").DialContext(context.Background(), "udp", "10.0.0.2:5060")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.1", c.LocalAddr().(*net.UDPAddr).IP.String())
	require.Equal(t, "10.0.0.2:5060", c.RemoteAddr().String())

	_, err = c.Write([]byte("ping"))
	require.NoError(t, err)
	text, from := received(t, peer)
	require.Equal(t, "ping", text)
	require.Equal(t, c.LocalAddr().String(), from)
	_, err = stranger.WriteTo([]byte("noise"), c.LocalAddr())
	require.NoError(t, err)
	_, err = peer.WriteTo([]byte("pong"), c.LocalAddr())
	require.NoError(t, err)
	buf := make([]byte, 10)
	read, err := c.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "pong", string(buf[:read]))
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	n := newNetwork(t)
	n.Queue = 2
	a, b := bind(t, n.Host("10.0.0.1"), ":0"), bind(t, n.Host("10.0.0.2"), ":0")
	for range 5 {
		_, err := a.WriteTo([]byte("x"), b.LocalAddr())
		require.NoError(t, err)
	}
	_, err := a.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 9})
	require.NoError(t, err)
	require.Equal(t, dialogtest.Stats{Sent: 6, Delivered: 2, Overflow: 3, Unclaimed: 1}, n.Stats())
	_, err = a.WriteTo(make([]byte, 70_000), b.LocalAddr())
	require.ErrorIs(t, err, syscall.EMSGSIZE)
}

func TestTapsSeeDatagramsAndStreamWrites(t *testing.T) {
	n := newNetwork(t)
	var mu sync.Mutex
	var seen []string
	tap := func(p dialogtest.Packet) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, p.Transport+" "+p.From.Addr().String()+">"+p.To.Addr().String()+" "+string(p.Data))
	}
	n.Tap(tap)
	n.Tap(func(dialogtest.Packet) { n.Stats() }) // no lock is held
	n.SetPolicy(func(dialogtest.Packet) []time.Duration { return nil })
	a := bind(t, n.Host("10.0.0.1"), ":0")
	_, err := a.WriteTo([]byte("lost"), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9})
	require.NoError(t, err)
	here, far := connected(t, n)
	_, err = here.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = far.Write([]byte("there"))
	require.NoError(t, err)
	n.Inject(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("10.0.0.1:9"), []byte("forged"))
	require.Equal(t, []string{
		"udp 10.0.0.1>10.0.0.2 lost",
		"tcp 10.0.0.1>10.0.0.2 hello",
		"tcp 10.0.0.2>10.0.0.1 there",
		"udp 192.0.2.1>10.0.0.1 forged",
	}, seen)
}

func TestInjectedDatagramArrivesDespiteThePolicy(t *testing.T) {
	n := newNetwork(t)
	n.SetPolicy(dialogtest.Lossy(1, 1, 0, 0))
	b := bind(t, n.Host("10.0.0.2"), ":5060")
	n.Inject(netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("10.0.0.2:5060"), []byte("x"))
	text, from := received(t, b)
	require.Equal(t, "x", text)
	require.Equal(t, "192.0.2.1:7", from)
}

func TestLossyRepeatsItselfForOneSeed(t *testing.T) {
	outcome := func(seed uint64) (delays [][]time.Duration, lost, repeated int) {
		policy := dialogtest.Lossy(seed, 0.3, 0.3, time.Second)
		for range 1000 {
			d := policy(dialogtest.Packet{})
			delays = append(delays, d)
			switch len(d) {
			case 0:
				lost++
			case 2:
				repeated++
			}
		}
		return delays, lost, repeated
	}
	first, lost, repeated := outcome(1)
	again, _, _ := outcome(1)
	other, _, _ := outcome(2)
	require.Equal(t, first, again)
	require.NotEqual(t, first, other)
	require.InDelta(t, 300, lost, 60)
	require.InDelta(t, 210, repeated, 60)
}

func TestStreamGivesEOFAfterTheData(t *testing.T) {
	n := newNetwork(t)
	here, far := connected(t, n)
	require.Equal(t, here.LocalAddr().String(), far.RemoteAddr().String())
	require.Equal(t, here.RemoteAddr().String(), far.LocalAddr().String())
	_, err := here.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, here.Close())
	require.ErrorIs(t, here.Close(), net.ErrClosed)

	all, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "last words", string(all))
	_, err = far.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EPIPE)
	_, err = here.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = here.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestBrokenStreamsAreReset(t *testing.T) {
	for name, broken := range map[string]func(*dialogtest.Network){
		"of the network": (*dialogtest.Network).BreakStreams,
		"of a host":      func(n *dialogtest.Network) { n.Host("10.0.0.2").BreakStreams() },
		"at close":       (*dialogtest.Network).Close,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			here, far := connected(t, n)
			_, err := here.Write([]byte("x"))
			require.NoError(t, err)
			broken(n)
			for _, c := range []net.Conn{here, far} {
				_, err = c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
			_, err = far.Write([]byte("x"))
			require.Error(t, err)
		})
	}
	n := newNetwork(t)
	here, far := connected(t, n)
	n.Host("10.0.0.3").BreakStreams()
	_, err := here.Write([]byte("x"))
	require.NoError(t, err)
	_, err = far.Read(make([]byte, 1))
	require.NoError(t, err, "the streams of another host live on")
}

func TestDialIsRefusedWithoutAListener(t *testing.T) {
	n := newNetwork(t)
	n.Backlog = 1
	h, ctx := n.Host("10.0.0.1"), context.Background()
	n.Host("10.0.0.2")
	_, err := h.DialContext(ctx, "tcp", "10.0.0.2:5060")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorAs(t, err, new(*net.OpError))

	l, err := n.Host("10.0.0.2").Listen(ctx, "tcp", ":5060")
	require.NoError(t, err)
	waiting, err := h.DialContext(ctx, "tcp", "10.0.0.2:5060")
	require.NoError(t, err)
	_, err = h.DialContext(ctx, "tcp", "10.0.0.2:5060")
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "the backlog is full")
	require.NoError(t, l.Close())
	_, err = waiting.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)

	_, err = h.DialContext(ctx, "tcp", "[fd00::1]:5060")
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	_, err = h.DialContext(ctx, "unix", "10.0.0.2:5060")
	require.Error(t, err)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err = h.DialContext(ctx, "tcp", "10.0.0.2:5060")
	require.ErrorIs(t, err, context.Canceled)
}

func TestUnreachableHostFailsItsSendsAndDropsArrivals(t *testing.T) {
	n := newNetwork(t)
	h, ctx := n.Host("10.0.0.2"), context.Background()
	a, b := bind(t, n.Host("10.0.0.1"), ":0"), bind(t, h, ":0")
	here, far := connected(t, n)
	l, err := h.Listen(ctx, "tcp", ":0")
	require.NoError(t, err)
	h.Unreachable(true)

	_, err = b.WriteTo([]byte("x"), a.LocalAddr())
	require.ErrorIs(t, err, syscall.ENETUNREACH)
	_, err = a.WriteTo([]byte("x"), b.LocalAddr())
	require.NoError(t, err)
	require.Equal(t, 1, n.Stats().Unclaimed)
	_, err = n.Host("10.0.0.1").DialContext(ctx, "tcp", l.Addr().String())
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	for _, c := range []net.Conn{here, far} {
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	}

	h.Unreachable(false)
	_, err = a.WriteTo([]byte("y"), b.LocalAddr())
	require.NoError(t, err)
	text, _ := received(t, b)
	require.Equal(t, "y", text)
	_, err = here.Write([]byte("y"))
	require.NoError(t, err)
	_, err = far.Read(make([]byte, 1))
	require.NoError(t, err)
}

func TestClosedNetworkRefusesEverything(t *testing.T) {
	n := dialogtest.NewNetwork()
	h, ctx := n.Host("10.0.0.1"), context.Background()
	s := bind(t, h, ":0")
	l, err := h.Listen(ctx, "tcp", ":0")
	require.NoError(t, err)
	n.Close()
	n.Close()

	_, _, err = s.ReadFrom(nil)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = s.WriteTo(nil, s.LocalAddr())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = h.ListenPacket(ctx, "udp", ":0")
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = h.Listen(ctx, "tcp", ":0")
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = h.DialContext(ctx, "tcp", "10.0.0.1:1")
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	n := newNetwork(t)
	n.Window = 3
	here, far := connected(t, n)
	var writers sync.WaitGroup
	for _, text := range []string{"aaaaaaaa", "bbbbbbbb", "cccccccc"} {
		writers.Add(1)
		go func() {
			defer writers.Done()
			_, _ = here.Write([]byte(text))
		}()
	}
	buf := make([]byte, 8)
	for range 3 {
		_, err := io.ReadFull(far, buf)
		require.NoError(t, err)
		for _, b := range buf {
			require.Equal(t, buf[0], b)
		}
	}
	writers.Wait()
}
