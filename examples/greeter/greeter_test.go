package greeter_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/examples/greeter"
)

var session = dialog.NewBody("application/sdp", []byte("v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\n"+
	"c=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"))

var bob = sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}

// start starts a stack on a network in memory, and shuts it down at the end of the test.
func start(t *testing.T, network *dialogtest.Network, ip string) *dialog.Stack {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:   network.Host(ip),
	})
	require.NoError(t, err)
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, stack.Shutdown(context.Background())) })
	return stack
}

// The minute passes at once, and is a minute exactly.
func TestGreeterHangsUpAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		greeter.Serve(start(t, network, "10.0.0.2"), session)
		begin := time.Now()
		call, err := start(t, network, "10.0.0.1").Call(t.Context(), bob, dialog.InviteOpts{Body: session})
		require.NoError(t, err)
		<-call.Done()
		require.Equal(t, greeter.Patience, time.Since(begin))
		require.Equal(t, dialog.PartyRemote, call.Cause().By)
		require.Equal(t, "time is up", call.Cause().Reason)
	})
}

// A third of all datagrams is lost, others come twice or late: the call stands all the same.
func TestGreeterOverABadNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		network.SetPolicy(dialogtest.Lossy(1, 0.3, 0.1, 200*time.Millisecond))
		greeter.Serve(start(t, network, "10.0.0.2"), session)
		call, err := start(t, network, "10.0.0.1").Call(t.Context(), bob, dialog.InviteOpts{Body: session})
		require.NoError(t, err)
		<-call.Done()
		require.Equal(t, dialog.PartyRemote, call.Cause().By)
	})
}

// A scripted peer does what no stack would: it calls, and never sends the ACK.
func TestGreeterEndsACallWithoutACK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		stack := start(t, network, "10.0.0.2")
		greeter.Serve(stack, session)
		peer, err := dialogtest.NewEndpoint(network.Host("10.0.0.1"), "10.0.0.1:5060")
		require.NoError(t, err)
		invite := peer.Request(dialogtest.Request{
			Method: "INVITE", URI: "sip:bob@10.0.0.2", Body: string(session.Data()),
		})
		begin := time.Now()
		require.NoError(t, peer.Send(stack.Addr(), invite))
		for {
			in, err := peer.Recv(t.Context())
			require.NoError(t, err)
			if req := in.Request(); req != nil {
				require.Equal(t, sip.BYE, req.Method)
				require.NoError(t, peer.Reply(in, dialogtest.Response{Code: 200}))
				break
			}
		}
		require.Equal(t, 32*time.Second, time.Since(begin)) // 64*T1 (RFC 3261 13.3.1.4)
	})
}
