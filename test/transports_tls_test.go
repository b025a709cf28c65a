package test

import (
	"context"
	"crypto/tls"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/internal/transport"
)

// refused calls, and returns why that came to nothing, which is to be known at
// once.
func (s *site) refused(t *testing.T, target sip.Uri) error {
	t.Helper()
	began := time.Now()
	d, err := s.NewInvite(context.Background(), target, offer(offerSDP))
	if err == nil {
		call := d.(*dialog.Dialog)
		err = call.WaitAnswer(context.Background())
		require.Equal(t, dialog.PartyTransport, call.Cause().By)
		require.ErrorIs(t, call.Cause().Err, dialog.ErrTransport)
	}
	require.ErrorIs(t, err, dialog.ErrTransport)
	require.Zero(t, time.Since(began))
	synctest.Wait()
	require.Empty(t, s.Dialogs())
	left := testkit.Held(s.Stack)
	left.Tombstones, left.TombstoneTimer = 0, false // for 64*T1
	require.Zero(t, left)
	return err
}

// E4: TLS verifies whom it talks to.
func TestE4TLSRefusesWhatItCannotVerify(t *testing.T) {
	ca, other := testcert.New(t), testcert.New(t)
	wrongName := ca.Server("10.0.0.77")
	expired := &tls.Config{Certificates: []tls.Certificate{ca.IssueUntil(time.Unix(1, 0), "10.0.0.2")}}
	for _, transport := range []string{"tls", "wss"} {
		for _, c := range []struct {
			name   string
			server *tls.Config
			client *tls.Config
		}{
			{"a certificate for another name", wrongName, ca.Client()},
			{"an unknown authority", ca.Server("10.0.0.2"), other.Client()},
			{"a certificate that is not valid any more", expired, ca.Client()},
			{"no TLS version in common", ca.Server("10.0.0.2"), &tls.Config{RootCAs: ca.Client().RootCAs, MaxVersion: tls.VersionTLS11}},
		} {
			t.Run(transport+": "+c.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					b := w.site("10.0.0.2", transport, ca, func(s *dialog.StackConfig) { s.Transport.TLSConfig = c.server })
					a := w.site("10.0.0.1", transport, ca, func(s *dialog.StackConfig) { s.TLS = c.client.Clone() })
					require.ErrorIs(t, a.refused(t, b.uri("bob")), errTLS)
					_, err := a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, b.uri("bob")))
					require.ErrorIs(t, err, dialog.ErrTransport)
					require.Empty(t, b.messages(false, ""))
					if c.server == wrongName || c.server == expired { // nobody could call it
						return
					}
					good := w.site("10.0.0.3", transport, ca) // the listener goes on
					_, _ = good.call(t, b.uri("bob"), b.takes(t))
				})
			})
		}
	}
}

// errTLS is what a handshake's failure wraps.
var errTLS = transport.ErrTLS

// E4: a listener that asks for a client's certificate turns away who has none;
// with TLS 1.3 the client learns of that only after its own handshake.
func TestE4TLSAsksForClientCertificates(t *testing.T) {
	ca, other := testcert.New(t), testcert.New(t)
	mutual := ca.Server("10.0.0.2")
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Client().RootCAs
	for _, transport := range []string{"tls", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.site("10.0.0.2", transport, ca, func(c *dialog.StackConfig) { c.Transport.TLSConfig = mutual })
				calls := b.takes(t)
				none := w.site("10.0.0.1", transport, ca)
				_ = none.refused(t, b.uri("bob"))
				wrong := w.site("10.0.0.3", transport, ca, func(c *dialog.StackConfig) {
					c.TLS.Certificates = []tls.Certificate{other.Issue("10.0.0.3")}
				})
				_ = wrong.refused(t, b.uri("bob"))
				require.Empty(t, b.messages(false, ""))
				right := w.site("10.0.0.4", transport, ca, func(c *dialog.StackConfig) {
					c.TLS.Certificates = []tls.Certificate{ca.Issue("10.0.0.4")}
				})
				right.follows(t)
				b.follows(t)
				caller, callee := right.call(t, b.uri("bob"), calls)
				converse(t, caller, callee, true)
			})
		})
	}
}

// E4: plain bytes on a TLS port get nowhere, and hold nothing up.
func TestE4PlaintextOnATLSPortGetsNowhere(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range []string{"tls", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.site("10.0.0.2", transport, ca)
				calls := b.takes(t)

				conn, err := w.net.Host("10.0.0.9").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				_, err = io.WriteString(conn, "OPTIONS sip:b@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.9;branch=z9hG4bK1\r\n"+
					"From: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
				require.NoError(t, err)
				began := time.Now()
				answer, _ := io.ReadAll(conn) // until it is closed
				require.NotContains(t, string(answer), "SIP/2.0")
				require.Zero(t, time.Since(began))
				require.NoError(t, conn.Close())

				plain := map[string]string{"tls": "tcp", "wss": "ws"}[transport]
				a := w.site("10.0.0.1", plain, ca)
				_ = a.refused(t, testkit.URIOver(plain, "bob", b.Addr()))

				silent, err := w.net.Host("10.0.0.8").DialContext(context.Background(), "tcp", b.Addr().String())
				require.NoError(t, err)
				good := w.site("10.0.0.3", transport, ca)
				_, _ = good.call(t, b.uri("bob"), calls)
				require.NoError(t, silent.Close())
				require.Len(t, b.messages(false, "INVITE"), 1)
			})
		})
	}
}
