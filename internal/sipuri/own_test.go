package sipuri_test

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipuri"
)

func TestURIsOfOurOwn(t *testing.T) {
	for want, row := range map[string]struct {
		protocol, user, host string
		port                 int
	}{
		"sip:us@10.0.0.1":           {"udp", "us", "10.0.0.1", 5060},
		"sip:us@10.0.0.1:5070":      {"TCP", "us", "10.0.0.1", 5070},
		"sips:us@[2001:db8::1]":     {"tls", "us", "2001:db8::1", 5061},
		"sips:[2001:db8::2]:5060":   {"wss", "", "[2001:db8::2]", 5060},
		"sip:us@phone.example:5060": {"ws", "us", "phone.example", 5060},
		"sip:us@phone.example":      {"ws", "us", "phone.example", 0},
	} {
		require.Equal(t, want, sipuri.Own(row.protocol, row.user, row.host, row.port))
	}
}

func TestHostsThatMeanAllAddresses(t *testing.T) {
	for host, want := range map[string]string{"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1", "10.0.0.1": "10.0.0.1", "a.example": "a.example"} {
		require.Equal(t, want, sipuri.Reachable(host), host)
	}
}

func TestURIsOfOneUser(t *testing.T) {
	uri := func(user, host string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: host} }
	require.True(t, sipuri.SameUser(uri("bob", "a.example"), uri("bob", "A.Example")))
	require.False(t, sipuri.SameUser(uri("bob", "a.example"), uri("Bob", "a.example")))
	require.False(t, sipuri.SameUser(uri("bob", "a.example"), uri("bob", "b.example")))
	require.False(t, sipuri.SameUser(uri("", ""), uri("", "")))
}
