package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// benchSession is a session of a usual size.
const benchSession = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
	"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n" +
	"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"

// BenchmarkCall is a whole call between two stacks, one after the other: INVITE,
// 100, 180, 200, ACK, BYE, 200. Both ends, and the network, are in the figures.
func BenchmarkCall(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		benchCalls(b, benchStack(b, "10.0.0.1", network), benchStack(b, "10.0.0.2", network))
	})
	b.Run("loopback", func(b *testing.B) {
		benchCalls(b, benchStack(b, "127.0.0.1", nil), benchStack(b, "127.0.0.1", nil))
	})
}

// benchStack starts a stack on a host of the network, or on the machine's own.
func benchStack(b *testing.B, ip string, network *dialogtest.Network) *dialog.Stack {
	b.Helper()
	config := &dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: ip},
		MaxDialogs: -1,
	}
	if network != nil {
		config.Network = network.Host(ip)
	}
	s, err := dialog.NewStack(config)
	require.NoError(b, err)
	require.NoError(b, s.Start(context.Background()))
	return s
}

func benchCalls(b *testing.B, a, z *dialog.Stack) {
	ctx := context.Background()
	defer func() {
		require.NoError(b, a.Shutdown(ctx))
		require.NoError(b, z.Shutdown(ctx))
	}()
	z.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(ctx, benchAnswer); err != nil {
			b.Error(err)
		}
	})
	target := sip.Uri{Scheme: "sip", User: "z", Host: z.Addr().Addr().String(), Port: int(z.Addr().Port())}
	opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(benchSession))}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		d, err := a.NewInvite(ctx, target, opts)
		require.NoError(b, err)
		require.NoError(b, d.(*dialog.Dialog).WaitAnswer(ctx))
		require.NoError(b, d.Bye(ctx, ""))
	}
	b.StopTimer()
}

func benchAnswer(ok *sip.Response) {
	ok.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	ok.SetBody([]byte(benchSession))
}

// BenchmarkClient is a call of a client alone, whose peer answers as sipp does: by
// copying header lines. See BenchmarkServer.
func BenchmarkClient(b *testing.B) {
	network := dialogtest.NewNetwork()
	defer network.Close()
	peer := &benchPeer{}
	peer.benchWire = &benchWire{in: make(chan []byte, 2), out: peer.answer, closed: make(chan struct{})}
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		MaxDialogs: -1,
		Network:    benchNetwork{network.Host("10.0.0.1"), peer.benchWire},
		Timers:     dialog.Timers{T1: 50 * time.Millisecond},
	})
	require.NoError(b, err)
	ctx := context.Background()
	require.NoError(b, stack.Start(ctx))
	target := sip.Uri{Scheme: "sip", User: "service", Host: "10.0.0.9", Port: 5060}
	opts := dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(benchSession))}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		d, err := stack.NewInvite(ctx, target, opts)
		require.NoError(b, err)
		require.NoError(b, d.(*dialog.Dialog).WaitAnswer(ctx))
		require.NoError(b, d.Bye(ctx, ""))
	}
	b.StopTimer()
	require.NoError(b, stack.Shutdown(ctx))
}

// benchPeer answers INVITE by 180 and 200, and BYE by 200.
type benchPeer struct{ *benchWire }

func (p *benchPeer) answer(request []byte) {
	switch {
	case bytes.HasPrefix(request, []byte("INVITE ")):
		contact := "Contact: <sip:sipp@10.0.0.9:5060>\r\n"
		p.in <- benchResponse("180 Ringing", request, ";tag=sipp", contact, "")
		p.in <- benchResponse("200 OK", request, ";tag=sipp", contact+"Content-Type: application/sdp\r\n", benchSession)
	case bytes.HasPrefix(request, []byte("BYE ")):
		p.in <- benchResponse("200 OK", request, "", "", "")
	}
}

func benchResponse(status string, request []byte, tag, headers, body string) []byte {
	response := make([]byte, 0, 1024)
	response = fmt.Appendf(response, "SIP/2.0 %s\r\n", status)
	for _, name := range []string{"Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "} {
		line := benchLine(request, name)
		response = append(response, line...)
		if name == "To: " {
			response = append(response, tag...)
		}
		response = append(response, "\r\n"...)
	}
	return fmt.Appendf(response, "%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
}

// benchLine is the header line of that name, without its end.
func benchLine(request []byte, name string) []byte {
	at := bytes.Index(request, []byte("\r\n"+name)) + 2
	return request[at : at+bytes.IndexByte(request[at:], '\r')]
}

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

func newBenchServer(b testing.TB, change ...func(*dialog.StackConfig)) *benchServer {
	network := dialogtest.NewNetwork()
	wire := &benchServed{answers: make(chan []byte, 100)}
	wire.benchWire = &benchWire{in: make(chan []byte), out: wire.sent, closed: make(chan struct{})}
	config := &dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		MaxDialogs: -1,
		Network:    benchNetwork{network.Host("10.0.0.1"), wire.benchWire},
		Timers:     dialog.Timers{T1: 50 * time.Millisecond},
		Limits:     dialog.Limits{Transactions: 1 << 20},
	}
	for _, c := range change {
		c(config)
	}
	stack, err := dialog.NewStack(config)
	require.NoError(b, err)
	stack.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(context.Background(), benchAnswer); err != nil {
			b.Error(err)
		}
	})
	require.NoError(b, stack.Start(context.Background()))
	return &benchServer{b, network, wire, stack}
}

// call is one call, with a new number.
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

func (w *benchWire) SetDeadline(time.Time) error { return nil }

func (w *benchWire) SetReadDeadline(time.Time) error { return nil }

func (w *benchWire) SetWriteDeadline(time.Time) error { return nil }
