package sipuri_test

import (
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipuri"
)

func TestWhereAURILeads(t *testing.T) {
	for _, row := range []struct {
		uri, host, transport string
		port                 uint16
		udp                  bool
	}{
		{"sip:a@example.com", "example.com", "", 5060, true},
		{"sip:a@example.com:5070", "example.com", "", 5070, true},
		{"sips:a@example.com", "example.com", "", 5061, false},
		{"SIPS:a@example.com;transport=tcp", "example.com", "tcp", 5061, false},
		{"sip:a@example.com;Transport=TLS", "example.com", "TLS", 5061, false},
		{"sip:a@example.com;transport=UDP;lr", "example.com", "UDP", 5060, true},
		{"sip:a@example.com;maddr=192.0.2.1", "192.0.2.1", "", 5060, true},
		{"sip:a@example.com;maddr", "example.com", "", 5060, true},
		{"sip:[2001:db8::1]", "[2001:db8::1]", "", 5060, true},
	} {
		var uri sip.Uri
		require.NoError(t, sip.ParseUri(row.uri, &uri))
		require.Equal(t, row.host, sipuri.Host(uri), row.uri)
		require.Equal(t, row.port, sipuri.Port(uri), row.uri)
		require.Equal(t, row.transport, sipuri.Transport(uri), row.uri)
		require.Equal(t, row.udp, sipuri.MeansUDP(uri), row.uri)
		require.False(t, sipuri.LacksHost(uri), row.uri)
	}
	require.True(t, sipuri.LacksHost(sip.Uri{Scheme: "sip", User: "a"}))
}

func TestHostsThatAreAddresses(t *testing.T) {
	for host, want := range map[string]string{"192.0.2.1": "192.0.2.1", "[2001:db8::1]": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1"} {
		address, ok := sipuri.Literal(host)
		require.True(t, ok, host)
		require.Equal(t, netip.MustParseAddr(want), address)
	}
	_, ok := sipuri.Literal("example.com")
	require.False(t, ok)
	require.Equal(t, "[::1]", sipuri.Bracketed("::1"))
	require.Equal(t, "[::1]", sipuri.Bracketed("[::1]"))
	require.Equal(t, "example.com", sipuri.Bracketed("example.com"))
}

func TestEscapedHeadersComeBack(t *testing.T) {
	for _, value := range []string{"", "a@b;from-tag=1;to-tag=2", "100% \x00\xff ü", "[]/?:+$-_.!~*'()", "a&b=c,d"} {
		escaped := sipuri.EscapeHeader(value)
		require.NotContains(t, escaped, "&")
		require.NotContains(t, escaped, ";")
		require.Equal(t, value, sipuri.UnescapeAll(escaped))
	}
	require.Equal(t, "a%zz", sipuri.UnescapeAll("a%zz"), "no escape")
}
