package test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testcert"
)

// FX9
func TestWebSocketConfigurationsThatCannotBe(t *testing.T) {
	for name, ws := range map[string]dialog.WebSocketConfig{
		"origin without scheme":  {Origins: []string{"phone.example"}},
		"origin with path":       {Origins: []string{"https://phone.example/"}},
		"empty origin":           {Origins: []string{""}},
		"no WebSocket":           {Servers: []dialog.WebSocketServer{{URL: "https://pbx.example/ws"}}},
		"no URL":                 {Servers: []dialog.WebSocketServer{{URL: "wss://pbx example"}}},
		"no host":                {Servers: []dialog.WebSocketServer{{URL: "wss:///ws"}}},
		"user in the URL":        {Servers: []dialog.WebSocketServer{{URL: "wss://u:p@pbx.example/ws"}}},
		"fragment":               {Servers: []dialog.WebSocketServer{{URL: "wss://pbx.example/ws#here"}}},
		"nothing offered":        {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Protocols: []string{}}}},
		"protocol of two lines":  {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Protocols: []string{"sip\r\nX: y"}}}},
		"header of two lines":    {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Header: http.Header{"X": {"a\r\nY: b"}}}}},
		"header name of two":     {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Header: http.Header{"X: a\r\nY": {"b"}}}}},
		"header of the protocol": {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Header: http.Header{"sec-websocket-key": {"b"}}}}},
		"Host":                   {Servers: []dialog.WebSocketServer{{URL: "ws://pbx.example", Header: http.Header{"host": {"b"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			tc := dialog.TransportConfig{Protocol: "udp", WebSocket: &ws}
			require.ErrorIs(t, tc.Validate(), dialog.ErrInvalidArgument)
			_, err := dialog.NewStack(&dialog.StackConfig{Listeners: []dialog.TransportConfig{tc}})
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		})
	}
	proxy := sip.Uri{}
	require.NoError(t, sip.ParseUri("wss://u:p@pbx.example/ws", &proxy))
	_, err := dialog.NewStack(&dialog.StackConfig{OutboundProxy: &proxy})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}

// upgradeAt reads the HTTP request that f opens a WebSocket with, and refuses it.
func (w *world) upgradeAt(address string, f func(), ip string) *http.Request {
	w.t.Helper()
	l, err := w.net.Host(ip).Listen(context.Background(), "tcp", address)
	require.NoError(w.t, err)
	defer func() { _ = l.Close() }()
	go f()
	conn, err := l.Accept()
	require.NoError(w.t, err)
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	require.NoError(w.t, err)
	_, err = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	require.NoError(w.t, err)
	return r
}

// FD20: a proxy that listens at a path could not be used.
func TestServersOfWebSocketsHaveTheirPathsAndHeaders(t *testing.T) {
	url := sip.Uri{}
	require.NoError(t, sip.ParseUri("ws://"+proxyIP+":8088/ws?key=v", &url))
	plain := sip.Uri{Scheme: "sip", Host: proxyIP, Port: 8088, UriParams: sip.HeaderParams{{K: "transport", V: "ws"}}}
	server := &dialog.WebSocketConfig{Servers: []dialog.WebSocketServer{{
		URL: "ws://" + proxyIP + ":8088/asterisk/ws", Header: http.Header{"Cookie": {"a=b"}}, Protocols: []string{"sip.v9"},
	}}}
	for name, c := range map[string]struct {
		change      func(*dialog.StackConfig)
		target      sip.Uri
		uri, cookie string
		protocol    string
	}{
		"neither said": {func(c *dialog.StackConfig) { c.OutboundProxy = &plain }, uri("bob", peerIP), "/", "", "sip"},
		"proxy's URL":  {func(c *dialog.StackConfig) { c.OutboundProxy = &url }, uri("bob", peerIP), "/ws?key=v", "", "sip"},
		"both": {func(c *dialog.StackConfig) { c.OutboundProxy, c.Transport.WebSocket = &url, server },
			uri("bob", peerIP), "/asterisk/ws", "a=b", "sip.v9"},
		"target": {func(c *dialog.StackConfig) { c.Transport.WebSocket = server }, plain, "/asterisk/ws", "a=b", "sip.v9"},
		"further listener": {func(c *dialog.StackConfig) {
			c.Listeners = []dialog.TransportConfig{{Protocol: "ws", Address: stackIP, Port: 80, WebSocket: server}}
		}, plain, "/asterisk/ws", "a=b", "sip.v9"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.stack(stackIP, c.change)
				failed := make(chan error, 1)
				r := w.upgradeAt(proxyIP+":8088", func() {
					_, err := a.NewInvite(context.Background(), c.target, offer(offerSDP))
					failed <- err
				}, proxyIP)
				require.ErrorIs(t, <-failed, dialog.ErrTransport)
				require.Equal(t, c.uri, r.RequestURI)
				require.Equal(t, proxyIP+":8088", r.Host)
				require.Equal(t, c.cookie, r.Header.Get("Cookie"))
				require.Equal(t, c.protocol, r.Header.Get("Sec-WebSocket-Protocol"))
			})
		})
	}
}

// The route that such a URL gives is a SIP URI.
func TestProxyThatIsAURLIsTheFirstHop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := testcert.New(t)
		far := w.site(peerIP, "wss", ca)
		url := sip.Uri{}
		require.NoError(t, sip.ParseUri("wss://"+peerIP+"/ws", &url))
		near := w.site(stackIP, "wss", ca, func(c *dialog.StackConfig) { c.OutboundProxy = &url })
		calls := far.takes(t)
		caller, _ := near.call(t, uri("bob", "example.test"), calls)
		invite := near.messages(true, "INVITE")[0]
		require.Equal(t, "WSS", invite.Transport)
		require.Equal(t, []string{"<sip:" + peerIP + ";transport=wss;lr>"}, values(invite.msg, "Route"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// FX9: what decides about a WebSocket may panic, end its goroutine, or wait for
// ever.
func TestCheckOfAnOriginThatDoesNotReturn(t *testing.T) {
	var leave chan struct{}
	for name, check := range map[string]func(*http.Request) bool{
		"panics":     func(*http.Request) bool { panic("as a test") },
		"Goexit":     func(*http.Request) bool { runtime.Goexit(); return true },
		"waits":      func(*http.Request) bool { <-leave; return true },
		"refuses":    func(*http.Request) bool { return false },
		"by address": func(r *http.Request) bool { return r.RemoteAddr == "" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				leave = make(chan struct{})
				defer close(leave)
				far := w.site(peerIP, "ws", nil, func(c *dialog.StackConfig) {
					c.Transport.WebSocket = &dialog.WebSocketConfig{CheckOrigin: check}
				})
				near := w.site(stackIP, "ws", nil)
				began := time.Now()
				_, err := near.NewInvite(context.Background(), far.uri("bob"), offer(offerSDP))
				require.ErrorIs(t, err, dialog.ErrTransport)
				require.LessOrEqual(t, time.Since(began), 10*time.Second)
				synctest.Wait()
				require.Zero(t, far.Stats().Connections)
			})
		})
	}
}
