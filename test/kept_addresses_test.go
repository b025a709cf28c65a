package test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
)

// Two processes share a name with SRV records, and their calls. One dies in a call: requests
// of the peer go to the other one by the next record (RFC 3263 4.3), which takes the call, and
// requests of that one reach the peer.
func TestCallIsFoundByTheNextSRVRecord(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const name, first, second = "sip.example.com", "10.0.0.11", "10.0.0.12"
		w.net.Service("sip", "udp", name,
			net.SRV{Target: "one.example.com", Port: 5060, Priority: 1}, net.SRV{Target: "two.example.com", Port: 5060, Priority: 2})
		w.net.Name("one.example.com", first)
		w.net.Name("two.example.com", second)
		store, ctx := memory.New(), context.Background()
		shared := func(ip string) (*dialog.Stack, *link) {
			s, k := w.process(ip, store, func(c *dialog.StackConfig) {
				c.Transport.PublicAddress, c.Transport.ViaAddress = name, ip
			})
			s.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(ctx, withSDP(answerSDP)) })
			return s, k
		}
		one, k := shared(first)
		two, _ := shared(second)
		taken := restoring(two)
		peer := w.stack(peerIP, func(c *dialog.StackConfig) { c.Resolver = nil })
		placed, err := peer.NewInvite(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: name}, offer(offerSDP))
		require.NoError(t, err)
		call := placed.(*dialog.Dialog)
		require.NoError(t, call.WaitAnswer(ctx))
		require.Len(t, one.Dialogs(), 1)

		w.kill(one, k)
		w.net.Host(first).Unreachable(true)
		_, err = call.Update(ctx, nil)
		require.NoError(t, err)
		require.Len(t, taken.all(), 1)
		d := taken.all()[0].Dialog
		require.NoError(t, d.Hold(ctx))
		require.NoError(t, d.Bye(ctx, ""))
		<-call.Done()
		require.Equal(t, "remote BYE", call.Cause().String())
		time.Sleep(time.Second)
		require.Zero(t, store.Len())
	})
}
