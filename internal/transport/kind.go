package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// kind describes one transport.
type kind struct {
	name    string // as in a Via: "UDP"
	network string // of package net: "udp"
	stream  bool
	secure  bool   // over TLS
	frames  bool   // messages are those of a WebSocket (RFC 7118)
	port    int    // when a URI or a Via names none
	service string // of SRV records; empty: has none
}

// shakes reports whether a connection must be set up by a handshake before it
// carries messages.
func (k kind) shakes() bool { return k.secure || k.frames }

func kindOf(transport string) (kind, error) {
	switch strings.ToUpper(transport) {
	case "UDP":
		return kind{name: "UDP", network: "udp", port: 5060, service: "sip"}, nil
	case "TCP":
		return kind{name: "TCP", network: "tcp", stream: true, port: 5060, service: "sip"}, nil
	case "TLS":
		return kind{name: "TLS", network: "tcp", stream: true, secure: true, port: 5061, service: "sips"}, nil
	case "WS": // the ports are those of RFC 7118 5.5
		return kind{name: "WS", network: "tcp", stream: true, frames: true, port: 80}, nil
	case "WSS":
		return kind{name: "WSS", network: "tcp", stream: true, secure: true, frames: true, port: 443}, nil
	}
	return kind{}, fmt.Errorf("%w: %q", ErrUnsupportedTransport, transport)
}

// addrPort reads a net.Addr of the operating system or of a network in memory.
// It is zero for a text that is not an IP address and port.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case nil:
		return netip.AddrPort{}
	case interface{ AddrPort() netip.AddrPort }: // *net.UDPAddr, *net.TCPAddr
		return unmap(a.AddrPort())
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return unmap(ap)
}

// unmap turns ::ffff:192.0.2.1, as dual-stack sockets report it, into 192.0.2.1.
func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
