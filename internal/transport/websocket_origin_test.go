package transport

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

// upgrade sends a WebSocket handshake with further header lines, and returns the
// status of the answer.
func upgrade(t *testing.T, addr netip.AddrPort, host string, lines ...string) int {
	t.Helper()
	conn := dialTCP(t, addr)
	lines = append([]string{"GET /phone?x=1 HTTP/1.1", "Host: " + host, "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: sip"}, lines...)
	_, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return res.StatusCode
}

// FX9: any web page could open a WebSocket.
func TestOnlyPagesOfListedOriginsOpenWebSockets(t *testing.T) {
	const in, out = http.StatusSwitchingProtocols, http.StatusForbidden
	listed := []string{"https://phone.example", "http://[2001:db8::1]:8080"}
	for _, c := range []struct {
		origins []string
		host    string
		lines   string
		want    int
	}{
		{nil, "pbx.example:8088", "", in}, // no browser
		{nil, "pbx.example:8088", "Origin: https://evil.example", out},
		{nil, "pbx.example:8088", "Origin: https://pbx.example", in},
		{nil, "pbx.example:8088", "Origin: http://PBX.example:3000", in},
		{nil, "pbx.example", "Origin: https://pbx.example.evil.example", out},
		{nil, "pbx.example", "Origin: https://evil.example/pbx.example", out},
		{nil, "[2001:db8::1]:8088", "Origin: http://[2001:db8::1]", in},
		{nil, "pbx.example", "Origin: null", out},
		{nil, "pbx.example", "Origin: ", out},
		{nil, "pbx.example", "Origin: https://pbx.example\r\nOrigin: https://evil.example", out},
		{[]string{}, "pbx.example", "Origin: https://pbx.example", out},
		{[]string{}, "pbx.example", "", in},
		{listed, "pbx.example", "Origin: https://phone.example", in},
		{listed, "pbx.example", "Origin: HTTPS://Phone.Example:443", in},
		{listed, "pbx.example", "Origin: http://[2001:DB8::1]:8080", in},
		{listed, "pbx.example", "Origin: http://phone.example", out},
		{listed, "pbx.example", "Origin: https://phone.example:8443", out},
		{listed, "pbx.example", "Origin: https://pbx.example", out},
		{listed, "pbx.example", "Origin: null", out},
		{[]string{"null"}, "pbx.example", "Origin: null", in},
		{[]string{"*"}, "pbx.example", "Origin: https://evil.example", in},
	} {
		t.Run(fmt.Sprint(c.origins, c.host, c.lines), func(t *testing.T) {
			server, _ := startLayer(t, Config{})
			addr, err := server.Listen(context.Background(), ListenConfig{Transport: "ws", Address: "127.0.0.1:0", Origins: c.origins})
			require.NoError(t, err)
			var lines []string
			if c.lines != "" {
				lines = []string{c.lines}
			}
			require.Equal(t, c.want, upgrade(t, addr, c.host, lines...))
		})
	}
}

func TestCheckOfTheOriginSeesTheRequest(t *testing.T) {
	ca := testcert.New(t)
	server, _ := startLayer(t, Config{})
	seen := make(chan *http.Request, 1)
	config := ListenConfig{Address: "127.0.0.1:0", Origins: []string{"*"}, CheckOrigin: func(_ context.Context, r *http.Request) bool {
		seen <- r
		return r.Header.Get("Cookie") == "let=me"
	}}
	config.Transport = "ws"
	addr, err := server.Listen(context.Background(), config)
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, upgrade(t, addr, "pbx.example"))
	<-seen
	require.Equal(t, http.StatusSwitchingProtocols, upgrade(t, addr, "pbx.example", "Cookie: let=me", "Origin: https://evil.example"))
	r := <-seen
	require.Equal(t, "/phone?x=1", r.URL.RequestURI())
	require.Equal(t, "pbx.example", r.Host)
	require.Equal(t, "https://evil.example", r.Header.Get("Origin"))
	require.NotEmpty(t, r.RemoteAddr)
	require.Nil(t, r.TLS)

	config.Transport, config.TLS = "wss", ca.Server("pbx.example")
	addr, err = server.Listen(context.Background(), config)
	require.NoError(t, err)
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	_, err = client.Connect(context.Background(), Target{Transport: "WSS", Addr: addr, ServerName: "pbx.example"})
	require.ErrorIs(t, err, ErrWebSocket)
	require.Equal(t, "pbx.example", (<-seen).TLS.ServerName)
	// Counted once the refusal has been written, which may have been read by then.
	require.Eventually(t, func() bool { return server.Stats().HandshakesFailed == 2 }, 10*time.Second, time.Millisecond)
}

// One that waits for ever costs its handshake only.
func TestCheckOfTheOriginEndsWithTheHandshake(t *testing.T) {
	server, _ := startLayer(t, Config{Limits: Limits{HandshakeTimeout: 50 * time.Millisecond}})
	addr, err := server.Listen(context.Background(), ListenConfig{
		Transport: "ws", Address: "127.0.0.1:0", CheckOrigin: func(ctx context.Context, _ *http.Request) bool { <-ctx.Done(); return true },
	})
	require.NoError(t, err)
	conn := dialTCP(t, addr)
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Empty(t, answer)
}
