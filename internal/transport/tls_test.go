package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

func TestTLS_carries_messages_both_ways_on_one_connection(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", ca.Server("sip.example.com"))
	client, answers := startLayer(t, Config{TLS: ca.Client()})

	flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr, ServerName: "SIP.example.com."})
	require.NoError(t, err)
	require.Equal(t, "TLS", flow.Transport())
	require.Equal(t, "TLS", flow.Local().Transport)
	require.NoError(t, flow.Send([]byte(options("there", "127.0.0.1", "body"))))
	a := next(t, arrivals)
	require.Equal(t, "TLS", a.msg.Transport())
	require.Equal(t, Local{Transport: "TLS", Host: "127.0.0.1", Port: int(addr.Port())}, a.flow.Local())
	require.NoError(t, a.flow.Send(ok("there")))
	require.Equal(t, "there", next(t, answers).msg.CallID().Value())

	state, secure := flow.TLS()
	require.True(t, secure)
	require.Equal(t, "sip.example.com", state.PeerCertificates[0].Subject.CommonName)
	state, secure = a.flow.TLS()
	require.True(t, secure)
	require.Equal(t, "sip.example.com", state.ServerName, "SNI")

	lost := make(chan error, 1)
	flow.Watch(func(err error) { lost <- err })
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-lost, io.EOF, "the server takes its leave")
	require.Zero(t, client.Stats().Connections)
}

func TestTLS_refuses_certificates_that_are_not_for_the_target(t *testing.T) {
	ca, other := testcert.New(t), testcert.New(t)
	expired := &tls.Config{Certificates: []tls.Certificate{ca.IssueUntil(time.Now().Add(-time.Hour), "sip.example.com")}}
	for name, c := range map[string]struct {
		server *tls.Config
		target string
		cause  any
	}{
		"another name":         {ca.Server("sip.example.com"), "sip.example.org", new(x509.HostnameError)},
		"a name, no address":   {ca.Server("sip.example.com"), "", new(x509.HostnameError)},
		"an address, no name":  {ca.Server("127.0.0.1"), "sip.example.com", new(x509.HostnameError)},
		"another address":      {ca.Server("127.0.0.2"), "", new(x509.HostnameError)},
		"an unknown authority": {other.Server("sip.example.com"), "sip.example.com", new(x509.UnknownAuthorityError)},
		"expired":              {expired, "sip.example.com", new(x509.CertificateInvalidError)},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := startLayer(t, Config{})
			addr := listenTLS(t, server, "tls", "127.0.0.1:0", c.server)
			client, _ := startLayer(t, Config{TLS: ca.Client()})
			_, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr, ServerName: c.target})
			require.ErrorIs(t, err, ErrTLS)
			require.ErrorAs(t, err, c.cause)
			require.EqualValues(t, 1, client.Stats().HandshakesFailed)
			require.Zero(t, client.Stats().Connections)
			require.NoError(t, server.Close())
			require.Zero(t, server.Stats().Connections)
		})
	}
}

func TestTLS_accepts_a_certificate_for_the_literal_address(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		addr := listenTLS(t, server, "tls", address, ca.Server("127.0.0.1", "::1"))
		client, _ := startLayer(t, Config{TLS: ca.Client()})
		flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
		require.NoError(t, err)
		require.NoError(t, flow.Send([]byte(options("x", "127.0.0.1", ""))))
		next(t, arrivals)
	}
}

// RFC 3261 26.3.1: a connection that was verified for one name says nothing
// about another.
func TestTLS_connections_are_found_by_address_and_name(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", ca.Server("a.example.com", "b.example.com"))
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	to := func(name string) *Flow {
		flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr, ServerName: name})
		require.NoError(t, err)
		return flow
	}
	require.True(t, to("a.example.com").Same(to("a.example.com")))
	require.False(t, to("a.example.com").Same(to("b.example.com")))
	_, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr, ServerName: "c.example.com"})
	require.ErrorIs(t, err, ErrTLS)
	require.Equal(t, 2, client.Stats().Connections)

	// One that we accepted is found by its address (RFC 5626 5.3), and not by a name:
	// its peer has shown us no certificate.
	require.NoError(t, to("a.example.com").Send([]byte(options("x", "127.0.0.1", ""))))
	peer := next(t, arrivals).flow
	target := Target{Transport: "TLS", Addr: peer.RemoteAddr()}
	flow, err := server.Connect(context.Background(), target)
	require.NoError(t, err)
	require.True(t, peer.Same(flow))
	flow, ready := server.ReadyTarget(target)
	require.True(t, ready && peer.Same(flow))
	target.ServerName = "a.example.com"
	_, err = server.Connect(context.Background(), target)
	require.ErrorContains(t, err, "refused")
}

// A connection that comes from the port of servers does not bypass the certificate of the
// requested server.
func TestTLS_connections_from_the_port_of_servers_are_not_found(t *testing.T) {
	for _, port := range []int{5061, 5071} {
		synctest.Test(t, func(t *testing.T) {
			network, ca := dialogtest.NewNetwork(), testcert.New(t)
			defer network.Close()
			server, arrivals := startLayer(t, Config{Network: fromPort{network.Host("192.0.2.1"), port}})
			addr := listenTLS(t, server, "tls", "192.0.2.1:5061", ca.Server("192.0.2.1"))
			client, _ := startLayer(t, Config{Network: network.Host("192.0.2.2"), TLS: ca.Client()})
			flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
			require.NoError(t, err)
			require.NoError(t, flow.Send([]byte(options("x", "192.0.2.2", ""))))
			_, ready := server.ReadyTarget(Target{Transport: "TLS", Addr: next(t, arrivals).flow.RemoteAddr()})
			require.Equal(t, port != 5061, ready)
			require.NoError(t, client.Close())
			require.NoError(t, server.Close())
		})
	}
}

// fromPort is a host to whom all connect from that port.
type fromPort struct {
	*dialogtest.Host
	port int
}

func (h fromPort) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := h.Host.Listen(ctx, network, address)
	return fromPortListener{ln, h.port}, err
}

type fromPortListener struct {
	net.Listener
	port int
}

func (l fromPortListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return fromPortConn{conn, l.port}, err
}

type fromPortConn struct {
	net.Conn
	port int
}

func (c fromPortConn) RemoteAddr() net.Addr {
	remote := addrPort(c.Conn.RemoteAddr())
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(remote.Addr(), uint16(c.port)))
}

func TestTLS_offers_a_client_certificate(t *testing.T) {
	ca := testcert.New(t)
	config := ca.Server("127.0.0.1")
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", config)

	ours := ca.Client()
	ours.Certificates = []tls.Certificate{ca.Issue("alice.example.com")}
	client, _ := startLayer(t, Config{TLS: ours})
	flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, flow.Send([]byte(options("x", "127.0.0.1", ""))))
	state, _ := next(t, arrivals).flow.TLS()
	require.Equal(t, "alice.example.com", state.PeerCertificates[0].Subject.CommonName)

	// Without one the connection ends; TLS 1.3 says so after the handshake.
	nobody, _ := startLayer(t, Config{TLS: ca.Client()})
	flow, err = nobody.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	if err == nil {
		lost := make(chan error, 1)
		flow.Watch(func(err error) { lost <- err })
		err = <-lost
	}
	require.ErrorIs(t, err, ErrTLS)
	require.NoError(t, server.Close())
	require.EqualValues(t, 1, server.Stats().HandshakesFailed)
}

func TestTLS_plain_bytes_get_nowhere(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", ca.Server("127.0.0.1"))
	for _, text := range []string{options("x", "127.0.0.1", ""), "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"} {
		conn := dialTCP(t, addr)
		write(t, conn, text)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		answer, _ := io.ReadAll(conn)
		require.NotContains(t, string(answer), "SIP/2.0")
	}
	// The server goes on.
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, flow.Send([]byte(options("after", "127.0.0.1", ""))))
	require.Equal(t, "after", next(t, arrivals).msg.CallID().Value())
	require.EqualValues(t, 3, server.Stats().HandshakesFailed)
	require.Eventually(t, func() bool { return server.Stats().Connections == 1 }, 10*time.Second, time.Millisecond)
}

func TestTLS_to_a_plain_port_is_an_error(t *testing.T) {
	server, _ := startLayer(t, Config{})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	client, _ := startLayer(t, Config{Limits: Limits{HandshakeTimeout: 200 * time.Millisecond}})
	_, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.ErrorIs(t, err, ErrTLS)
}

func TestTLS_listening_needs_certificates(t *testing.T) {
	l, _ := startLayer(t, Config{})
	_, err := l.Listen(context.Background(), ListenConfig{Transport: "tls", Address: "127.0.0.1:0"})
	require.ErrorIs(t, err, ErrTLS)
}

func TestTLS_a_panic_of_the_configuration_costs_one_connection(t *testing.T) {
	ca := testcert.New(t)
	config := ca.Server("127.0.0.1")
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == "panic.example.com" {
			panic("an application's mistake")
		}
		return nil, nil
	}
	server, _ := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", config)
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	_, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr, ServerName: "panic.example.com"})
	require.ErrorIs(t, err, ErrTLS)
	_, err = client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, server.Close())
	require.EqualValues(t, 1, server.Stats().Panics)
	require.Zero(t, server.Stats().Handshakes)
}

func TestTLS_an_answer_after_the_loss_goes_to_a_server_of_the_sent_by_name(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", ca.Server("127.0.0.1"))
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	for sentBy, want := range map[string]Target{
		"proxy.example.com:5071": {ServerName: "proxy.example.com"},
		"127.0.0.1:5071":         {},
	} {
		require.NoError(t, flow.Send([]byte(options("x", sentBy, ""))))
		a := next(t, arrivals)
		target, found := server.ReplyTarget(a.flow, a.m)
		require.True(t, found)
		require.Equal(t, want.ServerName, target.ServerName)
		require.Equal(t, "TLS", target.Transport)
		require.EqualValues(t, 5071, target.Addr.Port())
	}
}

// deadlines is a network whose connections remember their write deadline.
type deadlines struct {
	osNetwork
	conn *deadlineConn
}

type deadlineConn struct {
	net.Conn

	mu   sync.Mutex // guards the field below
	last time.Time
}

func (d *deadlines) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.osNetwork.DialContext(ctx, network, address)
	d.conn = &deadlineConn{Conn: conn}
	return d.conn, err
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = t
	return c.Conn.SetWriteDeadline(t)
}

func (c *deadlineConn) deadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// RFC 8446 4.6.3: TLS may answer a key update at any time.
func TestTLS_no_deadline_is_left_behind_by_a_message(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	addr := listenTLS(t, server, "tls", "127.0.0.1:0", ca.Server("127.0.0.1"))
	network := &deadlines{}
	client, _ := startLayer(t, Config{TLS: ca.Client(), Network: network})
	flow, err := client.Connect(context.Background(), Target{Transport: "TLS", Addr: addr})
	require.NoError(t, err)
	require.NoError(t, flow.Send([]byte(options("x", "127.0.0.1", ""))))
	next(t, arrivals)
	require.Eventually(t, func() bool { return network.conn.deadline().IsZero() }, 10*time.Second, time.Millisecond)
}
