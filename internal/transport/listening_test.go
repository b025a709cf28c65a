package transport

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// routedNetwork connects from any address, and says where the kernel would from.
type routedNetwork struct {
	Network
	kernel string
	from   chan string
}

func (n routedNetwork) DialContext(_ context.Context, network, _ string) (net.Conn, error) {
	if network == "udp" {
		return net.Dial("udp", n.kernel+":9")
	}
	n.from <- "kernel"
	return nil, net.ErrClosed
}

func (n routedNetwork) DialFrom(_ context.Context, _, local, _ string) (net.Conn, error) {
	n.from <- local
	return nil, net.ErrClosed
}

// listening is a layer whose sockets are bound to these, such as "TCP 10.0.0.1:5060".
func listening(t *testing.T, cfg Config, sockets ...[2]string) *Layer {
	t.Helper()
	l, _ := startLayer(t, cfg)
	for _, s := range sockets {
		k, err := kindOf(s[0])
		require.NoError(t, err)
		l.bound = append(l.bound, bound{kind: k, local: netip.MustParseAddrPort(s[1])})
	}
	return l
}

// FD19: a connection left from whatever address the kernel chose, which a peer that
// knows us by our address took for a stranger's.
func TestConnectionsLeaveFromTheAddressOfAListener(t *testing.T) {
	for name, c := range map[string]struct {
		sockets [][2]string
		peer    string
		want    string
	}{
		"its kind":               {[][2]string{{"TCP", "10.0.0.51:5070"}}, "10.0.0.9:5060", "10.0.0.51"},
		"loopback":               {[][2]string{{"TCP", "127.0.0.51:5070"}}, "127.0.0.1:5060", "127.0.0.51"},
		"IPv6":                   {[][2]string{{"TCP", "[2001:db8::1]:5070"}}, "[2001:db8::9]:5060", "2001:db8::1"},
		"its kind first":         {[][2]string{{"UDP", "10.0.0.1:5060"}, {"TLS", "10.0.0.2:5061"}, {"TCP", "10.0.0.3:5060"}}, "10.0.0.9:5060", "10.0.0.3"},
		"another kind":           {[][2]string{{"UDP", "10.0.0.1:5060"}}, "10.0.0.9:5060", "10.0.0.1"},
		"all addresses":          {[][2]string{{"TCP", "0.0.0.0:5060"}}, "10.0.0.9:5060", "kernel"},
		"all of both families":   {[][2]string{{"TCP", "[::]:5060"}}, "10.0.0.9:5060", "kernel"},
		"all, of another kind":   {[][2]string{{"UDP", "0.0.0.0:5060"}, {"TCP", "127.0.0.1:5060"}}, "10.0.0.9:5060", "kernel"},
		"its kind before all":    {[][2]string{{"UDP", "0.0.0.0:5060"}, {"TCP", "10.0.0.1:5060"}}, "10.0.0.9:5060", "10.0.0.1"},
		"loopback only":          {[][2]string{{"TCP", "127.0.0.1:5060"}}, "10.0.0.9:5060", "kernel"},
		"the other family only":  {[][2]string{{"TCP", "[2001:db8::1]:5060"}}, "10.0.0.9:5060", "kernel"},
		"no sockets":             {nil, "10.0.0.9:5060", "kernel"},
		"several, one is routed": {[][2]string{{"TCP", "127.0.0.2:5060"}, {"TCP", "127.0.0.1:5060"}}, "127.0.0.9:5060", "127.0.0.1"},
		"several, none routed":   {[][2]string{{"TCP", "127.0.0.2:5060"}, {"TCP", "127.0.0.3:5060"}}, "127.0.0.9:5060", "127.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			n := routedNetwork{kernel: "127.0.0.1", from: make(chan string, 1)}
			l := listening(t, Config{Network: n}, c.sockets...)
			_, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: netip.MustParseAddrPort(c.peer)})
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, c.want, <-n.from)
		})
	}
}

func TestTheOperatingSystemConnectsFromTheAddressOfAListener(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.51:0")
	if err != nil {
		t.Skip("no other loopback address:", err)
	}
	require.NoError(t, probe.Close())
	far, arrivals := startLayer(t, Config{})
	there := listen(t, far, "tcp", "127.0.0.1:0")
	l, _ := startLayer(t, Config{})
	here := listen(t, l, "tcp", "127.0.0.51:0")
	flow, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: there})
	require.NoError(t, err)
	require.Equal(t, Local{Transport: "TCP", Host: "127.0.0.51", Port: int(here.Port())}, flow.Contact())
	require.NoError(t, flow.Send([]byte(options("x", "127.0.0.51", ""))))
	require.Equal(t, "127.0.0.51", next(t, arrivals).flow.RemoteAddr().Addr().String())
}

// FD19: a Contact never names the port that a connection of ours has by chance, when
// there is a listener.
func TestContactNamesAListenerThatThereIs(t *testing.T) {
	for name, c := range map[string]struct {
		sockets [][2]string
		dialled string
		via     string // empty: the connection's own
		contact string // likewise
	}{
		"its kind, its address":   {[][2]string{{"UDP", "10.0.0.1:5060"}, {"TCP", "10.0.0.1:5070"}}, "TCP", "TCP 10.0.0.1:5070", "TCP 10.0.0.1:5070"},
		"its kind, all addresses": {[][2]string{{"TCP", "0.0.0.0:5070"}}, "TCP", "TCP 10.0.0.1:5070", "TCP 10.0.0.1:5070"},
		"its kind, another's":     {[][2]string{{"TCP", "127.0.0.1:5060"}, {"TCP", "10.0.0.2:5070"}}, "TCP", "TCP 10.0.0.2:5070", "TCP 10.0.0.2:5070"},
		"its kind, loopback":      {[][2]string{{"TCP", "127.0.0.1:5060"}}, "TCP", "TCP 127.0.0.1:5060", "TCP 127.0.0.1:5060"},
		"its kind, other family":  {[][2]string{{"TCP", "[2001:db8::1]:5060"}}, "TCP", "TCP [2001:db8::1]:5060", "TCP [2001:db8::1]:5060"},
		"another kind":            {[][2]string{{"UDP", "0.0.0.0:5080"}}, "TCP", "", "UDP 10.0.0.1:5080"},
		"another kind, elsewhere": {[][2]string{{"UDP", "10.0.0.2:5080"}}, "TCP", "", "UDP 10.0.0.2:5080"},
		"TLS beside TCP":          {[][2]string{{"TCP", "10.0.0.1:5060"}}, "TLS", "", "TCP 10.0.0.1:5060"},
		"nothing":                 {nil, "TCP", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := listening(t, Config{}, c.sockets...)
			k, err := kindOf(c.dialled)
			require.NoError(t, err)
			s := &stream{layer: l, kind: k, local: netip.MustParseAddrPort("10.0.0.1:49200")}
			flow := &Flow{layer: l, stream: s}
			told := func(local Local) string {
				return local.Transport + " " + netip.AddrPortFrom(netip.MustParseAddr(local.Host), uint16(local.Port)).String()
			}
			own := c.dialled + " 10.0.0.1:49200"
			require.Equal(t, orElse(c.via, own), told(flow.Local()))
			require.Equal(t, orElse(c.contact, own), told(flow.Contact()))
		})
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
