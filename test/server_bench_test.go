package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// BenchmarkServer is a call at a server alone, as messages that are ready to be
// read and are not sent anywhere: INVITE, ACK and BYE. T1 is so short that what
// is left of calls goes while it runs.
func BenchmarkServer(b *testing.B) {
	server := newBenchServer(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		server.call(i)
	}
	b.StopTimer()
	server.close()
}

// benchServer is a server whose one socket is a benchWire.
type benchServer struct {
	testing.TB
	network *dialogtest.Network
	wire    *benchServed
	stack   *dialog.Stack
}

func newBenchServer(b testing.TB) *benchServer {
	network := dialogtest.NewNetwork()
	wire := &benchServed{answers: make(chan []byte, 100)}
	wire.benchWire = &benchWire{in: make(chan []byte), out: wire.sent, closed: make(chan struct{})}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		MaxDialogs: -1,
		Network:    benchNetwork{network.Host("10.0.0.1"), wire.benchWire},
		Timers:     dialog.Timers{T1: 50 * time.Millisecond},
		Limits:     dialog.Limits{Transactions: 1 << 20},
	})
	require.NoError(b, err)
	stack.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), benchAnswer); err != nil {
			b.Error(err)
		}
	})
	require.NoError(b, stack.Start(context.Background()))
	return &benchServer{b, network, wire, stack}
}

// call is one call, the number of which nobody has used before.
func (s *benchServer) call(i int) {
	wire := s.wire
	wire.in <- benchMessage("INVITE", i, 1, "", "Contact: <sip:sipp@10.0.0.9:5060>\r\nContent-Type: application/sdp\r\n", benchSession)
	tag := benchTag(wire.answer(i, "INVITE"))
	wire.in <- benchMessage("ACK", i, 1, tag, "", "")
	wire.in <- benchMessage("BYE", i, 2, tag, "", "")
	wire.answer(i, "BYE")
}

func (s *benchServer) close() {
	require.NoError(s, s.stack.Shutdown(context.Background()))
	s.network.Close()
}

// benchMessage is a request as sipp writes them.
func benchMessage(method string, call, seq int, tag, headers, body string) []byte {
	if tag != "" {
		tag = ";tag=" + tag
	}
	return fmt.Appendf(nil, "%s sip:service@10.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK-%s-%d\r\n"+
		"From: sipp <sip:sipp@10.0.0.9:5060>;tag=7SIPpTag00%d\r\nTo: service <sip:service@10.0.0.1:5060>%s\r\n"+
		"Call-ID: %d-7@10.0.0.9\r\nCSeq: %d %s\r\nMax-Forwards: 70\r\nSubject: Performance Test\r\n%sContent-Length: %d\r\n\r\n%s",
		method, method, call, call, tag, call, seq, method, headers, len(body), body)
}

func benchTag(answer []byte) string {
	_, to, _ := bytes.Cut(answer, []byte("\r\nTo:"))
	to, _, _ = bytes.Cut(to, []byte("\r\n"))
	_, tag, _ := bytes.Cut(to, []byte(";tag="))
	return string(tag)
}

// benchNetwork has one socket, which is a benchWire.
type benchNetwork struct {
	dialog.Network
	wire *benchWire
}

func (n benchNetwork) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return n.wire, nil
}

// benchServed hands out the 200s of a server.
type benchServed struct {
	*benchWire
	answers chan []byte
}

func (w *benchServed) sent(p []byte) {
	if bytes.HasPrefix(p, []byte("SIP/2.0 200")) {
		w.answers <- bytes.Clone(p)
	}
}

// answer returns the 200 to a request. One to a call before may be repeated.
func (w *benchServed) answer(call int, method string) []byte {
	id := fmt.Appendf(nil, "\r\nCall-ID: %d-7@", call)
	for answer := range w.answers {
		if bytes.Contains(answer, id) && bytes.Contains(answer, []byte(" "+method+"\r\n")) {
			return answer
		}
	}
	return nil
}

// benchWire is a socket that hands in what the benchmark sends, and out what
// the stack does.
type benchWire struct {
	in     chan []byte
	out    func(p []byte)
	closed chan struct{}
}

func (w *benchWire) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case data := <-w.in:
		return copy(p, data), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.9:5060")), nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *benchWire) WriteTo(p []byte, _ net.Addr) (int, error) {
	w.out(p)
	return len(p), nil
}

func (w *benchWire) Close() error { close(w.closed); return nil }
func (w *benchWire) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:5060"))
}
func (w *benchWire) SetDeadline(time.Time) error      { return nil }
func (w *benchWire) SetReadDeadline(time.Time) error  { return nil }
func (w *benchWire) SetWriteDeadline(time.Time) error { return nil }
