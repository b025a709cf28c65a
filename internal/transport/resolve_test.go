package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// zone is a resolver of fixed names.
type zone map[string][]netip.Addr

var errNoSuchName = errors.New("no such name")

func (z zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	ips, ok := z[host]
	if !ok {
		return nil, errNoSuchName
	}
	return ips, nil
}

func (z zone) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", nil, errNoSuchName
}

func resolve(t *testing.T, l *Layer, uri string) ([]Target, error) {
	t.Helper()
	return l.Resolve(context.Background(), parseURI(t, uri))
}

func parseURI(t *testing.T, uri string) sip.Uri {
	t.Helper()
	var u sip.Uri
	require.NoError(t, sip.ParseUri(uri, &u))
	return u
}

// uriOf takes hosts that no parser would.
func uriOf(host, transport string) sip.Uri {
	return sip.Uri{Host: host, UriParams: sip.HeaderParams{{K: "transport", V: transport}}}
}

func TestResolve_finds_literals_without_asking(t *testing.T) {
	l, _ := startLayer(t, Config{Resolver: zone{}})
	for uri, want := range map[string]Target{
		"sip:192.0.2.1":                                        {Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.1:5060")},
		"sip:u@192.0.2.1:5070;transport=TCP":                   {Transport: "TCP", Addr: netip.MustParseAddrPort("192.0.2.1:5070")},
		"sip:u@[2001:db8::1]":                                  {Transport: "UDP", Addr: netip.MustParseAddrPort("[2001:db8::1]:5060")},
		"sip:u@[2001:db8::1]:5070;transport=tcp":               {Transport: "TCP", Addr: netip.MustParseAddrPort("[2001:db8::1]:5070")},
		"sip:u@[::ffff:192.0.2.1]":                             {Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.1:5060")},
		"sip:u@example.com:5070;maddr=192.0.2.9;Transport=uDp": {Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.9:5070")},
	} {
		got, err := resolve(t, l, uri)
		require.NoError(t, err, uri)
		require.Equal(t, []Target{want}, got, uri)
	}
}

func TestResolve_keeps_all_addresses_it_can_reach(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")}
	l, _ := startLayer(t, Config{Resolver: zone{"example.com": ips, "empty.example.com": nil}})
	v4 := Target{Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.1:5060"), ServerName: "example.com"}
	listen(t, l, "udp", "127.0.0.1:0")
	got, err := resolve(t, l, "sip:example.com")
	require.NoError(t, err)
	require.Equal(t, []Target{v4}, got)

	got, err = resolve(t, l, "sip:example.com;transport=tcp")
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, "[2001:db8::1]:5060", got[0].Addr.String())

	_, err = resolve(t, l, "sip:empty.example.com")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = resolve(t, l, "sip:nowhere.example.com")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorIs(t, err, errNoSuchName)
}

func TestResolve_uses_the_transport_we_listen_on(t *testing.T) {
	l, _ := startLayer(t, Config{})
	listen(t, l, "tcp", "127.0.0.1:0")
	got, err := resolve(t, l, "sip:192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, "TCP", got[0].Transport)
	listen(t, l, "udp", "127.0.0.1:0")
	got, err = resolve(t, l, "sip:192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, "UDP", got[0].Transport)
}

func TestResolve_refuses_what_it_cannot_serve(t *testing.T) {
	l, _ := startLayer(t, Config{Resolver: zone{}})
	for _, uri := range []string{"sips:192.0.2.1;transport=udp", "tel:+1234", "sip:192.0.2.1;transport=sctp"} {
		_, err := resolve(t, l, uri)
		require.ErrorIs(t, err, ErrUnsupportedTransport, uri)
	}
	for _, uri := range []sip.Uri{{}, {Host: "192.0.2.1", Port: 70000}, {Host: "192.0.2.1", Port: -1}} {
		_, err := l.Resolve(context.Background(), uri)
		require.ErrorIs(t, err, ErrBadTarget)
	}
}

func TestResolve_sends_sips_over_TLS_only(t *testing.T) {
	l, _ := startLayer(t, Config{Resolver: zone{"example.com": {netip.MustParseAddr("192.0.2.1")}}})
	listen(t, l, "udp", "127.0.0.1:0")
	for uri, want := range map[string]string{
		"sips:192.0.2.1":                    "TLS 192.0.2.1:5061 ",
		"sips:192.0.2.1:5062":               "TLS 192.0.2.1:5062 ",
		"sips:example.com;transport=TCP":    "TLS 192.0.2.1:5061 example.com",
		"sip:example.com;transport=tls":     "TLS 192.0.2.1:5061 example.com",
		"sips:u@192.0.2.1;transport=tls":    "TLS 192.0.2.1:5061 ",
		"sips:example.com;maddr=10.0.0.1":   "TLS 10.0.0.1:5061 ",
		"sips:example.com;transport=ws":     "WSS 192.0.2.1:443 example.com",
		"sip:example.com;transport=ws":      "WS 192.0.2.1:80 example.com",
		"sip:example.com:8080;transport=ws": "WS 192.0.2.1:8080 example.com",
		"sip:example.com;transport=wss":     "WSS 192.0.2.1:443 example.com",
	} {
		targets, err := resolve(t, l, uri)
		require.NoError(t, err, uri)
		require.Equal(t, []string{want}, places(targets), uri)
	}
}

func TestResolve_does_not_ask_about_names_that_are_not_in_the_DNS(t *testing.T) {
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	l, _ := startLayer(t, Config{Resolver: srvZone{
		zone:     zone{"localhost": local, "a.localhost": local, "x.invalid": local},
		services: map[string][]*net.SRV{"_sip._tcp.localhost": {{Target: "x.invalid", Port: 1}}},
	}})
	listen(t, l, "tcp", "127.0.0.1:0")
	for _, host := range []string{"localhost", "a.localhost"} {
		targets, err := resolve(t, l, "sip:"+host)
		require.NoError(t, err)
		require.Equal(t, []string{"TCP 127.0.0.1:5060 " + host}, places(targets))
	}
	_, err := resolve(t, l, "sip:X.Invalid;transport=ws")
	require.ErrorIs(t, err, ErrNotFound)
}
