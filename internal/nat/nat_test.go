package nat_test

import (
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/nat"
)

func flow(transport, remote string) nat.Flow {
	return nat.Flow{Remote: netip.MustParseAddrPort(remote), Transport: transport}
}

func uri(t *testing.T, text string) (u sip.Uri) {
	t.Helper()
	require.NoError(t, sip.ParseUri(text, &u))
	return u
}

// The scopes: of a host, a link, a site (RFC 1918, RFC 4193), a provider's network
// (RFC 6598), the Internet.
func TestAContactOfANarrowerScopeThanItsSourceIsUnreachable(t *testing.T) {
	scopes := [][]string{
		{"8.8.8.8", "2001:4860::8", "172.32.0.1", "100.128.0.1"},
		{"100.64.0.1", "100.127.255.254"},
		{"10.1.2.3", "172.16.0.1", "192.168.1.1", "fd00::1"},
		{"169.254.1.1", "fe80::1"},
		{"127.0.0.1", "0.0.0.0", "::1", "::"},
	}
	for of, contacts := range scopes {
		for at, sources := range scopes {
			for _, contact := range contacts {
				for _, source := range sources {
					remote := nat.Flow{Remote: netip.AddrPortFrom(netip.MustParseAddr(source), 5060), Transport: "UDP"}
					require.Equal(t, of > at, nat.IsUnreachable(sip.Uri{Scheme: "sip", Host: contact}, remote), "%s from %s", contact, source)
				}
			}
		}
	}
	for host, unreachable := range map[string]bool{"a.invalid": true, "INVALID.": true, "example.com": false, "invalid.example": false} {
		require.Equal(t, unreachable, nat.IsUnreachable(sip.Uri{Host: host}, flow("WS", "8.8.8.8:1")), host)
	}
}

func TestAContactAtTheAddressOfTheFlow(t *testing.T) {
	for _, row := range []struct {
		contact string
		flow    nat.Flow
		at      bool
	}{
		{"sip:a@192.0.2.1", flow("UDP", "192.0.2.1:5060"), true},
		{"sip:a@192.0.2.1", flow("UDP", "192.0.2.1:5070"), false},
		{"sip:a@192.0.2.1", flow("TCP", "192.0.2.1:40000"), true},
		{"sip:a@192.0.2.1", flow("TCP", "[::ffff:192.0.2.1]:40000"), true},
		{"sip:a@192.0.2.2", flow("TCP", "192.0.2.1:40000"), false},
		{"sip:a@example.com", flow("TCP", "192.0.2.1:40000"), false},
	} {
		require.Equal(t, row.at, nat.IsAt(uri(t, row.contact), row.flow), row.contact)
	}
}

func TestAConnectionLeadsToTheHostOfAURI(t *testing.T) {
	for _, row := range []struct {
		uri   string
		flow  nat.Flow
		leads bool
		port  uint16
	}{
		{"sip:a@192.0.2.1", flow("TCP", "192.0.2.1:40000"), true, 5060},
		{"sip:a@192.0.2.1", flow("TLS", "192.0.2.1:40000"), true, 5061},
		{"sip:a@192.0.2.1:5080", flow("TLS", "192.0.2.1:40000"), true, 5080},
		{"sip:a@192.0.2.1;transport=TCP", flow("TCP", "192.0.2.1:40000"), true, 5060},
		{"sip:a@192.0.2.1;transport=udp", flow("TCP", "192.0.2.1:40000"), false, 5060},
		{"sips:a@192.0.2.1", flow("TLS", "192.0.2.1:40000"), true, 5061},
		{"sips:a@192.0.2.1;transport=tcp", flow("TLS", "192.0.2.1:40000"), true, 5061},
		{"sips:a@192.0.2.1", flow("TCP", "192.0.2.1:40000"), false, 5061},
		{"sip:a@192.0.2.9;maddr=192.0.2.1", flow("TCP", "192.0.2.1:40000"), true, 5060},
		{"sip:a@192.0.2.9", flow("TCP", "192.0.2.1:40000"), false, 5060},
		{"sip:a@example.com", flow("TCP", "192.0.2.1:40000"), false, 5060},
	} {
		require.Equal(t, row.leads, nat.LeadsTo(row.flow, uri(t, row.uri)), row.uri)
		require.Equal(t, row.port, nat.PortAt(row.flow, uri(t, row.uri)), row.uri)
	}
}

func TestADetourServesItsNextHopOnly(t *testing.T) {
	f := flow("TCP", "192.0.2.1:5060")
	for _, row := range []struct {
		opened, nextHop string
		serves          bool
	}{
		{"sip:a@192.0.2.1", "sip:b@192.0.2.1", true},
		{"sip:a@192.0.2.1", "sip:b@192.0.2.1;transport=udp", true},
		{"sip:a@192.0.2.1", "sip:b@192.0.2.1;transport=tcp", false},
		{"sip:a@192.0.2.1", "sips:b@192.0.2.1", false},
		{"sip:a@192.0.2.1", "sip:b@192.0.2.1:5070", false},
		{"sip:a@192.0.2.1", "sip:b@192.0.2.2", false},
		{"sip:a@example.com", "sip:b@Example.com", true},
		{"sip:a@example.com", "sip:b@example.com:5060", false},
		{"sip:a@example.com", "sip:b@example.org", false},
		{"sip:a@example.com", "sip:b@example.org;maddr=192.0.2.1", true},
	} {
		require.Equal(t, row.serves, nat.IsDetour(f, uri(t, row.opened), uri(t, row.nextHop)), row.nextHop)
	}
}
