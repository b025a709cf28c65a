package sipmsg

import (
	"errors"
	"strconv"
)

var errCredentials = errors.New("malformed credentials")

// Credentials is the response to a digest challenge, its values without quotes (RFC 3261
// 22.4, 25.1; RFC 7616 3.4). Parameters that are not known are left out.
type Credentials struct {
	Username, Realm, Nonce, URI, Response string
	Algorithm                             string // as it came; empty: none
	Cnonce, QOP                           string // QOP in lower case; empty: none
	Count                                 uint32 // nc; zero: none
}

// ParseCredentials reads the value of an Authorization or Proxy-Authorization header.
func ParseCredentials(s string) (Credentials, error) {
	var c Credentials
	counted := true
	ok := eachDigestParam(s, func(name, value string, _ bool) {
		if name == "nc" {
			count, err := strconv.ParseUint(value, 16, 32)
			c.Count, counted = uint32(count), counted && err == nil
		}
		c.set(name, value)
	})
	if !ok || !counted {
		return Credentials{}, errCredentials
	}
	return c, nil
}

func (c *Credentials) set(name, value string) {
	switch name {
	case "username":
		c.Username = value
	case "realm":
		c.Realm = value
	case "nonce":
		c.Nonce = value
	case "uri":
		c.URI = value
	case "response":
		c.Response = value
	case "algorithm":
		c.Algorithm = value
	case "cnonce":
		c.Cnonce = value
	case "qop":
		c.QOP = toLower(value)
	}
}
