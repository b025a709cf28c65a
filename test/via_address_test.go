package test

import (
	"context"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// sentBy is the host and port of a message's Via.
func sentBy(t *testing.T, msg sip.Message) string {
	t.Helper()
	via := msg.(*sip.Request).Via()
	require.NotNil(t, via)
	return hostPort(strings.Trim(via.Host, "[]"), via.Port)
}

// Several processes share a public address: requests of the peer go there, but responses
// to the process that asked (RFC 3261 18.1.1, 12.1.1).
func TestViaAddressIsInViaAndThePublicAddressInContact(t *testing.T) {
	const shared = "sip.example.com"
	for _, transport := range testkit.AllTransports() {
		for name, c := range map[string]struct {
			change func(*dialog.TransportConfig)
			via    string
		}{
			"address": {func(tc *dialog.TransportConfig) { tc.ViaAddress = otherIP }, hostPort(otherIP, portOf(transport))},
			"port":    {func(tc *dialog.TransportConfig) { tc.ViaPort = 7777 }, hostPort(stackIP, 7777)},
			"both": {func(tc *dialog.TransportConfig) { tc.ViaAddress, tc.ViaPort = "[2001:db8::7]", 7777 },
				hostPort("2001:db8::7", 7777)},
			"neither": {func(*dialog.TransportConfig) {}, hostPort(shared, 7000)},
		} {
			t.Run(transport+" "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					ca := testcert.New(t)
					node := w.site(stackIP, transport, ca, func(cfg *dialog.StackConfig) {
						cfg.Transport.PublicAddress, cfg.Transport.PublicPort = shared, 7000
						cfg.LearnPublicAddress = true // a configured address takes precedence
						c.change(cfg.Transport)
					})
					peer := w.site(peerIP, transport, ca)
					answered := peer.takes(t)
					d, callee := node.call(t, peer.uri("bob"), answered)
					require.NoError(t, d.Bye(context.Background(), ""))
					<-callee.Done()

					for _, method := range []string{"INVITE", "ACK", "BYE"} {
						sent := node.messages(true, method)
						require.NotEmpty(t, sent, method)
						if testkit.IsWS(transport) { // RFC 7118 5: a client accepts no connections
							require.Contains(t, values(sent[0].msg, "Via")[0], ".invalid")
							continue
						}
						require.Equal(t, c.via, sentBy(t, sent[0].msg), method)
					}
					if !testkit.IsWS(transport) {
						require.Contains(t, node.contact(t, "INVITE"), shared+":7000")
					}

					// As callee it has no Via of its own, and the same Contact.
					incoming := node.takes(t)
					back, here := peer.call(t, node.uri("alice"), incoming)
					require.Contains(t, node.contact(t, "200 INVITE"), shared+":7000")
					require.NoError(t, here.SendInfo(context.Background(), nil))
					info := node.messages(true, "INFO")
					require.Equal(t, c.via, sentBy(t, info[0].msg), "by a connection that the peer has opened")
					require.NoError(t, here.Bye(context.Background(), ""))
					<-back.Done()
				})
			})
		}
	}
}
