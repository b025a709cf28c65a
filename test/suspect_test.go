package test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// cut is a call between a phone behind a router, which has connected to a server, and
// that server; a request that is not answered leaves it as it is.
func (w *world) cut(ca *testcert.Authority, transport string, keepAlive time.Duration) (router *dialogtest.NAT, phone, server *dialog.Dialog) {
	w.t.Helper()
	over := func(ip string) func(*dialog.StackConfig) {
		return func(c *dialog.StackConfig) {
			c.Transport.Protocol, c.KeepUnanswered, c.FlowKeepAlive = transport, true, keepAlive
			if testkit.IsSecure(transport) {
				c.Transport.TLSConfig, c.TLS = ca.Server(ip), ca.Client()
			}
		}
	}
	router = w.net.NAT(routerIP, dialogtest.NATConfig{})
	phone, server = w.established(w.behind(router, phoneIP, over(phoneIP)), w.stack(serverIP, over(serverIP)))
	return router, phone, server
}

// info sends an INFO, and returns what came of it and how long that took.
func info(d *dialog.Dialog) (time.Duration, error) {
	began := time.Now()
	err := d.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("x")))
	return time.Since(began), err
}

// FN8: of a connection that has died without a word one request is the victim; the next
// goes by a new one, and so does what comes back.
func TestTheRequestAfterOneThatTimedOutGoesByANewConnection(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				router, phone, server := w.cut(ca, transport, -1)
				router.Forget()
				took, err := info(phone)
				require.ErrorIs(t, err, dialog.ErrTimeout)
				require.Equal(t, 32*time.Second, took)
				took, err = info(phone)
				require.NoError(t, err)
				require.Zero(t, took)
				_, err = info(server)
				require.NoError(t, err)
			})
		})
	}
}

// Who cannot be connected to is asked by the connection that there is, and waits for
// nothing once that has shown to be dead.
func TestNothingWaitsLongForAConnectionThatIsDead(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range streams {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				router, phone, server := w.cut(ca, transport, -1)
				router.Forget()
				first := began(func() error { _, err := info(server); return err })
				time.Sleep(30 * time.Second)
				took, err := info(server)
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.Equal(t, 12*time.Second, took, "the first one's timeout, and ten seconds")
				require.ErrorIs(t, <-first, dialog.ErrTimeout)
				took, err = info(server)
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.Zero(t, took)
				require.Equal(t, dialog.DialogStateEstablished, server.State())

				_, _ = info(phone) // finds out, too
				_, err = info(phone)
				require.NoError(t, err)
				_, err = info(server)
				require.NoError(t, err)
			})
		})
	}
}
