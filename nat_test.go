package dialog_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Where a router, a phone behind it and a server outside live.
const (
	routerIP = "203.0.113.1"
	phoneIP  = "192.168.0.2"
	serverIP = "198.51.100.1"
)

// behind starts a stack on a host behind a router, bound to all its addresses as a
// phone is.
func (w *world) behind(r *dialogtest.NAT, ip string, change ...func(*dialog.StackConfig)) *dialog.Stack {
	w.t.Helper()
	r.Inside().Tap(w.tap)
	return w.stack(ip, append([]func(*dialog.StackConfig){func(c *dialog.StackConfig) {
		c.Network, c.Transport.Address = r.Host(ip), "0.0.0.0"
	}}, change...)...)
}

// FN1: RFC 3581 3: an INVITE over UDP is repeated while it rings, so that the router
// still knows the way back when the callee answers.
func TestACallThatRingsLongerThanTheRouterRemembersIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		phone := w.behind(w.net.NAT(routerIP, dialogtest.NATConfig{}), phoneIP)
		server := w.stack(serverIP)
		ringing := waiting(server)
		d, err := phone.NewInvite(context.Background(), uri("bob", serverIP), offer(offerSDP))
		require.NoError(t, err)
		callee := <-ringing
		time.Sleep(105 * time.Second)
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.Len(t, times(w.sent(phoneIP, "INVITE")), 6, "one every 20 s")
		require.NoError(t, callee.Bye(context.Background(), ""))
		<-d.(*dialog.Dialog).Done()
	})
}
