package kamailio

import (
	"context"
	"crypto/tls"
	_ "embed"
	"net"
	"strings"
)

//go:embed registrar.cfg
var registrar string

// The switches of Registrar.
const (
	// Digest: each user has a password, which is the user's name.
	Digest = "DIGEST"
	// NAT: phones are reached where their messages come from.
	NAT = "NAT"
)

// Port returns the port of a registrar for a transport.
func Port(transport string) int {
	return map[string]int{"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 8080, "wss": 8443}[transport]
}

// Registrar returns the configuration of a registrar and proxy on an address. It forks, and
// stays in the calls. Its folder has key.pem and cert.pem.
func Registrar(ip, dir string, switches ...string) string {
	text := strings.NewReplacer("{{ip}}", ip, "{{dir}}", dir).Replace(registrar)
	for _, on := range switches {
		text = "#!define " + on + "\n" + text
	}
	return text
}

// Handshake returns an Answers that makes a handshake of TLS with the registrar on an address,
// over connections that dial makes. It goes through the last socket that is opened.
func Handshake(ip string, trust *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context) error {
	own := trust.Clone()
	own.ServerName = ip
	return func(ctx context.Context) error {
		conn, err := dial(ctx, "tcp", net.JoinHostPort(ip, "8443"))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		return tls.Client(conn, own).HandshakeContext(ctx)
	}
}
