package test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// FW9: challenges as the grammar has them (RFC 3261 25.1): white space, the case of
// names, parameters that nobody knows, empty list elements. The qop counts.
func TestChallengesAreReadByTheGrammar(t *testing.T) {
	for challenge, qop := range map[string]string{
		"Digest\trealm=\"r\",\tnonce=\"n\"\t,\tqop=\"auth\"":                                          "auth",
		`digest Realm="r", NONCE="n", QOP="AUTH"`:                                                     "auth",
		`Digest realm="r", nonce="n", qop="auth",`:                                                    "auth",
		`Digest , realm = "r" ,, nonce="n", qop=auth`:                                                 "auth",
		`Digest x.y-z_1="a,b", realm="r", nonce="n", unknown=a.b_c-d, qop="auth", flag`:               "auth",
		`Digest realm="r", nonce="n", qop=""`:                                                         "",
		`Digest realm="r", nonce="n"`:                                                                 "",
		`Digest realm="r", nonce="n", qop="token,Auth"`:                                               "auth",
		`Digest realm="r", nonce="n", qop="auth-int"`:                                                 "auth-int",
		"Digest realm=\"r\",\r\n nonce=\"n\",\r\n\tqop=\"auth\"":                                      "auth",
		`Digest realm="r", nonce="n", qop="auth", algorithm=md5, domain="sip:a sip:b", charset=UTF-8`: "auth",
	} {
		t.Run(challenge, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP, func(c *dialog.StackConfig) {
					c.Credentials = func(realm string) (string, string, bool) { return "alice", "secret", realm == "r" }
				})
				p := w.textPeer(peerIP)
				result := began(func() error {
					req := sip.NewRequest(sip.OPTIONS, uri("bob", peerIP))
					req.SetBody([]byte("body"))
					_, err := a.Do(context.Background(), req)
					return err
				})
				first := p.next("OPTIONS")
				respond := func(to, status string, more ...string) {
					p.send(a.Addr(), append([]string{status, "Via: " + fieldOf(t, to, "Via"), "From: " + fieldOf(t, to, "From"), "To: <sip:bob@h>;tag=far",
						"Call-ID: " + fieldOf(t, to, "Call-ID"), "CSeq: " + fieldOf(t, to, "CSeq")}, more...)...)
				}
				respond(first, "SIP/2.0 401 Unauthorized", "WWW-Authenticate: "+challenge)
				second := p.next("OPTIONS")
				require.NotEmpty(t, second, "it is not answered")
				got, err := digest.ParseCredentials(fieldOf(t, second, "Authorization"))
				require.NoError(t, err)
				require.Equal(t, qop, got.QOP)
				offered := &digest.Challenge{Realm: "r", Nonce: "n", Algorithm: got.Algorithm}
				if qop != "" {
					offered.QOP = []string{qop}
				}
				checkDigest(t, got, offered, "OPTIONS", "body")
				respond(second, "SIP/2.0 200 OK")
				require.NoError(t, <-result)
			})
		})
	}
}

// checkDigest computes what a server does.
func checkDigest(t *testing.T, got *digest.Credentials, offered *digest.Challenge, method, body string) {
	t.Helper()
	want, err := digest.Digest(offered, digest.Options{
		Method: method, URI: got.URI, Username: "alice", Password: "secret", Cnonce: got.Cnonce, Count: got.Nc, GetBody: readerOf(body),
	})
	require.NoError(t, err)
	require.Equal(t, want.Response, got.Response)
}

func readerOf(body string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
}
