package test

import (
	"context"
	"testing"

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
