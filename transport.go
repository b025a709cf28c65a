package dialog

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// TransportConfig is an address on which a stack listens.
type TransportConfig struct {
	// Protocol is udp, tcp, tls, ws or wss.
	Protocol string
	// Address is the IP address to bind, such as "0.0.0.0", "127.0.0.1" or
	// "::1"; empty means all addresses.
	Address string
	// Port is the port to bind; 0 takes a free one, see [Stack.Addr].
	Port int
	// PublicAddress and PublicPort, when set, are told to peers instead of the address
	// by which they reach us.
	PublicAddress string
	PublicPort    int
	// TLSConfig is needed by tls and wss.
	TLSConfig *tls.Config
	// WebSocket says whose WebSockets a listener of ws or wss takes, and, with any
	// protocol, how the stack connects to servers of WebSockets. Nil is as an empty
	// one.
	WebSocket *WebSocketConfig
}

// TransportLayer names a transport.
type TransportLayer string

// The transports' names as Via headers have them.
const (
	TransportUDP TransportLayer = "UDP"
	TransportTCP TransportLayer = "TCP"
	TransportTLS TransportLayer = "TLS"
	TransportWS  TransportLayer = "WS"
)

// Network opens sockets. The operating system's are used where a StackConfig
// names none; package dialogtest has one that lives in memory. One that has the
// methods LookupNetIP and LookupSRV of net.Resolver as well, as that has, is asked
// for names where StackConfig.Resolver is nil. One that has a method
//
//	DialFrom(ctx context.Context, network, local, address string) (net.Conn, error)
//
// as the operating system's has, connects by that from the IP address of a listener,
// so that peers which know the stack by its address know it in both directions.
type Network interface {
	// ListenPacket binds a datagram socket; network is "udp".
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	// Listen binds a stream listener; network is "tcp".
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	// DialContext connects; network is "tcp", or "udp" to learn which local
	// address reaches a peer.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	defaultPort    = 5060
	defaultTLSPort = 5061
)

// DefaultTransportConfig returns udp on 0.0.0.0:5060.
func DefaultTransportConfig() *TransportConfig {
	return &TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: defaultPort}
}

// Validate reports why the configuration cannot be used: an unknown protocol, a port
// out of range, a missing TLSConfig, or an invalid WebSocketConfig. It wraps
// ErrInvalidArgument.
func (c *TransportConfig) Validate() error {
	if c == nil {
		return fmt.Errorf("%w: no transport configuration", ErrInvalidArgument)
	}
	switch strings.ToLower(c.Protocol) {
	case "udp", "tcp", "ws":
	case "tls", "wss":
		if c.TLSConfig == nil {
			return fmt.Errorf("%w: transport %s needs a TLSConfig", ErrInvalidArgument, c.Protocol)
		}
	default:
		return fmt.Errorf("%w: unknown transport %q", ErrInvalidArgument, c.Protocol)
	}
	if c.Port < 0 || c.Port > 65535 || c.PublicPort < 0 || c.PublicPort > 65535 {
		return fmt.Errorf("%w: port out of range", ErrInvalidArgument)
	}
	return c.WebSocket.validate()
}

// GetListenAddress returns host:port of the socket to bind, with brackets
// around an IPv6 address.
func (c *TransportConfig) GetListenAddress() string {
	if c == nil {
		return ""
	}
	return joinHostPort(c.Address, c.Port)
}

// GetPublicAddress returns the host:port that peers are told: PublicAddress and
// PublicPort where set, else the bound address, with 0.0.0.0 (and ::) replaced by the
// loopback address, since the address by which a peer reaches us is only known once
// there is a peer.
func (c *TransportConfig) GetPublicAddress() string {
	if c == nil {
		return ""
	}
	return joinHostPort(c.publicHost(), c.publicPort())
}

// GetSIPURI returns a SIP URI for user at the public address: sips for tls and
// wss, and without the port where it is the transport's default (5060 for udp
// and tcp, 5061 for tls and wss).
func (c *TransportConfig) GetSIPURI(user string) string {
	if c == nil {
		return ""
	}
	scheme, implied := "sip", defaultPort
	protocol := strings.ToLower(c.Protocol)
	switch protocol {
	case "tls", "wss":
		scheme, implied = "sips", defaultTLSPort
	case "ws":
		implied = 0
	}
	uri := scheme + ":"
	if user != "" {
		uri += user + "@"
	}
	if port := c.publicPort(); port != implied {
		return uri + joinHostPort(c.publicHost(), port)
	}
	return uri + bracketed(c.publicHost())
}

func (c *TransportConfig) publicHost() string {
	host := c.PublicAddress
	if host == "" {
		host = c.Address
	}
	switch strings.Trim(host, "[]") {
	case "0.0.0.0", "":
		return "127.0.0.1"
	case "::":
		return "::1"
	}
	return host
}

func (c *TransportConfig) publicPort() int {
	if c.PublicPort != 0 {
		return c.PublicPort
	}
	return c.Port
}

func joinHostPort(host string, port int) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

// bracketed puts brackets around an IPv6 literal that has none.
func bracketed(host string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return "[" + host + "]"
	}
	return host
}
