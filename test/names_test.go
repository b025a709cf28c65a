package test

import (
	"context"
	"net"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FA10: the machine's resolver was asked, which a bubble's clock waited for.
func TestNamesAreThoseOfTheNetwork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Resolver = nil }), w.peer(peerIP)
		w.net.Name("pbx.example.test", peerIP)
		w.net.Service("sip", "udp", "example.test", net.SRV{Target: "pbx.example.test.", Port: 5060})
		for _, host := range []string{"pbx.example.test", "example.test"} {
			d, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: host}, offer(offerSDP))
			require.NoError(t, err)
			p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: farTag})
			require.Error(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
			p.next("ACK")
		}
		for _, host := range []string{"example.com", "localhost", "nobody.test"} {
			_, err := a.NewInvite(context.Background(), sip.Uri{Scheme: "sip", User: "bob", Host: host}, offer(offerSDP))
			require.ErrorIs(t, err, dialog.ErrTransport)
			var unknown *net.DNSError
			require.ErrorAs(t, err, &unknown)
			require.True(t, unknown.IsNotFound)
		}
	})
}
