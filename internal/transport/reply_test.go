package transport

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
)

// withVia is a request with that top Via.
func withVia(t *testing.T, value string) *sipmsg.Message {
	t.Helper()
	m, _ := decodeWhole([]byte(text("", "OPTIONS sip:b@h SIP/2.0", "Via: "+value)), Limits{}.withDefaults())
	require.Nil(t, m.Fault)
	return m
}

// RFC 3261 18.2.2 and RFC 3581 4.
func TestReply_goes_where_the_Via_says(t *testing.T) {
	l, _ := startLayer(t, Config{FollowMaddr: true})
	k, _ := kindOf("UDP")
	socket := &packetSocket{layer: l, kind: k, local: netip.MustParseAddrPort("0.0.0.0:5060")}
	flow := &Flow{layer: l, socket: socket, remote: netip.MustParseAddrPort("192.0.2.7:4444")}
	for _, c := range []struct{ via, want string }{
		{"SIP/2.0/UDP 192.0.2.7:5070;rport", "192.0.2.7:4444"},
		{"SIP/2.0/UDP 192.0.2.7:5070", "192.0.2.7:5070"},
		{"SIP/2.0/UDP pc.example.com", "192.0.2.7:5060"},
		{"SIP/2.0/UDP pc.example.com:5070;maddr=192.0.2.9", "192.0.2.9:5070"},
		{"SIP/2.0/UDP pc.example.com;maddr=192.0.2.9;rport", "192.0.2.9:5060"},
		{"SIP/2.0/UDP pc.example.com;maddr=other.example.com;rport", "192.0.2.7:4444"},
		{"SIP/2.0/UDP pc.example.com;maddr=[2001:db8::1]", "192.0.2.7:5060"},
	} {
		got := l.Reply(flow, withVia(t, c.via))
		require.Equal(t, c.want, got.RemoteAddr().String(), c.via)
		require.Same(t, socket, got.socket, c.via)
	}
	_, ok := l.ReplyTarget(flow, withVia(t, "SIP/2.0/UDP h"))
	require.False(t, ok)
	malformed := withVia(t, "SIP/2.0/UDP pc.example.com:5070;maddr=192.0.2.9")
	require.Equal(t, "192.0.2.7:5070", l.replyToSource(flow, malformed).RemoteAddr().String(), "a refusal goes to the source")
}
