// Package nat says where a peer is reached: by its Contact, or by the flow that its
// messages come by (RFC 3581, RFC 5626, RFC 7118 5).
package nat

import (
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
)

// Flow is what is known of a flow: the peer's address, and "UDP", "TCP", "TLS", "WS" or
// "WSS".
type Flow struct {
	Remote    netip.AddrPort
	Transport string
}

func (f Flow) isStream() bool { return f.Transport != "UDP" }

func (f Flow) address() netip.Addr { return f.Remote.Addr().Unmap() }

// IsAt reports whether a URI has the address of a flow's peer. The port of an inbound
// connection is of no account.
func IsAt(contact sip.Uri, f Flow) bool {
	address, ok := sipuri.Literal(contact.Host)
	return ok && address == f.address() && (f.isStream() || sipuri.Port(contact) == f.Remote.Port())
}

// IsUnreachable reports whether a Contact cannot be reached from the network in which
// the flow's peer is: its address has a narrower scope than the peer's, or its name is
// in a domain without hosts.
func IsUnreachable(contact sip.Uri, f Flow) bool {
	address, ok := sipuri.Literal(contact.Host)
	if !ok {
		return hasNoHosts(contact.Host)
	}
	return scopeOf(address) > scopeOf(f.address())
}

// scope is the range within which an address names one host, the widest first.
type scope int

const (
	scopeInternet scope = iota
	scopeProvider       // RFC 6598
	scopeSite           // RFC 1918, RFC 4193
	scopeLink
	scopeHost
)

func scopeOf(a netip.Addr) scope {
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		return scopeHost
	case a.IsLinkLocalUnicast():
		return scopeLink
	case a.IsPrivate():
		return scopeSite
	case a.Is4() && a.As4()[0] == 100 && a.As4()[1]&0xc0 == 64: // 100.64.0.0/10
		return scopeProvider
	}
	return scopeInternet
}

// hasNoHosts reports whether a name is in a domain that has no hosts (RFC 6761 6.4).
func hasNoHosts(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "invalid" || strings.HasSuffix(host, ".invalid")
}

// PortAt is the port of a URI to which a flow leads.
func PortAt(f Flow, uri sip.Uri) uint16 {
	if uri.Port == 0 && f.Transport == "TLS" {
		return sipuri.DefaultTLSPort
	}
	return sipuri.Port(uri)
}

// LeadsTo reports whether a connection ends at the host of a URI, and the URI does not
// ask for another transport: many peers call by TCP or TLS with a Contact that names no
// transport. The source port of the peer is of no account.
func LeadsTo(f Flow, nextHop sip.Uri) bool {
	secure := sipuri.IsSIPS(nextHop)
	switch name := sipuri.Transport(nextHop); {
	case secure && f.Transport != "TLS":
		return false
	case !secure && name != "" && !strings.EqualFold(name, f.Transport):
		return false
	}
	address, ok := sipuri.Literal(sipuri.Host(nextHop))
	return ok && address == f.address()
}

// IsDetour reports whether a connection that was opened for a request to one next hop,
// too long for UDP (RFC 3261 18.1.1), leads to another.
func IsDetour(f Flow, opened, nextHop sip.Uri) bool {
	if !sipuri.MeansUDP(nextHop) {
		return false
	}
	if address, ok := sipuri.Literal(sipuri.Host(nextHop)); ok {
		return address == f.address() && PortAt(f, nextHop) == f.Remote.Port()
	}
	return strings.EqualFold(sipuri.Host(nextHop), sipuri.Host(opened)) && nextHop.Port == opened.Port
}
