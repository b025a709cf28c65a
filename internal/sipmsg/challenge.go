package sipmsg

import (
	"errors"
	"strings"
)

var errChallenge = errors.New("malformed challenge")

// Challenge is a digest challenge, its values without quotes (RFC 3261 22.4,
// 25.1; RFC 7616 3.3). Parameters that are not known are left out.
type Challenge struct {
	Realm, Nonce, Opaque string
	Domain               []string
	Algorithm            string   // as it came; empty: none
	QOP                  []string // in lower case; nil: none, or an empty list
	Charset              string
	Stale, UserHash      bool
}

// ParseChallenge reads the value of a WWW-Authenticate or Proxy-Authenticate
// header: one challenge. It needs a realm and a nonce.
func ParseChallenge(s string) (Challenge, error) {
	var c Challenge
	var realm, nonce bool
	ok := eachDigestParam(s, func(name, value string, set bool) {
		realm, nonce = realm || set && name == "realm", nonce || set && name == "nonce"
		c.set(name, value)
	})
	if !ok {
		return Challenge{}, errChallenge
	}
	if !realm || !nonce {
		return Challenge{}, errChallenge
	}
	return c, nil
}

// eachDigestParam calls f with each parameter of a challenge or of credentials, its name
// in lower case and its value without quotes, and whether it has a value at all. It
// reports false for another scheme, and for a value that cannot be read.
func eachDigestParam(s string, f func(name, value string, set bool)) bool {
	s = trim(s)
	end := strings.IndexAny(s, lws)
	if end < 0 || !EqualFold(s[:end], "Digest") {
		return false
	}
	for rest, more := s[end:], true; more; {
		var param string
		if param, rest, more = Cut(rest, ','); param == "" {
			continue
		}
		name, value, set := strings.Cut(param, "=")
		name, value = toLower(trim(name)), trim(value)
		if !IsToken(name) || !isWhole(value) {
			return false
		}
		f(name, Unquote(value), set)
	}
	return true
}

// isWhole reports whether a value is a quoted-string that ends where it does, or
// has no quotes.
func isWhole(value string) bool {
	if value != "" && value[0] == '"' {
		return quotedEnd(value, 0) == len(value)
	}
	return isPlain(value)
}

func (c *Challenge) set(name, value string) {
	switch name {
	case "realm":
		c.Realm = value
	case "nonce":
		c.Nonce = value
	case "opaque":
		c.Opaque = value
	case "domain":
		c.Domain = strings.Fields(value)
	case "algorithm":
		c.Algorithm = value
	case "charset":
		c.Charset = value
	case "qop":
		for _, option := range Split(value, ',') {
			c.QOP = append(c.QOP, toLower(option))
		}
	case "stale":
		c.Stale = EqualFold(value, "true")
	case "userhash":
		c.UserHash = EqualFold(value, "true")
	}
}
