package auth

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
)

const (
	authorization      = "Authorization"
	proxyAuthorization = "Proxy-Authorization"
)

// Challenge is the challenge of a server or a proxy, without its nonce.
type Challenge struct {
	Realm string
	// Proxy is true for a Proxy-Authenticate, false for a WWW-Authenticate.
	Proxy bool
	// Algorithm is the challenge's algorithm, "MD5" if it has none.
	Algorithm string
	// QOP lists the qualities of protection; nil: none.
	QOP []string
	// Stale is true if the nonce was too old, and the password not wrong.
	Stale bool
}

func viewOf(sp space, c *digest.Challenge) Challenge {
	view := Challenge{Realm: sp.realm, Proxy: sp.proxy, Algorithm: c.Algorithm, Stale: c.Stale}
	if view.Algorithm == "" {
		view.Algorithm = "MD5"
	}
	for _, qop := range c.QOP {
		view.QOP = append(view.QOP, strings.TrimSpace(qop))
	}
	return view
}

// space is the protection space of a challenge: a realm of a server, or of a proxy.
type space struct {
	proxy bool
	realm string
}

func (s space) header() string {
	if s.proxy {
		return proxyAuthorization
	}
	return authorization
}

// maxChallenge bounds a challenge that is kept.
const maxChallenge = 4 << 10

// challengesIn returns the challenges of a response. Of several for one realm it
// returns the one with the strongest algorithm that can be answered (RFC 8760 2.4 leaves
// this to policy). If strict is true, it leaves out MD5 without qop.
func challengesIn(res *sip.Response, strict bool) map[space]*digest.Challenge {
	best := make(map[space]*digest.Challenge)
	collect := func(name string, proxy bool) {
		for _, h := range res.GetHeaders(name) {
			challenge, ok := readChallenge(h.Value())
			if !ok || strict && isLegacy(challenge) {
				continue
			}
			s := space{proxy: proxy, realm: challenge.Realm}
			if known := best[s]; known == nil || strength(challenge) > strength(known) {
				best[s] = challenge
			}
		}
	}
	collect("WWW-Authenticate", false)
	collect("Proxy-Authenticate", true)
	return best
}

// readChallenge parses a challenge; ok is false if it cannot be answered.
func readChallenge(value string) (*digest.Challenge, bool) {
	if len(value) > maxChallenge {
		return nil, false
	}
	c, err := sipmsg.ParseChallenge(value)
	if err != nil {
		return nil, false
	}
	challenge := &digest.Challenge{
		Realm: c.Realm, Domain: c.Domain, Nonce: c.Nonce, Opaque: c.Opaque, Stale: c.Stale, Algorithm: c.Algorithm,
		QOP: c.QOP, Charset: c.Charset, Userhash: c.UserHash,
	}
	return challenge, digest.CanDigest(challenge)
}

// isLegacy reports whether a challenge follows RFC 2069: such a digest contains no value
// of ours but the password.
func isLegacy(c *digest.Challenge) bool { return len(c.QOP) == 0 && strength(c) == 1 }

func strength(c *digest.Challenge) int {
	switch algorithm := strings.ToUpper(c.Algorithm); {
	case strings.HasPrefix(algorithm, "SHA-512"):
		return 3
	case strings.HasPrefix(algorithm, "SHA-256"):
		return 2
	default:
		return 1
	}
}

// valid reports whether a quoted-string can contain the user name (RFC 3261 25.1).
func (l Login) valid() bool { return !strings.ContainsAny(l.Username, "\r\n\x00") }

// answer is a challenge with the login that answers it. It is immutable; all answers to
// one nonce share its count.
type answer struct {
	challenge *digest.Challenge
	login     Login
	count     *count
}

// credentials computes the header value for a request, the nth with the nonce (RFC 7616
// 3.4).
func (a *answer) credentials(req *draft.Request, n int) (string, error) {
	credentials, err := digest.Digest(a.challenge, digest.Options{
		Method: string(req.Method), URI: req.URI(), Count: n,
		Username: a.login.Username, Password: a.login.Password,
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(req.Body)), nil },
	})
	if err != nil {
		return "", err
	}
	return headerOf(credentials), nil
}

// headerOf returns the value of an Authorization (RFC 3261 25.1). Quoted values of the
// server are repeated unchanged. Some servers expect the response parameter last.
func headerOf(c *digest.Credentials) string {
	var b strings.Builder
	b.WriteString("Digest username=" + sipmsg.Quote(c.Username))
	for _, param := range []struct {
		name, value string
		isSet       bool
	}{
		{"realm", sipmsg.Quote(c.Realm), true}, {"nonce", sipmsg.Quote(c.Nonce), true}, {"uri", sipmsg.Quote(c.URI), true},
		{"algorithm", c.Algorithm, c.Algorithm != ""}, {"cnonce", sipmsg.Quote(c.Cnonce), c.QOP != ""},
		{"opaque", sipmsg.Quote(c.Opaque), c.Opaque != ""}, {"qop", c.QOP, c.QOP != ""},
		{"nc", fmt.Sprintf("%08x", c.Nc), c.QOP != ""}, {"userhash", "true", c.Userhash}, {"response", sipmsg.Quote(c.Response), true},
	} {
		if param.isSet {
			b.WriteString(", " + param.name + "=" + param.value)
		}
	}
	return b.String()
}
