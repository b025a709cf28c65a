package dialogtest_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// FA10
func TestNamesAreTheNetworksOwn(t *testing.T) {
	n := newNetwork(t)
	h, ctx := n.Host("10.0.0.1"), context.Background()
	n.Name("PBX.example.test", "10.0.0.2", "2001:db8::2", "10.0.0.3")
	first, second, six := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("2001:db8::2")
	for network, want := range map[string][]netip.Addr{
		"ip": {first, six, second}, "ip4": {first, second}, "ip6": {six},
	} {
		got, err := h.LookupNetIP(ctx, network, "pbx.EXAMPLE.test.")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := h.LookupNetIP(ctx, "ip", "192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, got)

	n.Name("pbx.example.test")
	_, err = h.LookupNetIP(ctx, "ip", "pbx.example.test")
	requireUnknown(t, err)
}

func requireUnknown(t *testing.T, err error) {
	t.Helper()
	var failure *net.DNSError
	require.ErrorAs(t, err, &failure)
	require.True(t, failure.IsNotFound)
}

// The network does not resolve names that the machine may know.
func TestNamesOfTheMachineAreUnknown(t *testing.T) {
	h, ctx := newNetwork(t).Host("10.0.0.1"), context.Background()
	for _, name := range []string{"localhost", "example.com", "", "."} {
		_, err := h.LookupNetIP(ctx, "ip", name)
		requireUnknown(t, err)
		_, _, err = h.LookupSRV(ctx, "sip", "udp", name)
		requireUnknown(t, err)
		_, err = h.DialContext(ctx, "tcp", net.JoinHostPort(name, "5060"))
		requireUnknown(t, err)
	}
}

func TestServicesHaveTheirRecordsByPriority(t *testing.T) {
	n := newNetwork(t)
	h, ctx := n.Host("10.0.0.1"), context.Background()
	n.Service("sip", "udp", "example.test",
		net.SRV{Target: "b.test.", Port: 2, Priority: 20}, net.SRV{Target: "a.test.", Port: 1, Priority: 10})
	for _, ask := range [][3]string{{"sip", "udp", "Example.Test."}, {"", "", "_sip._udp.example.test"}} {
		_, records, err := h.LookupSRV(ctx, ask[0], ask[1], ask[2])
		require.NoError(t, err)
		require.Equal(t, []*net.SRV{{Target: "a.test.", Port: 1, Priority: 10}, {Target: "b.test.", Port: 2, Priority: 20}}, records)
	}
	_, _, err := h.LookupSRV(ctx, "sip", "tcp", "example.test")
	requireUnknown(t, err)
}

func TestAHostThatIsCutOffLearnsNoNames(t *testing.T) {
	n := newNetwork(t)
	h, ctx := n.Host("10.0.0.1"), context.Background()
	n.Name("pbx.test", "10.0.0.2")
	h.Unreachable(true)
	var failure *net.DNSError
	_, err := h.LookupNetIP(ctx, "ip", "pbx.test")
	require.ErrorAs(t, err, &failure)
	require.True(t, failure.IsTemporary)
	h.Unreachable(false)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = h.LookupNetIP(ended, "ip", "pbx.test")
	require.ErrorIs(t, err, context.Canceled)
	n.Close()
	_, err = h.LookupNetIP(ctx, "ip", "pbx.test")
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestDialledByName(t *testing.T) {
	n := newNetwork(t)
	n.Name("pbx.test", "2001:db8::2", "10.0.0.2")
	l, err := n.Host("10.0.0.2").Listen(context.Background(), "tcp", ":5060")
	require.NoError(t, err)
	conn, err := n.Host("10.0.0.1").DialContext(context.Background(), "tcp", "pbx.test:5060")
	require.NoError(t, err)
	require.Equal(t, l.Addr(), conn.RemoteAddr())
}
