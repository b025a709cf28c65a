package test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

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
