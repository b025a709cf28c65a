package transport

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// WebSocketServer says how to connect to one server by WebSocket.
type WebSocketServer struct {
	// URL is ws://host:port/path?query or the same with wss. The path and the
	// query are asked for, of the server whose name, or literal address, and port
	// these are.
	URL *url.URL
	// Header goes along with the request.
	Header http.Header
	// Protocols are offered; nil is "sip" (RFC 7118 4).
	Protocols []string
}

// webSocketServer returns the configuration of the server that is dialled:
// nothing that is meant for one goes to another.
func (l *Layer) webSocketServer(d *dial) WebSocketServer {
	for _, s := range l.cfg.WebSockets {
		if s.leadsTo(d) {
			return s
		}
	}
	return WebSocketServer{URL: &url.URL{Path: "/"}}
}

func (s WebSocketServer) leadsTo(d *dial) bool {
	k, err := kindOf(s.URL.Scheme)
	if err != nil || k.name != d.kind.name {
		return false
	}
	port := s.URL.Port()
	if port == "" {
		port = strconv.Itoa(k.port)
	}
	if port != strconv.Itoa(int(d.key.addr.Port())) {
		return false
	}
	host := s.URL.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap() == d.key.addr.Addr()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), d.key.serverName)
}

func (s WebSocketServer) protocols() []string {
	if s.Protocols == nil {
		return []string{subprotocol}
	}
	return s.Protocols
}
