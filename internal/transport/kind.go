package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// kind is what the layer must know about one transport.
type kind struct {
	name    string // as in a Via: "UDP"
	network string // of package net: "udp"
	stream  bool
	port    int // when a URI or a Via names none
}

func kindOf(transport string) (kind, error) {
	switch strings.ToUpper(transport) {
	case "UDP":
		return kind{name: "UDP", network: "udp", port: 5060}, nil
	case "TCP":
		return kind{name: "TCP", network: "tcp", stream: true, port: 5060}, nil
	}
	return kind{}, fmt.Errorf("%w: %q", ErrUnsupportedTransport, transport)
}

// networkFor narrows the network to IPv4 when address is an IPv4 literal: Go
// binds 0.0.0.0 to a dual-stack socket otherwise, which prints as [::].
func (k kind) networkFor(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return k.network
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Is4() {
		return k.network + "4"
	}
	return k.network
}

// addrPort reads a net.Addr of the operating system or of a network in memory.
// What is no IP address and port gives the zero AddrPort.
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
