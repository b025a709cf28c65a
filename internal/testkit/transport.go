package testkit

import (
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// AllTransports returns all transports; secure ones have certificates.
func AllTransports() []string { return []string{"udp", "tcp", "tls", "ws", "wss"} }

// IsSecure reports whether a transport has certificates.
func IsSecure(transport string) bool { return transport == "tls" || transport == "wss" }

// IsWS reports whether a transport is a WebSocket.
func IsWS(transport string) bool { return transport == "ws" || transport == "wss" }

// URIOver returns a URI for an address and a transport.
func URIOver(transport, user string, addr netip.AddrPort) sip.Uri {
	uri := sip.Uri{Scheme: "sip", User: user, Host: Bracketed(addr.Addr().String()), Port: int(addr.Port()), UriParams: sip.NewParams()}
	if IsSecure(transport) {
		uri.Scheme = "sips"
	}
	if transport != "udp" {
		uri.UriParams.Add("transport", transport)
	}
	return uri
}

// Bracketed returns a host in the form of URIs: IPv6 in brackets.
func Bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
