package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

func TestListeners_tell_each_its_own_public_address(t *testing.T) {
	ca := testcert.New(t)
	l, arrivals := startLayer(t, Config{PublicHost: "layer.example.com", TLS: ca.Client()})
	open := func(lc ListenConfig) netip.AddrPort {
		addr, err := l.Listen(context.Background(), lc)
		require.NoError(t, err)
		return addr
	}
	first := open(ListenConfig{Transport: "udp", Address: "127.0.0.1:0", PublicHost: "first.example.com", PublicPort: 5080})
	second := open(ListenConfig{Transport: "UDP", Address: "127.0.0.1:0", PublicPort: 5081})
	third := open(ListenConfig{Transport: "tcp", Address: "127.0.0.1:0"})
	fourth := open(ListenConfig{Transport: "tls", Address: "127.0.0.1:0", PublicHost: "192.0.2.7", TLS: ca.Server("127.0.0.1")})

	peer := bindUDP(t, "127.0.0.1:0")
	for addr, want := range map[netip.AddrPort]Local{
		first:  {Transport: "UDP", Host: "first.example.com", Port: 5080},
		second: {Transport: "UDP", Host: "127.0.0.1", Port: 5081},
	} {
		sendUDP(t, peer, addr, options("x", "127.0.0.1", ""))
		require.Equal(t, want, next(t, arrivals).flow.Local())
	}
	write(t, dialTCP(t, third), options("x", "127.0.0.1", ""))
	require.Equal(t, Local{Transport: "TCP", Host: "layer.example.com", Port: int(third.Port())}, next(t, arrivals).flow.Local())

	// A connection that we dial tells where we listen for its transport.
	flow, err := l.Connect(context.Background(), Target{Transport: "TLS", Addr: fourth})
	require.NoError(t, err)
	require.Equal(t, Local{Transport: "TLS", Host: "192.0.2.7", Port: int(fourth.Port())}, flow.Local())
}

// exhausted is a network whose listeners fail a few times before they accept.
type exhausted struct {
	osNetwork
	failures int
}

type exhaustedListener struct {
	net.Listener

	mu       sync.Mutex // guards the field below
	failures int
}

func (e exhausted) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := e.osNetwork.Listen(ctx, network, address)
	return &exhaustedListener{Listener: ln, failures: e.failures}, err
}

func (l *exhaustedListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	fail := l.failures > 0
	l.failures--
	l.mu.Unlock()
	if fail {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestListener_goes_on_after_accept_errors(t *testing.T) {
	ca := testcert.New(t)
	l, arrivals := startLayer(t, Config{Network: exhausted{failures: 3}, TLS: ca.Client()})
	write(t, dialTCP(t, listen(t, l, "tcp", "127.0.0.1:0")), options("tcp", "127.0.0.1", ""))
	require.Equal(t, "tcp", next(t, arrivals).msg.CallID().Value())

	addr := listenTLS(t, l, "tls", "127.0.0.1:0", ca.Server("127.0.0.1"))
	flow, err := l.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, flow.Send([]byte(options("tls", "127.0.0.1", ""))))
	require.Equal(t, "tls", next(t, arrivals).msg.CallID().Value())
	require.EqualValues(t, 6, l.Stats().AcceptErrors)
}

func TestListen_reports_what_binding_says(t *testing.T) {
	ca := testcert.New(t)
	l, _ := startLayer(t, Config{})
	addr := listen(t, l, "tcp", "127.0.0.1:0")
	_, err := l.Listen(context.Background(), ListenConfig{Transport: "tls", Address: addr.String(), TLS: ca.Server("127.0.0.1")})
	require.True(t, errors.Is(err, syscall.EADDRINUSE), err)
}
