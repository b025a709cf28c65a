package dialogtest_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

func endpoints(t *testing.T) (alice, bob *dialogtest.Endpoint) {
	t.Helper()
	n := newNetwork(t)
	alice, err := dialogtest.NewEndpoint(n.Host("10.0.0.1"), ":5060")
	require.NoError(t, err)
	bob, err = dialogtest.NewEndpoint(n.Host("10.0.0.2"), ":5060")
	require.NoError(t, err)
	return alice, bob
}

func TestEndpointsPlayACall(t *testing.T) {
	alice, bob := endpoints(t)
	ctx := context.Background()
	sdp := "v=0\na=sendrecv\n"
	require.NoError(t, alice.Send(bob.Addr(), alice.Request(dialogtest.Request{
		Method: "INVITE", URI: "sip:bob@10.0.0.2", Headers: []string{"Record-Route: <sip:p1;lr>", "Record-Route: <sip:p2;lr>"}, Body: sdp,
	})))
	invite, err := bob.Recv(ctx)
	require.NoError(t, err)
	require.Nil(t, invite.Response())
	req := invite.Request()
	require.Equal(t, "INVITE", string(req.Method))
	require.Equal(t, alice.Addr(), invite.From)
	require.Equal(t, "application/sdp", req.ContentType().Value())
	require.Equal(t, "v=0\r\na=sendrecv\r\n", string(req.Body()))
	require.Equal(t, "<sip:peer@10.0.0.1:5060>", req.Contact().Value())

	require.NoError(t, bob.Reply(invite, dialogtest.Response{Code: 200, ToTag: "b", Body: sdp}))
	answer, err := alice.Recv(ctx)
	require.NoError(t, err)
	require.Nil(t, answer.Request())
	res := answer.Response()
	require.Equal(t, "SIP/2.0 200 OK", res.StartLine())
	require.Equal(t, req.Via().Value(), res.Via().Value())
	require.Len(t, res.GetHeaders("Record-Route"), 2)
	got, _ := res.To().Params.Get("tag")
	require.Equal(t, "b", got)
	require.ErrorContains(t, alice.Reply(answer, dialogtest.Response{}), "not a request")

	require.NoError(t, alice.Send(bob.Addr(), alice.Request(dialogtest.Request{Method: "BYE", ToTag: "b", CSeq: 2})))
	bye, err := bob.Recv(ctx)
	require.NoError(t, err)
	require.Equal(t, req.CallID().Value(), bye.Request().CallID().Value())
	require.NotEqual(t, req.Via().Value(), bye.Request().Via().Value())
	require.Equal(t, 1, strings.Count(bob.Response(bye.Request(), dialogtest.Response{Code: 481, ToTag: "other"}), ";tag=b\r\n"))
}

func TestEndpointReturnsMalformedDatagrams(t *testing.T) {
	alice, bob := endpoints(t)
	require.NoError(t, alice.Send(bob.Addr(), "hello\n"))
	r, err := bob.Recv(context.Background())
	require.ErrorContains(t, err, "10.0.0.1:5060")
	require.Equal(t, "hello\r\n", string(r.Data))
}

func TestEndpointWaitsForItsContextAndItsClose(t *testing.T) {
	alice, bob := endpoints(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := bob.Recv(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, bob.Close())
	_, err = bob.Recv(context.Background())
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, alice.Send(bob.Addr(), "x"))
}

func TestEndpointNeedsAFreeAddress(t *testing.T) {
	n := newNetwork(t)
	bind(t, n.Host("10.0.0.1"), ":5060")
	_, err := dialogtest.NewEndpoint(n.Host("10.0.0.1"), ":5060")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

// A scripted peer refuses a call.
func ExampleEndpoint() {
	n := dialogtest.NewNetwork()
	defer n.Close()
	caller, _ := dialogtest.NewEndpoint(n.Host("10.0.0.1"), ":5060")
	callee, _ := dialogtest.NewEndpoint(n.Host("10.0.0.2"), ":5060")

	invite := caller.Request(dialogtest.Request{Method: "INVITE", URI: "sip:bob@10.0.0.2"})
	if err := caller.Send(callee.Addr(), invite); err != nil {
		fmt.Println(err)
	}
	in, _ := callee.Recv(context.Background())
	_ = callee.Reply(in, dialogtest.Response{Code: 486, ToTag: "b"})
	answer, _ := caller.Recv(context.Background())
	fmt.Println(in.Request().StartLine())
	fmt.Println(answer.Response().StartLine())
	// Output:
	// INVITE sip:bob@10.0.0.2 SIP/2.0
	// SIP/2.0 486 Busy Here
}
