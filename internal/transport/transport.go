package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Errors of this package, to be tested with errors.Is.
var (
	// ErrClosed: the layer, or the connection of the flow, is closed.
	ErrClosed = errors.New("closed")
	// ErrTooManyConnections: a bound of Limits is reached.
	ErrTooManyConnections = errors.New("too many connections")
	// ErrSlow: the peer does not read; its queue was full and the connection
	// has been closed.
	ErrSlow = errors.New("peer too slow")
	// ErrNoListener: no UDP socket of the target's address family is open.
	ErrNoListener = errors.New("no listening socket for the target")
	// ErrUnsupportedTransport: the transport, or the URI's scheme, is not
	// served by this layer.
	ErrUnsupportedTransport = errors.New("unsupported transport")
	// ErrBadTarget: a URI, target or SRV record without a usable host or port.
	ErrBadTarget = errors.New("bad target")
	// ErrNotFound: the name has no address; wraps the resolver's error.
	ErrNotFound = errors.New("name not found")
	// ErrTLS: a TLS handshake failed, or a certificate was refused by either
	// side; wraps the cause.
	ErrTLS = errors.New("TLS failed")
	// ErrWebSocket: a WebSocket handshake failed; wraps the cause.
	ErrWebSocket = errors.New("WebSocket handshake failed")
	// ErrNoPong: a connection was closed because a keep-alive of ours was not
	// answered in time.
	ErrNoPong = errors.New("keep-alive not answered")
	// ErrIdle: a connection was closed because nothing was sent or received
	// for Limits.IdleTimeout.
	ErrIdle = errors.New("connection idle")
	// ErrFraming: a connection was closed because the bytes of the peer could
	// not be cut into messages, or stopped in the middle of one.
	ErrFraming = errors.New("malformed framing of a stream")
)

// Network opens sockets. Its methods block no longer than the operating
// system's do, and DialContext ends with its context. See also [DialFromer].
type Network interface {
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Resolver asks the DNS; *net.Resolver is one. Its methods end with their
// context.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip", "ip4" or
	// "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	// LookupSRV returns the records of a service, ordered by priority and
	// randomised by weight (RFC 2782).
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// Local is the address at which one peer reaches us, for the sent-by of a Via and for a Contact.
type Local struct {
	Transport string // "UDP", "TCP", "TLS", "WS", "WSS"
	Host      string // an IPv6 address without brackets
	Port      int    // 0: none
}

// Target is one resolved place to send a request to.
type Target struct {
	Transport  string // "UDP", "TCP", "TLS", "WS", "WSS"
	Addr       netip.AddrPort
	ServerName string // the name that was resolved, which a certificate must have; empty: a literal address, then that
}

// Event is one message read or written, for the trace hook. Data is valid
// during the call only.
type Event struct {
	Outbound      bool
	Transport     string
	Local, Remote netip.AddrPort
	Data          []byte
	Time          time.Time
}

// Config configures a Layer. The zero value works.
type Config struct {
	Network  Network      // nil: the operating system's
	Resolver Resolver     // nil: Network if it is one, else &net.Resolver{PreferGo: true}, so that a ctx really ends a look-up
	Logger   *slog.Logger // nil: silent. Never called with a lock held.
	Limits   Limits
	// Trace, when set, is called for each message that was read or is about to
	// be written, but not for keep-alives, on the goroutine that reads or
	// writes; with no lock held. It must not block.
	Trace func(Event)
	// TLS is for connections we dial: root certificates, client certificates.
	// nil: the system's roots, no certificate of ours. The server's name is
	// always that of the target.
	TLS *tls.Config
	// KeepAlive, when positive, is the longest silence, in both directions, on
	// a connection that we dialled: then a keep-alive is sent (a double CRLF,
	// RFC 5626 4.4.1; a ping on a WebSocket), after 80 to 100 % of it. The
	// connection is closed when ten seconds later there is no answer: the
	// peer must know keep-alives.
	KeepAlive time.Duration
	// FlowKeepAlive, when positive, is the longest silence on a flow that is held, before
	// a keep-alive is sent, after 80 to 100 % of it: on a WebSocket a ping; over UDP a
	// double CRLF, whatever else is sent; on TCP and TLS the same, but not more often than
	// every 120 seconds. A connection is closed when ten seconds later nothing has come,
	// if its peer is known to answer. One that we dialled has those of KeepAlive instead,
	// where that is positive.
	FlowKeepAlive time.Duration
	// Lost, when set, is called for each connection that is lost while it is held
	// (Flow.Hold, Flow.HoldFor), with no lock held. It must not block.
	Lost func(*Flow, error)
	// FollowMaddr has responses go where the maddr parameter of a Via says, on UDP.
	FollowMaddr bool
	// WebSockets are servers that are connected to in a way of their own. Others
	// are asked for "/", with no headers.
	WebSockets []WebSocketServer
	// PublicHost and PublicPort replace the host and the port of every Local
	// when set, but not those of a listener that has its own.
	PublicHost string
	PublicPort int
	// LearnPublic has each Local, but those that PublicHost or PublicPort replace, be
	// what the peer has last said that it sees, where that is another address.
	LearnPublic bool
}

// ListenConfig says where to listen, and how.
type ListenConfig struct {
	Transport string      // "udp", "tcp", "tls", "ws", "wss"
	Address   string      // host:port; port 0 takes a free one
	TLS       *tls.Config // for "tls" and "wss": the certificates, and whether the peer needs one
	// PublicHost and PublicPort, when set, are sent to the peers of this listener
	// instead of its own address.
	PublicHost string
	PublicPort int
	// ViaHost and ViaPort, when either is set, replace PublicHost and PublicPort in
	// what a Via says.
	ViaHost string
	ViaPort int
	// Origins are those whose pages may open WebSockets here, "*" any; nil: those of
	// the host that they connect to. A client without an origin is not a browser, and may.
	Origins []string
	// CheckOrigin, when set, decides instead. ctx ends with the handshake.
	CheckOrigin func(ctx context.Context, r *http.Request) bool
}

// Handler takes the messages that arrive, with the flow they came by. It is
// called from the read loops, in the order of arrival per socket, and must not
// block. The message is the handler's from then on.
type Handler func(m *sipmsg.Message, flow *Flow)

// osNetwork is the operating system's Network.
type osNetwork struct{}

func (osNetwork) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, address)
}

func (osNetwork) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

func (osNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func (osNetwork) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	own, err := netip.ParseAddr(local)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0))}
	return d.DialContext(ctx, network, address)
}
