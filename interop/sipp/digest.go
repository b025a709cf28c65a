package main

import (
	"fmt"
	"strings"

	"github.com/icholy/digest"
)

// proxyDigests verifies the digest of every Proxy-Authorization that sipp received,
// since sipp itself checks only Authorization.
func proxyDigests(password string) func([]message) error {
	return func(log []message) error {
		verified := 0
		for _, m := range log {
			startLine, _, _ := m.parts()
			method, _, _ := strings.Cut(startLine, " ")
			for _, value := range m.values("Proxy-Authorization") {
				if method == "ACK" {
					method = "INVITE" // it repeats its INVITE's (RFC 3261 22.1)
				}
				if err := verifyDigest(value, method, password); err != nil {
					return fmt.Errorf("%w in\n%s", err, indent(m.text))
				}
				verified++
			}
		}
		if verified == 0 {
			return fmt.Errorf("no Proxy-Authorization came")
		}
		return nil
	}
}

func verifyDigest(value, method, password string) error {
	got, err := digest.ParseCredentials(value)
	if err != nil {
		return fmt.Errorf("credentials %q: %w", value, err)
	}
	want, err := digest.Digest(
		&digest.Challenge{Realm: got.Realm, Nonce: got.Nonce, QOP: []string{got.QOP}, Algorithm: got.Algorithm},
		digest.Options{Method: method, URI: got.URI, Username: "library", Password: password, Cnonce: got.Cnonce, Count: got.Nc},
	)
	if err != nil {
		return err
	}
	if want.Response != got.Response {
		return fmt.Errorf("digest is %s, expected %s", got.Response, want.Response)
	}
	return nil
}
