package transport

import (
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

func parseVia(t *testing.T, l *Layer, value string) *sip.ViaHeader {
	t.Helper()
	h, err := l.headers["via"](nil, value)
	require.NoError(t, err)
	return h.(*sip.ViaHeader)
}

// RFC 3261 18.2.1 and RFC 3581 4.
func TestVia_is_marked_with_the_source(t *testing.T) {
	l, _ := startLayer(t, Config{})
	const v4, v6 = "192.0.2.7:4444", "[2001:db8::7]:4444"
	for _, c := range []struct{ via, source, want string }{
		{"SIP/2.0/UDP 192.0.2.7;branch=z", v4, "SIP/2.0/UDP 192.0.2.7;branch=z"},
		{"SIP/2.0/UDP 192.0.2.8;branch=z", v4, "SIP/2.0/UDP 192.0.2.8;branch=z;received=192.0.2.7"},
		{"SIP/2.0/UDP pc.example.com;branch=z", v4, "SIP/2.0/UDP pc.example.com;branch=z;received=192.0.2.7"},
		{"SIP/2.0/UDP 192.0.2.7:5070;rport;branch=z", v4, "SIP/2.0/UDP 192.0.2.7:5070;rport=4444;branch=z;received=192.0.2.7"},
		{"SIP/2.0/UDP 192.0.2.7;received=203.0.113.1", v4, "SIP/2.0/UDP 192.0.2.7"},
		{"SIP/2.0/UDP h;received=203.0.113.1;rport=1", v4, "SIP/2.0/UDP h;received=192.0.2.7;rport=4444"},
		{"SIP/2.0/UDP [2001:db8::7]:5070", v6, "SIP/2.0/UDP [2001:db8::7]:5070"},
		{"SIP/2.0/UDP [2001:db8::8]", v6, "SIP/2.0/UDP [2001:db8::8];received=2001:db8::7"},
		{"SIP/2.0/UDP [::ffff:192.0.2.7]", v4, "SIP/2.0/UDP [::ffff:192.0.2.7]"},
	} {
		via := parseVia(t, l, c.via)
		markVia(via, netip.MustParseAddrPort(c.source))
		require.Equal(t, c.want, via.Value(), c.via)
	}
	markVia(nil, netip.AddrPort{})
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
		via := parseVia(t, l, c.via)
		markVia(via, flow.remote)
		got := l.Reply(flow, via)
		require.Equal(t, c.want, got.RemoteAddr().String(), c.via)
		require.Same(t, socket, got.socket, c.via)
	}
	require.Same(t, flow, l.Reply(flow, nil))
	_, ok := l.ReplyTarget(flow, parseVia(t, l, "SIP/2.0/UDP h"))
	require.False(t, ok)
}
