package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

// webServer serves WebSockets as one under test does not, and tells of what it is
// asked.
func webServer(t *testing.T, config *tls.Config, protocols ...string) (netip.AddrPort, <-chan *http.Request) {
	t.Helper()
	asked := make(chan *http.Request, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: protocols, InsecureSkipVerify: true})
		if err == nil {
			_ = conn.CloseNow()
		}
	}))
	if server.TLS = config; config != nil {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return addrPort(server.Listener.Addr()), asked
}

// at is a URL of a server that listens somewhere.
func at(t *testing.T, scheme, host string, addr netip.AddrPort, rest string) *url.URL {
	t.Helper()
	u, err := url.Parse(scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(addr.Port()))) + rest)
	require.NoError(t, err)
	return u
}

// FD20: "/" was all that a server could be asked for.
func TestServersOfWebSocketsAreAskedForTheirPaths(t *testing.T) {
	ca := testcert.New(t)
	header := http.Header{"Authorization": {"Basic YTpi"}, "Origin": {"https://phone.example"}, "X-Two": {"1", "2"}}
	plain, asked := webServer(t, nil, "sip")
	secure, askedTLS := webServer(t, ca.Server("pbx.example"), "sip")
	odd, askedOdd := webServer(t, nil, "sip.v9")
	l, _ := startLayer(t, Config{TLS: ca.Client(), WebSockets: []WebSocketServer{
		{URL: at(t, "ws", "127.0.0.1", plain, "/ws"), Header: header},
		{URL: at(t, "wss", "PBX.example", secure, "/a%20b/ws?key=v%26w&x"), Header: header},
		{URL: at(t, "ws", "odd.example", odd, ""), Protocols: []string{"sip.v8", "sip.v9"}},
	}})
	for _, c := range []struct {
		target Target
		asked  <-chan *http.Request
		uri    string
		offers string
		header http.Header
	}{
		{Target{Transport: "WS", Addr: plain}, asked, "/ws", "sip", header},
		{Target{Transport: "WSS", Addr: secure, ServerName: "pbx.EXAMPLE."}, askedTLS, "/a%20b/ws?key=v%26w&x", "sip", header},
		{Target{Transport: "WS", Addr: odd, ServerName: "odd.example"}, askedOdd, "/", "sip.v8, sip.v9", nil},
	} {
		_, err := l.Connect(context.Background(), c.target)
		require.NoError(t, err)
		r := <-c.asked
		require.Equal(t, c.uri, r.RequestURI)
		require.Equal(t, c.offers, r.Header.Get("Sec-WebSocket-Protocol"))
		for name := range header {
			require.Equal(t, c.header.Values(name), r.Header.Values(name))
		}
	}
}

// Values for one server go to no other.
func TestOtherServersOfWebSocketsAreAskedForNothingInParticular(t *testing.T) {
	ca := testcert.New(t)
	plain, asked := webServer(t, nil, "sip")
	secure, askedTLS := webServer(t, ca.Server("pbx.example", "other.example"), "sip")
	secret := http.Header{"Authorization": {"Basic YTpi"}}
	l, _ := startLayer(t, Config{TLS: ca.Client(), WebSockets: []WebSocketServer{
		{URL: at(t, "ws", "pbx.example", plain, "/ws"), Header: secret},
		{URL: at(t, "ws", "127.0.0.2", plain, "/ws"), Header: secret},
		{URL: at(t, "wss", "127.0.0.1", plain, "/ws"), Header: secret},
		{URL: at(t, "ws", "127.0.0.1", secure, "/ws"), Header: secret},
		{URL: at(t, "wss", "pbx.example", plain, "/ws"), Header: secret},
		{URL: at(t, "wss", "pbx.example", secure, "/ws"), Header: secret},
	}})
	for _, c := range []struct {
		target Target
		asked  <-chan *http.Request
	}{
		{Target{Transport: "WS", Addr: plain}, asked},
		{Target{Transport: "WS", Addr: plain, ServerName: "other.example"}, asked},
		{Target{Transport: "WSS", Addr: secure, ServerName: "other.example"}, askedTLS},
	} {
		_, err := l.Connect(context.Background(), c.target)
		require.NoError(t, err)
		r := <-c.asked
		require.Equal(t, "/", r.RequestURI)
		require.Equal(t, "sip", r.Header.Get("Sec-WebSocket-Protocol"))
		require.Empty(t, r.Header.Get("Authorization"))
	}
}
