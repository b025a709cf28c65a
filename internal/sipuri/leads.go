package sipuri

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// The ports of a URI without one (RFC 3261 19.1.2).
const (
	DefaultPort    = 5060
	DefaultTLSPort = 5061
)

// LacksHost reports whether the host is missing of a URI that has to have one.
func LacksHost(uri sip.Uri) bool { return uri.Host == "" && uri.Raw() == "" }

// Transport is the transport parameter of a URI.
func Transport(uri sip.Uri) string {
	name, _ := Param(uri.UriParams, "transport")
	return name
}

// MeansUDP reports whether a request for a URI goes by UDP unless it is too long.
func MeansUDP(uri sip.Uri) bool {
	name := Transport(uri)
	return !IsSIPS(uri) && (name == "" || strings.EqualFold(name, "udp"))
}

// Host is the destination of a URI: its maddr parameter, or its host (RFC 3261 19.1.1).
func Host(uri sip.Uri) string {
	if maddr, ok := Param(uri.UriParams, "maddr"); ok && maddr != "" {
		return maddr
	}
	return uri.Host
}

// Port is the port that a URI names, or that of its transport.
func Port(uri sip.Uri) uint16 {
	switch {
	case uri.Port != 0:
		return uint16(uri.Port)
	case IsSIPS(uri), strings.EqualFold(Transport(uri), "tls"):
		return DefaultTLSPort
	}
	return DefaultPort
}

// Literal reads the host of a URI as an IP address.
func Literal(host string) (netip.Addr, bool) {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return address.Unmap(), err == nil
}

// Bracketed puts brackets around an IPv6 literal that has none.
func Bracketed(host string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return "[" + host + "]"
	}
	return host
}

// EscapeHeader escapes the value of a header for a URI (RFC 3261 25.1, hvalue).
func EscapeHeader(value string) string {
	const plain = "[]/?:+$-_.!~*'()"
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
