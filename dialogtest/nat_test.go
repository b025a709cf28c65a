package dialogtest_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// natBubble runs f with a phone behind a NAT at 203.0.113.1, and a server.
func natBubble(t *testing.T, config dialogtest.NATConfig, f func(t *testing.T, r *dialogtest.NAT, phone, server net.PacketConn)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		r := n.NAT("203.0.113.1", config)
		f(t, r, bind(t, r.Host("192.168.0.2"), ":5060"), bind(t, n.Host("198.51.100.1"), ":5060"))
	})
}

func send(t *testing.T, from net.PacketConn, to, text string) {
	t.Helper()
	_, err := from.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	require.NoError(t, err)
}

// receivedNothing moves the clock by a millisecond.
func receivedNothing(t *testing.T, s net.PacketConn) {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, _, err := s.ReadFrom(make([]byte, 2000))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, s.SetReadDeadline(time.Time{}))
}

func TestNATTranslatesBothWaysWhileTheBindingLasts(t *testing.T) {
	natBubble(t, dialogtest.NATConfig{}, func(t *testing.T, r *dialogtest.NAT, phone, server net.PacketConn) {
		send(t, server, "203.0.113.1:5060", "unasked")
		receivedNothing(t, phone)
		require.Equal(t, 1, r.Dropped())

		send(t, phone, "198.51.100.1:5060", "hello")
		text, from := received(t, server)
		require.Equal(t, "hello", text)
		require.Equal(t, "203.0.113.1:5060", from)

		time.Sleep(dialogtest.DefaultBindingTime - time.Millisecond)
		send(t, server, from, "in time")
		text, from = received(t, phone)
		require.Equal(t, "in time", text)
		require.Equal(t, "198.51.100.1:5060", from)

		time.Sleep(dialogtest.DefaultBindingTime)
		send(t, server, "203.0.113.1:5060", "late")
		receivedNothing(t, phone)
		_, bound := r.Binding(netip.MustParseAddrPort("192.168.0.2:5060"), netip.MustParseAddrPort("198.51.100.1:5060"))
		require.False(t, bound)
	})
}

func TestNATWithRandomPortsTakesAnotherAfterItHasForgotten(t *testing.T) {
	natBubble(t, dialogtest.NATConfig{RandomPorts: true}, func(t *testing.T, r *dialogtest.NAT, phone, server net.PacketConn) {
		send(t, phone, "198.51.100.1:5060", "one")
		_, first := received(t, server)
		r.Forget()
		send(t, server, first, "lost")
		receivedNothing(t, phone)
		send(t, phone, "198.51.100.1:5060", "two")
		_, second := received(t, server)
		require.NotEqual(t, first, second)
		require.NotEqual(t, "203.0.113.1:5060", first)
	})
}

func TestNATMapsAndFiltersAsConfigured(t *testing.T) {
	for _, c := range []struct {
		config             dialogtest.NATConfig
		samePort, stranger bool
	}{
		{dialogtest.NATConfig{}, true, true},
		{dialogtest.NATConfig{Filtering: dialogtest.AddressDependent}, true, false},
		{dialogtest.NATConfig{Filtering: dialogtest.AddressAndPortDependent}, true, false},
		{dialogtest.NATConfig{Mapping: dialogtest.AddressAndPortDependent, Filtering: dialogtest.AddressAndPortDependent}, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			phone := bind(t, n.NAT("203.0.113.1", c.config).Host("192.168.0.2"), ":5060")
			server := bind(t, n.Host("198.51.100.1"), ":5060")
			other := bind(t, n.Host("198.51.100.2"), ":5060")

			send(t, phone, "198.51.100.1:5060", "x")
			_, first := received(t, server)
			send(t, other, first, "unasked")
			if c.stranger {
				received(t, phone)
			} else {
				receivedNothing(t, phone)
			}
			send(t, phone, "198.51.100.2:5060", "x")
			_, second := received(t, other)
			require.Equal(t, c.samePort, first == second)
		})
	}
}

func TestNATsMayHaveHostsWithOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		server := bind(t, n.Host("198.51.100.1"), ":5060")
		for _, public := range []string{"203.0.113.1", "203.0.113.2"} {
			phone := bind(t, n.NAT(public, dialogtest.NATConfig{}).Host("192.168.0.2"), ":5060")
			send(t, phone, "198.51.100.1:5060", public)
			_, from := received(t, server)
			require.Equal(t, public+":5060", from)
			send(t, server, from, public)
			text, _ := received(t, phone)
			require.Equal(t, public, text)
		}
	})
}

func TestNATDropsFragments(t *testing.T) {
	natBubble(t, dialogtest.NATConfig{DropFragments: true}, func(t *testing.T, r *dialogtest.NAT, phone, server net.PacketConn) {
		send(t, phone, "198.51.100.1:5060", string(make([]byte, 1473)))
		receivedNothing(t, server)
		send(t, phone, "198.51.100.1:5060", string(make([]byte, 1472)))
		received(t, server)
	})
}

// natConnection returns both ends of a connection through a NAT.
func natConnection(t *testing.T, config dialogtest.NATConfig) (r *dialogtest.NAT, h *dialogtest.Host, here, far net.Conn) {
	n := newNetwork(t)
	r = n.NAT("203.0.113.1", config)
	h = r.Host("192.168.0.2")
	l, err := n.Host("198.51.100.1").Listen(t.Context(), "tcp", ":5060")
	require.NoError(t, err)
	here, err = h.DialContext(t.Context(), "tcp", "198.51.100.1:5060")
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	return r, h, here, far
}

func TestNATCarriesConnectionsFromInsideOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h, here, far := natConnection(t, dialogtest.NATConfig{})
		require.Equal(t, "203.0.113.1", far.RemoteAddr().(*net.TCPAddr).IP.String())
		require.Equal(t, "192.168.0.2", here.LocalAddr().(*net.TCPAddr).IP.String())
		for _, way := range [][2]net.Conn{{here, far}, {far, here}} {
			_, err := way[0].Write([]byte("x"))
			require.NoError(t, err)
			n, err := way[1].Read(make([]byte, 2))
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}

		_, err := h.Listen(t.Context(), "tcp", ":5060")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = h.DialContext(ctx, "tcp", r.Addr().String()+":5060")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, here.Close())
		_, err = far.Read(make([]byte, 1))
		require.Error(t, err)
	})
}

// silent checks that a connection has died silently: written data is lost, and the other
// end reads nothing, not even the end of the stream.
func silent(t *testing.T, here, far net.Conn) {
	t.Helper()
	_, err := here.Write([]byte("lost"))
	require.NoError(t, err)
	require.NoError(t, far.SetReadDeadline(time.Now().Add(time.Hour)))
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, here.Close())
	require.NoError(t, far.SetReadDeadline(time.Now().Add(time.Hour)))
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestConnectionsThroughANATDieSilently(t *testing.T) {
	for name, end := range map[string]func(r *dialogtest.NAT, h *dialogtest.Host){
		"forgotten": func(r *dialogtest.NAT, _ *dialogtest.Host) { r.Forget() },
		"too long without a word": func(*dialogtest.NAT, *dialogtest.Host) {
			time.Sleep(time.Minute)
		},
		"moved": func(_ *dialogtest.NAT, h *dialogtest.Host) { h.Move("192.168.0.3") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h, here, far := natConnection(t, dialogtest.NATConfig{StreamTime: time.Minute})
				end(r, h)
				silent(t, here, far)
			})
		})
	}
}

func TestMoveTakesSocketsAlongThatAreBoundToNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.Unspecified = true
		h := n.Host("10.0.0.1")
		anywhere, fixed, peer := bind(t, h, ":5060"), bind(t, h, "10.0.0.1:5070"), bind(t, n.Host("10.0.0.2"), ":5060")
		require.Equal(t, "0.0.0.0:5060", anywhere.LocalAddr().String())
		l, err := h.Listen(t.Context(), "tcp", "0.0.0.0:5060")
		require.NoError(t, err)
		h.Move("10.0.0.9")

		require.Equal(t, "10.0.0.9", h.Addr().String())
		send(t, anywhere, "10.0.0.2:5060", "x")
		_, from := received(t, peer)
		require.Equal(t, "10.0.0.9:5060", from)
		send(t, peer, "10.0.0.9:5060", "y")
		received(t, anywhere)
		send(t, peer, "10.0.0.1:5060", "z")
		receivedNothing(t, anywhere)
		_, err = fixed.WriteTo([]byte("x"), peer.LocalAddr())
		require.Error(t, err)
		conn, err := n.Host("10.0.0.2").DialContext(t.Context(), "tcp", "10.0.0.9:5060")
		require.NoError(t, err)
		accepted, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.NoError(t, accepted.Close())
		require.NoError(t, anywhere.Close())
		bind(t, h, ":5060")
	})
}

func TestHostsBehindANATKnowTheNamesOutside(t *testing.T) {
	n := newNetwork(t)
	h := n.NAT("203.0.113.1", dialogtest.NATConfig{}).Host("192.168.0.2")
	n.Name("sip.example.com", "198.51.100.1")
	found, err := h.LookupNetIP(t.Context(), "ip4", "sip.example.com")
	require.NoError(t, err)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("198.51.100.1")}, found)
}
