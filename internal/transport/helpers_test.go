package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
)

// arrival is one message a layer handed up.
type arrival struct {
	m    *sipmsg.Message
	msg  sip.Message // m as sipgo has it
	flow *Flow
}

// startLayer returns a layer whose messages come out of the channel. It is
// closed with the test.
func startLayer(t *testing.T, cfg Config) (*Layer, <-chan arrival) {
	t.Helper()
	l := New(cfg)
	arrivals := make(chan arrival, 1024)
	ended := make(chan struct{}) // a handler must not block when arrivals are not read any more
	l.Handle(func(m *sipmsg.Message, flow *Flow) {
		select {
		case arrivals <- arrival{m, m.SIP(), flow}:
		case <-ended:
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = l.Close()
	})
	return l, arrivals
}

func listenTLS(t *testing.T, l *Layer, transport, address string, config *tls.Config) netip.AddrPort {
	t.Helper()
	addr, err := l.Listen(context.Background(), ListenConfig{Transport: transport, Address: address, TLS: config})
	require.NoError(t, err)
	return addr
}

func listen(t *testing.T, l *Layer, transport, address string) netip.AddrPort {
	t.Helper()
	addr, err := l.Listen(context.Background(), ListenConfig{Transport: transport, Address: address})
	require.NoError(t, err)
	return addr
}

// next waits for an arrival; a test that would hang fails.
func next(t *testing.T, arrivals <-chan arrival) arrival {
	t.Helper()
	select {
	case a := <-arrivals:
		return a
	case <-time.After(10 * time.Second):
		require.FailNow(t, "no message arrived")
		return arrival{}
	}
}

// text makes a message of lines, each ended by CRLF, and a body.
func text(body string, lines ...string) string {
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// options is a well-formed request with its own Call-ID, sent-by and body.
func options(callID, sentBy, body string) string {
	return text(body,
		"OPTIONS sip:bob@example.com SIP/2.0",
		"Via: SIP/2.0/UDP "+sentBy+";branch=z9hG4bK"+callID,
		"Max-Forwards: 70",
		"From: <sip:alice@example.com>;tag=a",
		"To: <sip:bob@example.com>",
		"Call-ID: "+callID,
		"CSeq: 1 OPTIONS",
		fmt.Sprintf("Content-Length: %d", len(body)),
	)
}

func ok(callID string) []byte {
	return []byte(text("",
		"SIP/2.0 200 OK",
		"Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK"+callID,
		"From: <sip:alice@example.com>;tag=a",
		"To: <sip:bob@example.com>;tag=b",
		"Call-ID: "+callID,
		"CSeq: 1 OPTIONS",
		"Content-Length: 0",
	))
}

// dialTCP is a bare client that the test closes.
func dialTCP(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn
}

// bindUDP is a bare UDP peer that the test closes.
func bindUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn.(*net.UDPConn)
}

func sendUDP(t *testing.T, conn *net.UDPConn, to netip.AddrPort, msg string) {
	t.Helper()
	_, err := conn.WriteToUDPAddrPort([]byte(msg), to)
	require.NoError(t, err)
}

func receiveUDP(t *testing.T, conn *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	require.NoError(t, err)
	return string(buf[:n]), unmap(from)
}

func loopback(conn net.PacketConn) netip.AddrPort {
	return addrPort(conn.LocalAddr())
}
