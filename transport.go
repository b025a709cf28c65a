package dialog

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// TransportConfig is an address that a stack listens on.
type TransportConfig struct {
	// Protocol is udp, tcp, tls, ws or wss.
	Protocol string
	// Address is the IP address to bind, such as "0.0.0.0", "127.0.0.1" or
	// "::1"; empty means all addresses.
	Address string
	// Port is the port to bind; 0 chooses a free one, see [Stack.Addr].
	Port int
	// PublicAddress and PublicPort, if set, are sent to peers instead of the address at
	// which they reach us: in Contact, where later requests of a call go, in Via, where
	// responses go, and in a From without a host. In Contact a host name has no port if
	// that is the usual one (5060, for SIPS 5061), so that peers use its SRV records, if
	// there are any (RFC 3263 4.2).
	PublicAddress string
	PublicPort    int
	// ViaAddress and ViaPort, if one of them is set, replace PublicAddress and PublicPort in
	// Via; the other is then the address at which the peer reaches us. Several processes
	// that share one PublicAddress need it: a request inside a call may go to each of them,
	// but a response must go to the process that sent the request. A peer that supports
	// rport (RFC 3581) sends responses to their source over UDP whatever Via says, and on
	// the same connection over all other transports (RFC 3261 18.2.2): ViaAddress is for
	// all other cases, such as a connection that was lost. On a WebSocket that the stack
	// has opened neither is used (RFC 7118 5).
	ViaAddress string
	ViaPort    int
	// TLSConfig is required for tls and wss.
	TLSConfig *tls.Config
	// WebSocket sets which WebSockets a listener of ws or wss accepts, and, with any
	// protocol, how the stack connects to WebSocket servers. Nil is the same as an empty
	// WebSocketConfig.
	WebSocket *WebSocketConfig
}

// TransportLayer names a transport.
type TransportLayer string

// The names of the transports in Via headers.
const (
	TransportUDP TransportLayer = "UDP"
	TransportTCP TransportLayer = "TCP"
	TransportTLS TransportLayer = "TLS"
	TransportWS  TransportLayer = "WS"
)

// Network opens sockets. The default of a StackConfig is the operating system's network;
// package dialogtest has a network in memory. If StackConfig.Resolver is nil, and a
// Network also has the methods LookupNetIP and LookupSRV of net.Resolver, as that of
// dialogtest has, names are resolved with them. If a Network has a method
//
//	DialFrom(ctx context.Context, network, local, address string) (net.Conn, error)
//
// as the operating system's has, connections are opened with it from the IP address of a
// listener. So peers that identify the stack by its address recognise it in both
// directions.
type Network interface {
	// ListenPacket binds a datagram socket; network is "udp".
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	// Listen binds a stream listener; network is "tcp".
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	// DialContext connects; network is "tcp", or "udp" to find the local address for a
	// peer.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// DefaultTransportConfig returns udp on 0.0.0.0:5060.
func DefaultTransportConfig() *TransportConfig {
	return &TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: sipuri.DefaultPort}
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
	if min(c.Port, c.PublicPort, c.ViaPort) < 0 || max(c.Port, c.PublicPort, c.ViaPort) > 65535 {
		return fmt.Errorf("%w: port out of range", ErrInvalidArgument)
	}
	return c.WebSocket.validate()
}

// GetListenAddress returns the host:port to bind, with brackets around an IPv6 address.
func (c *TransportConfig) GetListenAddress() string {
	if c == nil {
		return ""
	}
	return sipuri.HostPort(c.Address, c.Port)
}

// GetPublicAddress returns the host:port for peers: PublicAddress and PublicPort if set,
// else the bound address. It replaces 0.0.0.0 (and ::) by the loopback address, since the
// address at which a peer reaches us is not known without a peer.
func (c *TransportConfig) GetPublicAddress() string {
	if c == nil {
		return ""
	}
	return sipuri.HostPort(c.publicHost(), orDefault(c.PublicPort, c.Port))
}

// GetSIPURI returns a SIP URI for user at the public address. The scheme is sips for tls
// and wss. The port is left out if it is the transport's default (5060 for udp and tcp,
// 5061 for tls and wss).
func (c *TransportConfig) GetSIPURI(user string) string {
	if c == nil {
		return ""
	}
	return sipuri.Own(c.Protocol, user, c.publicHost(), orDefault(c.PublicPort, c.Port))
}

func (c *TransportConfig) publicHost() string {
	return sipuri.Reachable(orDefault(c.PublicAddress, c.Address))
}

// PublicAddr returns our address and port as the peer sees them: received and rport of
// our Via in its latest response to a request of ours (RFC 3261 18.2.1, RFC 3581 4), over
// UDP, or else on the connection to that address and port. Behind a NAT they are not our
// own, and many NATs use other ones for each peer. ok is false for a peer that has got no
// request, or does not send them. PublicAddr does not block.
func (s *Stack) PublicAddr(peer netip.AddrPort) (seen netip.AddrPort, ok bool) {
	if sockets := s.socketsNow(); sockets != nil {
		return sockets.Public(peer)
	}
	return seen, false
}

// NetworkChanged tells the stack that the host's addresses or routes may have changed.
// Call it when the operating system reports that. The stack forgets learnt addresses, so
// that all later messages have the present ones. It trusts no open connection: each is
// pinged, and replaced by another if possible, until a message arrives on it. Only
// registrations of package register send a request, with the new address: a call needs a
// re-INVITE to send its peer that. Without
// NetworkChanged the address in an INVITE, re-INVITE, UPDATE, SUBSCRIBE, NOTIFY, REFER or
// REGISTER is at most a second old, and in any other request at most a minute.
// NetworkChanged does not block.
func (s *Stack) NetworkChanged() {
	if sockets := s.socketsNow(); sockets != nil {
		sockets.Changed()
		s.parts.NetworkChanged()
	}
}

// WebSocketConfig sets which clients may open WebSockets to a listener, and how the
// stack opens its own.
type WebSocketConfig struct {
	// Origins lists the web origins, such as "https://phone.example", whose pages may
	// connect (RFC 6455 10.2): a browser sends the origin of the page of the script.
	// "*" means any origin, "null" a page without one. Nil permits pages of the host to
	// which they connect, on any port: any other page could make its visitors place
	// calls through this stack. An empty list permits no page. A client that sends no
	// origin is not a browser, and is permitted. Others get 403.
	Origins []string
	// CheckOrigin, if set, decides instead of Origins about each WebSocket, also for a
	// client that sends no origin. It gets the HTTP request, with its path, cookies,
	// RemoteAddr, and TLS if used. It runs on its own goroutine, with no lock held, and
	// may block until the time limit of a handshake (Limits.HandshakeTimeout). A panic
	// refuses the WebSocket.
	CheckOrigin func(r *http.Request) bool
	// Servers lists servers that need another path or other headers. The path for any
	// other server is "/".
	Servers []WebSocketServer
}

// WebSocketServer has the settings for WebSockets to one server. They apply to every
// message for that host and port, whatever its URI. A URI in a message never sets a path
// or a header.
type WebSocketServer struct {
	// URL is the URL of the server, such as "wss://pbx.example:8089/ws?key=value". Its
	// host is written as in SIP URIs: a name, or a literal address. Its path and query
	// are requested. A StackConfig.OutboundProxy may be such a URL, too.
	URL string
	// Header is added to the HTTP request: Cookie, Authorization, Origin. The headers of
	// the handshake itself cannot be set.
	Header http.Header
	// Protocols are the offered subprotocols, of which the server chooses one; nil means
	// "sip" (RFC 7118 4).
	Protocols []string
}

// clone copies the configuration, so that later changes by the caller have no effect.
func (c *WebSocketConfig) clone() *WebSocketConfig {
	if c == nil {
		return nil
	}
	own := *c
	own.Origins, own.Servers = slices.Clone(c.Origins), slices.Clone(c.Servers)
	for i := range own.Servers {
		own.Servers[i].Header = own.Servers[i].Header.Clone()
		own.Servers[i].Protocols = slices.Clone(own.Servers[i].Protocols)
	}
	return &own
}

func (c *WebSocketConfig) origins() []string {
	if c == nil {
		return nil
	}
	return c.Origins
}

func (c *WebSocketConfig) validate() error {
	if c == nil {
		return nil
	}
	for _, origin := range c.Origins {
		if !transport.IsOrigin(origin) {
			return fmt.Errorf("%w: %q is not an origin", ErrInvalidArgument, origin)
		}
	}
	for _, server := range c.Servers {
		if _, err := server.parse(); err != nil {
			return err
		}
	}
	return nil
}

// parse converts a server for the transport layer.
func (s WebSocketServer) parse() (transport.WebSocketServer, error) {
	server, err := transport.ParseWebSocketServer(s.URL, s.Header, s.Protocols)
	return server, malformed(err)
}

// webSocketServers are those of all listeners, and the outbound proxy where that is
// a URL.
func (c *StackConfig) webSocketServers() []transport.WebSocketServer {
	var list []transport.WebSocketServer
	add := func(s WebSocketServer) {
		if server, err := s.parse(); err == nil { // else it did not validate
			list = append(list, server)
		}
	}
	for _, tc := range c.listeners() {
		if tc.WebSocket != nil {
			for _, s := range tc.WebSocket.Servers {
				add(s)
			}
		}
	}
	if c.OutboundProxy != nil && transport.IsWebSocketScheme(c.OutboundProxy.Scheme) {
		add(WebSocketServer{URL: c.OutboundProxy.String()})
	}
	return list
}

// outboundProxy is the first hop of calls, as a SIP URI also where it is a URL;
// nil for none.
func (c *StackConfig) outboundProxy() (*sip.Uri, error) {
	proxy := c.OutboundProxy
	if proxy == nil || !transport.IsWebSocketScheme(proxy.Scheme) {
		return proxy, nil
	}
	server, err := WebSocketServer{URL: proxy.String()}.parse()
	if err != nil {
		return nil, err
	}
	own := &sip.Uri{Scheme: "sip", Host: sipuri.Bracketed(server.URL.Hostname()), UriParams: sip.NewParams()}
	own.Port, _ = strconv.Atoi(server.URL.Port()) // 0: the transport's
	own.UriParams.Add("transport", strings.ToLower(proxy.Scheme))
	return own, nil
}

// checkOrigin is CheckOrigin, with panics and late results refused.
func (s *Stack) checkOrigin(c *WebSocketConfig) func(ctx context.Context, r *http.Request) bool {
	if c == nil || c.CheckOrigin == nil {
		return nil
	}
	return func(ctx context.Context, r *http.Request) bool {
		decided := make(chan bool, 1)
		s.calls.Go(func() {
			allowed := false
			s.guard(s.logger, "CheckOrigin", func() { allowed = c.CheckOrigin(r) }, func() { decided <- allowed })
		})
		select {
		case allowed := <-decided:
			return allowed
		case <-ctx.Done():
			return false
		}
	}
}
