package sipuri

import (
	"net"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// HostPort is net.JoinHostPort for a host that may have brackets.
func HostPort(host string, port int) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

// Reachable returns a host, or the loopback address for one that means all addresses.
func Reachable(host string) string {
	switch strings.Trim(host, "[]") {
	case "0.0.0.0", "":
		return "127.0.0.1"
	case "::":
		return "::1"
	}
	return host
}

// Own returns the URI of a user at an address of that protocol (udp, tcp, tls, ws or
// wss): a SIPS URI for tls and wss. It leaves out the port that the protocol implies.
func Own(protocol, user, host string, port int) string {
	scheme, implied := "sip:", DefaultPort
	switch strings.ToLower(protocol) {
	case "tls", "wss":
		scheme, implied = "sips:", DefaultTLSPort
	case "ws":
		implied = 0
	}
	if user != "" {
		scheme += user + "@"
	}
	if port != implied {
		return scheme + HostPort(host, port)
	}
	return scheme + Bracketed(host)
}

// SameUser reports whether two URIs name one user (RFC 3261 19.1.4: the user part is
// case-sensitive, the host is not).
func SameUser(a, b sip.Uri) bool {
	return a.User == b.User && a.Host != "" && strings.EqualFold(a.Host, b.Host)
}
