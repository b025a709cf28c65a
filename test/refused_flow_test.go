package test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// A call that is refused at a limit does not keep the flow open that it came by: neither
// by keep-alives to its source, nor an idle connection.
func TestARefusedCallKeepsNoFlow(t *testing.T) {
	for name, limit := range map[string]func(c *dialog.StackConfig){
		"dialogs": func(c *dialog.StackConfig) { c.MaxDialogs = 1 },
		"source":  func(c *dialog.StackConfig) { c.Limits.DialogsPerSource = 1 },
		"bytes":   func(c *dialog.StackConfig) { c.Limits.CallBytes = 1 },
	} {
		t.Run(name+" by UDP", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				counted := countKeepAlives(w.net)
				b := w.stack(serverIP, limit)
				b.OnIncomingDialog(func(dialog.IDialog) {})
				for port := range uint16(2) {
					p := w.viaNAT(publicIP, 31337+port)
					require.NoError(t, p.Send(b.Addr(), newCall(p, b, privateContact)))
				}
				synctest.Wait()
				require.NotEmpty(t, w.sent(serverIP, "503 INVITE"))
				time.Sleep(10 * time.Minute) // the other has rung in vain
				_ = counted.sent(serverIP)
				time.Sleep(time.Hour)
				require.Zero(t, counted.sent(serverIP))
			})
		})
		t.Run(name+" by TCP", func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(serverIP, limit, func(c *dialog.StackConfig) { c.Transport.Protocol = "tcp" })
				b.OnIncomingDialog(func(dialog.IDialog) {})
				p := w.peer(otherIP)
				for range 2 {
					conn, err := w.net.Host(otherIP).DialContext(context.Background(), "tcp", b.Addr().String())
					require.NoError(t, err)
					t.Cleanup(func() { _ = conn.Close() })
					_, err = conn.Write([]byte(overTCP(newCall(p, b))))
					require.NoError(t, err)
					go func() { _, _ = io.Copy(io.Discard, conn) }()
				}
				time.Sleep(time.Hour)
				require.EqualValues(t, 2, b.Stats().Dropped["idle connections"])
			})
		})
	}
}

// newCall is an INVITE of a peer's.
func newCall(p *peer, b *dialog.Stack, headers ...string) string {
	return p.Request(dialogtest.Request{
		Method: "INVITE", URI: "sip:service@" + b.Addr().String(), From: "sip:caller@" + p.ip, FromTag: dialog.TagGen(),
		CallID: dialog.TagGen(), CSeq: 1, Body: offerSDP, Headers: headers,
	})
}
