package dialog

import (
	"context"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// WebSocketConfig says which clients may open WebSockets to a listener, and how the
// stack opens its own.
type WebSocketConfig struct {
	// Origins lists the web origins, such as "https://phone.example", whose pages may
	// connect (RFC 6455 10.2): a browser sends the origin of the page of the script.
	// "*" is any, "null" a page without one. Nil permits pages of the host to which
	// they connect, on any port: with other pages every visitor could be made to call
	// by us. An empty list permits no page. A client that sends no origin is no
	// browser, and is permitted. Others get 403.
	Origins []string
	// CheckOrigin, when set, decides instead of Origins about each WebSocket, also for
	// a client that sends no origin. It gets the HTTP request, with its path, cookies,
	// RemoteAddr, and TLS if there is. It runs on a goroutine of its own, with no lock
	// held, and may block until the time limit of a handshake
	// (Limits.HandshakeTimeout). A panic refuses.
	CheckOrigin func(r *http.Request) bool
	// Servers are those that need another path or other headers; any other server is
	// asked for "/".
	Servers []WebSocketServer
}

// WebSocketServer says how to connect to one server by WebSocket. It is used for every
// message to that host and port, by any URI. A URI in a message never chooses a path or
// a header.
type WebSocketServer struct {
	// URL is the server's, such as "wss://pbx.example:8089/ws?key=value"; its host
	// is a name, or a literal address, as SIP URIs have it. The path and the query
	// are asked for. A StackConfig.OutboundProxy may be such a URL, too.
	URL string
	// Header goes along with the HTTP request: Cookie, Authorization, Origin. Those
	// of the handshake itself cannot be set.
	Header http.Header
	// Protocols are the subprotocols offered, of which the server chooses one; nil
	// is "sip" (RFC 7118 4).
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
		if !isOrigin(origin) {
			return fmt.Errorf("%w: %q is no origin", ErrInvalidArgument, origin)
		}
	}
	for _, server := range c.Servers {
		if _, err := server.parse(); err != nil {
			return err
		}
	}
	return nil
}

// isOrigin reports whether a text is an origin (RFC 6454 6.2), or "*" or "null".
func isOrigin(text string) bool {
	if text == "*" || text == "null" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && u.Host != "" && text == u.Scheme+"://"+u.Host
}

// parse converts a server for the transport layer.
func (s WebSocketServer) parse() (transport.WebSocketServer, error) {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || !isWebSocketScheme(u.Scheme) || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return transport.WebSocketServer{}, fmt.Errorf("%w: %q as URL of a WebSocket server", ErrInvalidArgument, s.URL)
	case s.Protocols != nil && len(s.Protocols) == 0 || slices.ContainsFunc(s.Protocols, func(name string) bool { return !sipmsg.IsToken(name) }):
		return transport.WebSocketServer{}, fmt.Errorf("%w: subprotocols %q", ErrInvalidArgument, s.Protocols)
	}
	for name, values := range s.Header {
		if !mayAddHTTPHeader(name) || slices.ContainsFunc(values, func(v string) bool { return v != oneLine(v) }) {
			return transport.WebSocketServer{}, fmt.Errorf("%w: header %q of a WebSocket server", ErrInvalidArgument, name)
		}
	}
	return transport.WebSocketServer{URL: u, Header: s.Header, Protocols: s.Protocols}, nil
}

// mayAddHTTPHeader reports whether an application's header leaves the handshake intact.
func mayAddHTTPHeader(name string) bool {
	switch canonical := textproto.CanonicalMIMEHeaderKey(name); canonical {
	case "Host", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding":
		return false
	default:
		return sipmsg.IsToken(name) && !strings.HasPrefix(canonical, "Sec-Websocket-")
	}
}

func isWebSocketScheme(scheme string) bool {
	return strings.EqualFold(scheme, "ws") || strings.EqualFold(scheme, "wss")
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
	if c.OutboundProxy != nil && isWebSocketScheme(c.OutboundProxy.Scheme) {
		add(WebSocketServer{URL: c.OutboundProxy.String()})
	}
	return list
}

// outboundProxy is the first hop of calls, as a SIP URI also where it is a URL;
// nil for none.
func (c *StackConfig) outboundProxy() (*sip.Uri, error) {
	proxy := c.OutboundProxy
	if proxy == nil || !isWebSocketScheme(proxy.Scheme) {
		return proxy, nil
	}
	server, err := WebSocketServer{URL: proxy.String()}.parse()
	if err != nil {
		return nil, err
	}
	own := &sip.Uri{Scheme: "sip", Host: bracketed(server.URL.Hostname()), UriParams: sip.NewParams()}
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
