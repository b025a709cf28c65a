package main

import (
	"fmt"
	"testing"

	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"
)

func TestProxyDigests_judges_credentials(t *testing.T) {
	good, err := digest.Digest(&digest.Challenge{Realm: "r", Nonce: "n", QOP: []string{"auth"}, Algorithm: "MD5"},
		digest.Options{Method: "INVITE", URI: "sip:a@b", Username: "library", Password: "secret", Count: 1})
	require.NoError(t, err)
	says := func(method string) []message {
		return []message{{received: true, text: fmt.Sprintf("%s sip:a@b SIP/2.0\r\nProxy-Authorization: %s\r\n\r\n", method, good)}}
	}
	require.NoError(t, proxyDigests("secret")(says("INVITE")))
	require.NoError(t, proxyDigests("secret")(says("ACK")), "it repeats its INVITE's")
	require.Error(t, proxyDigests("secret")(says("BYE")))
	require.Error(t, proxyDigests("other")(says("INVITE")))
	require.Error(t, proxyDigests("secret")(nil), "none came")
}
