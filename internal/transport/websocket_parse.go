package transport

import (
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// ParseWebSocketServer reads the settings for the WebSockets to one server.
func ParseWebSocketServer(text string, header http.Header, protocols []string) (WebSocketServer, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || !IsWebSocketScheme(u.Scheme) || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return WebSocketServer{}, fmt.Errorf("URL %q of a WebSocket server", text)
	case protocols != nil && len(protocols) == 0 || slices.ContainsFunc(protocols, func(name string) bool { return !sipmsg.IsToken(name) }):
		return WebSocketServer{}, fmt.Errorf("subprotocols %q", protocols)
	}
	for name, values := range header {
		if !mayAddHTTPHeader(name) || slices.ContainsFunc(values, func(v string) bool { return v != sipheader.OneLine(v) }) {
			return WebSocketServer{}, fmt.Errorf("header %q of a WebSocket server", name)
		}
	}
	return WebSocketServer{URL: u, Header: header, Protocols: protocols}, nil
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

// IsWebSocketScheme reports whether a URL is one of a WebSocket.
func IsWebSocketScheme(scheme string) bool {
	return strings.EqualFold(scheme, "ws") || strings.EqualFold(scheme, "wss")
}

// IsOrigin reports whether a text is an origin (RFC 6454 6.2), or "*" or "null".
func IsOrigin(text string) bool {
	if text == "*" || text == "null" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && u.Host != "" && text == u.Scheme+"://"+u.Host
}
