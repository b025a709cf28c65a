package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/testcert"
)

// browser connects as another WebSocket library does.
func browser(t *testing.T, url string, options *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url, options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func sipOver(client *http.Client) *websocket.DialOptions {
	return &websocket.DialOptions{Subprotocols: []string{"chat", "sip"}, HTTPClient: client}
}

func TestWS_carries_messages_both_ways_on_one_connection(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range []string{"WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			server, arrivals := startLayer(t, Config{})
			addr := listenTLS(t, server, transport, "127.0.0.1:0", ca.Server("sip.example.com"))
			client, answers := startLayer(t, Config{TLS: ca.Client(), PublicHost: "192.0.2.1"})
			target := Target{Transport: transport, Addr: addr, ServerName: "sip.example.com"}
			flow, err := client.Connect(context.Background(), target)
			require.NoError(t, err)
			again, err := client.Connect(context.Background(), target)
			require.NoError(t, err)
			require.True(t, flow.Same(again))
			require.True(t, flow.Reliable())
			_, secure := flow.TLS()
			require.Equal(t, transport == "WSS", secure)

			// RFC 7118 5: a client accepts no connections.
			local := flow.Local()
			require.Equal(t, transport, local.Transport)
			require.Regexp(t, `^[0-9a-f]{16}\.invalid$`, local.Host)
			require.Zero(t, local.Port)
			require.Equal(t, local, again.Local())

			require.NoError(t, flow.Send([]byte(options("there", local.Host+";rport", "body"))))
			a := next(t, arrivals)
			require.Equal(t, transport, a.msg.Transport())
			require.Equal(t, transport, a.flow.Transport())
			via := a.msg.Via()
			require.Equal(t, local.Host, via.Host)
			received, _ := via.Params.Get("received")
			require.Equal(t, "127.0.0.1", received)
			rport, _ := via.Params.Get("rport")
			require.Equal(t, fmt.Sprint(flow.LocalAddr().Port()), rport)
			require.Equal(t, Local{Transport: transport, Host: "127.0.0.1", Port: int(addr.Port())}, a.flow.Local())
			require.True(t, server.Reply(a.flow, a.m).Same(a.flow))
			_, found := server.ReplyTarget(a.flow, a.m)
			require.False(t, found)

			require.NoError(t, a.flow.Send(ok("there")))
			require.Equal(t, "there", next(t, answers).msg.CallID().Value())
			binary := options("binary", "127.0.0.1", "\xff\xfe")
			require.NoError(t, flow.Send([]byte(binary)))
			require.Equal(t, "\xff\xfe", string(next(t, arrivals).msg.Body()))

			lost := make(chan error, 2)
			flow.Watch(func(err error) { lost <- err })
			start := time.Now()
			require.NoError(t, server.Close())
			require.Less(t, time.Since(start), flushTime, "the closing handshake is answered")
			require.ErrorIs(t, <-lost, io.EOF)
			require.Zero(t, client.Stats().Connections)
		})
	}
}

func TestWS_serves_other_clients(t *testing.T) {
	ca := testcert.New(t)
	server, arrivals := startLayer(t, Config{})
	plain := listen(t, server, "ws", "127.0.0.1:0")
	secure := listenTLS(t, server, "wss", "127.0.0.1:0", ca.Server("127.0.0.1"))
	transport := &http.Transport{TLSClientConfig: ca.Client(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, url := range []string{"ws://" + plain.String(), "ws://" + plain.String() + "/some/path?x=y", "wss://" + secure.String() + "/"} {
		conn := browser(t, url, sipOver(&http.Client{Transport: transport}))
		require.Equal(t, "sip", conn.Subprotocol())
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			require.NoError(t, conn.Write(ctx, kind, []byte(options("x", "a.invalid", "body"))))
			require.Equal(t, "body", string(next(t, arrivals).msg.Body()))
		}

		// RFC 7118 5: no Content-Length is needed.
		lines := text("all the rest", "OPTIONS sip:b@example.com SIP/2.0", "Via: SIP/2.0/WS a.invalid;branch=z9hG4bK1", "From: <sip:a@example.com>;tag=a",
			"To: <sip:b@example.com>", "Call-ID: rest", "CSeq: 1 OPTIONS", "Max-Forwards: 70")
		require.NoError(t, conn.Write(ctx, websocket.MessageText, []byte(lines)))
		require.Equal(t, "all the rest", string(next(t, arrivals).msg.Body()))

		// Fragments, with a ping among them. The pong is read below.
		w, err := conn.Writer(ctx, websocket.MessageText)
		require.NoError(t, err)
		pong := make(chan error, 1)
		for i, part := range strings.SplitAfter(options("fragments", "a.invalid", "body"), "\r\n") {
			_, err := io.WriteString(w, part)
			require.NoError(t, err)
			if i == 3 {
				go func() { pong <- conn.Ping(ctx) }()
			}
		}
		require.NoError(t, w.Close())
		a := next(t, arrivals)
		require.Equal(t, "fragments", a.msg.CallID().Value())
		require.NoError(t, a.flow.Send(ok("fragments")))
		kind, answer, err := conn.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, websocket.MessageText, kind)
		require.Equal(t, string(ok("fragments")), string(answer))
		reading := conn.CloseRead(ctx)
		require.NoError(t, <-pong)

		lost := make(chan error, 1)
		a.flow.Watch(func(err error) { lost <- err })
		require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
		require.ErrorIs(t, <-lost, io.EOF)
		<-reading.Done()
	}
	require.EqualValues(t, 3, server.Stats().KeepAlives)
}

func TestWS_is_a_client_of_other_servers(t *testing.T) {
	ca := testcert.New(t)
	requests := make(chan string, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"sip"}})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		_, msg, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		requests <- r.Host + " " + r.URL.Path + " " + string(msg[:7])
		_ = conn.Write(r.Context(), websocket.MessageBinary, ok("there"))
		_, _, _ = conn.Read(r.Context()) // until the close, which is answered
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.TLS = ca.Server("sip.example.com")
	secure.StartTLS()
	defer secure.Close()

	client, answers := startLayer(t, Config{TLS: ca.Client()})
	for transport, server := range map[string]*httptest.Server{"ws": plain, "wss": secure} {
		addr := addrPort(server.Listener.Addr())
		flow, err := client.Connect(context.Background(), Target{Transport: transport, Addr: addr, ServerName: "sip.example.com"})
		require.NoError(t, err)
		require.NoError(t, flow.Send([]byte(options("there", "a.invalid", ""))))
		require.Equal(t, "there", next(t, answers).msg.CallID().Value())
		require.Equal(t, fmt.Sprintf("sip.example.com:%d / OPTIONS", addr.Port()), <-requests)
	}
	start := time.Now()
	require.NoError(t, client.Close())
	require.Less(t, time.Since(start), flushTime)
}

func upgradeRequest(change ...string) string {
	request := "GET /sip HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
	return strings.NewReplacer(change...).Replace(request)
}

func TestWS_upgrades_that_are_wrong_are_refused_before_the_protocol_changes(t *testing.T) {
	server, arrivals := startLayer(t, Config{})
	addr := listen(t, server, "ws", "127.0.0.1:0")
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"no subprotocol":      {upgradeRequest("Sec-WebSocket-Protocol: sip\r\n", ""), 400},
		"another subprotocol": {upgradeRequest("Protocol: sip", "Protocol: sipx, chat"), 400},
		"another version":     {upgradeRequest("Version: 13", "Version: 8"), 426},
		"no key":              {upgradeRequest("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400},
		"no upgrade":          {upgradeRequest("Upgrade: websocket\r\n", ""), 400},
		"no GET":              {upgradeRequest("GET", "POST"), 405},
		"too long":            {upgradeRequest("Host", "X: "+strings.Repeat("x", maxUpgrade)+"\r\nHost"), 431},
	} {
		conn := dialTCP(t, addr)
		_, _ = io.WriteString(conn, c.request)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, name)
		require.Equal(t, c.status, res.StatusCode, name)
		_ = res.Body.Close()
	}
	conn := dialTCP(t, addr)
	write(t, conn, options("x", "127.0.0.1", "")) // no HTTP at all
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, _ := io.ReadAll(conn)
	require.NotContains(t, string(answer), "SIP/2.0 ")

	// The server goes on; frames may come at the heels of the request.
	conn = dialTCP(t, addr)
	write(t, conn, upgradeRequest()+string(wsFrame(ws.OpText, []byte(options("early", "a.invalid", "")), true)))
	require.Equal(t, "early", next(t, arrivals).msg.CallID().Value())
	require.NoError(t, conn.Close())
	require.NoError(t, server.Close())
	require.EqualValues(t, 8, server.Stats().HandshakesFailed)
	require.Zero(t, server.Stats().Handshakes)
}

func TestWS_servers_that_are_wrong_are_an_error(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"not found":      http.NotFound,
		"a redirection":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"no subprotocol": func(w http.ResponseWriter, r *http.Request) { _, _ = websocket.Accept(w, r, nil) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxUpgrade))
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			client, _ := startLayer(t, Config{})
			_, err := client.Connect(context.Background(), Target{Transport: "WS", Addr: addrPort(server.Listener.Addr())})
			require.ErrorIs(t, err, ErrWebSocket)
			require.EqualValues(t, 1, client.Stats().HandshakesFailed)
			require.Zero(t, client.Stats().Connections)
		})
	}
}

func TestWS_takes_frames_that_come_with_the_answer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, answers := startLayer(t, Config{})
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		var answer strings.Builder
		upgrader := ws.Upgrader{Protocol: func([]byte) bool { return true }}
		var head strings.Builder
		_ = request.Write(&head)
		_, _ = upgrader.Upgrade(readWriter{strings.NewReader(head.String()), &answer})
		answer.Write(wsFrame(ws.OpText, ok("early"), false))
		_, _ = io.WriteString(conn, answer.String())
		_, _ = io.Copy(io.Discard, conn)
	}()
	_, err = client.Connect(context.Background(), Target{Transport: "WS", Addr: addrPort(ln.Addr())})
	require.NoError(t, err)
	require.Equal(t, "early", next(t, answers).msg.CallID().Value())
}

func TestWS_host_of_the_request(t *testing.T) {
	for want, target := range map[string]Target{
		"sip.example.com":      {Transport: "WS", Addr: netip.MustParseAddrPort("192.0.2.1:80"), ServerName: "sip.example.com."},
		"sip.example.com:8080": {Transport: "WS", Addr: netip.MustParseAddrPort("192.0.2.1:8080"), ServerName: "sip.example.com"},
		"192.0.2.1":            {Transport: "WSS", Addr: netip.MustParseAddrPort("192.0.2.1:443")},
		"[2001:db8::1]":        {Transport: "WS", Addr: netip.MustParseAddrPort("[2001:db8::1]:80")},
		"[2001:db8::1]:443":    {Transport: "WS", Addr: netip.MustParseAddrPort("[2001:db8::1]:443")},
	} {
		k, err := kindOf(target.Transport)
		require.NoError(t, err)
		d := &dial{kind: k, key: streamKey{addr: target.Addr, serverName: serverName(k, target)}}
		require.Equal(t, want, d.httpHost())
	}
}

func TestWSS_checks_the_certificate(t *testing.T) {
	ca := testcert.New(t)
	server, _ := startLayer(t, Config{})
	addr := listenTLS(t, server, "wss", "127.0.0.1:0", ca.Server("sip.example.com"))
	client, _ := startLayer(t, Config{TLS: ca.Client()})
	_, err := client.Connect(context.Background(), Target{Transport: "WSS", Addr: addr, ServerName: "sip.example.org"})
	require.ErrorIs(t, err, ErrTLS)
	conn := dialTCP(t, addr)
	write(t, conn, upgradeRequest())
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, _ := io.ReadAll(conn)
	require.NotContains(t, string(answer), "101")
	_, err = server.Listen(context.Background(), ListenConfig{Transport: "wss", Address: "127.0.0.1:0"})
	require.ErrorIs(t, err, ErrTLS)
}

// upgraded is a client whose frames the test writes byte by byte.
func upgraded(t *testing.T, addr netip.AddrPort) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dialTCP(t, addr)
	write(t, conn, upgradeRequest())
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	require.Equal(t, "sip", res.Header.Get("Sec-WebSocket-Protocol"))
	require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", res.Header.Get("Sec-WebSocket-Accept"), "RFC 6455 1.3")
	return conn, r
}

// masked is a frame of a client's, the last of its message or not.
func masked(op ws.OpCode, fin bool, payload string) string {
	return string(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload)))))
}

// FT2: a message in fragments leaves nothing to the next one.
func TestWS_messages_in_fragments_follow_each_other(t *testing.T) {
	server, arrivals := startLayer(t, Config{})
	conn, _ := upgraded(t, listen(t, server, "ws", "127.0.0.1:0"))
	for _, id := range []string{"first", "second", "third"} {
		msg := options(id, "a.invalid", "body")
		write(t, conn, masked(ws.OpText, false, msg[:20])+masked(ws.OpContinuation, false, msg[20:40])+masked(ws.OpContinuation, true, msg[40:]))
		require.Equal(t, id, next(t, arrivals).msg.CallID().Value())
		write(t, conn, masked(ws.OpText, true, options("whole", "a.invalid", "")))
		require.Equal(t, "whole", next(t, arrivals).msg.CallID().Value())
	}
	require.Zero(t, server.Stats().Malformed)
}

func TestWS_frames_against_the_protocol_close_with_a_code(t *testing.T) {
	server, arrivals := startLayer(t, Config{Limits: Limits{BodyBytes: 1000, HeaderBytes: 1000}})
	addr := listen(t, server, "ws", "127.0.0.1:0")
	for name, c := range map[string]struct {
		bytes string
		code  ws.StatusCode
	}{
		"unmasked":              {string(ws.MustCompileFrame(ws.NewTextFrame([]byte("x")))), ws.StatusProtocolError},
		"reserved opcode":       {masked(3, true, "x"), ws.StatusProtocolError},
		"continues nothing":     {masked(ws.OpContinuation, true, "x"), ws.StatusProtocolError},
		"begins twice":          {masked(ws.OpText, false, "x") + masked(ws.OpText, true, "x"), ws.StatusProtocolError},
		"control in fragments":  {masked(ws.OpPing, false, "x"), ws.StatusProtocolError},
		"control too long":      {masked(ws.OpPing, true, strings.Repeat("x", 126)), ws.StatusProtocolError},
		"reserved bits":         {"\xf1\x80\x00\x00\x00\x00", ws.StatusProtocolError},
		"length without end":    {"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", ws.StatusProtocolError},
		"length of 4 GiB":       {"\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", ws.StatusMessageTooBig},
		"too big":               {masked(ws.OpText, true, strings.Repeat("x", 2005)), ws.StatusMessageTooBig},
		"too big in fragments":  {masked(ws.OpText, false, strings.Repeat("x", 1500)) + masked(ws.OpContinuation, false, strings.Repeat("x", 505)), ws.StatusMessageTooBig},
		"a close":               {masked(ws.OpClose, true, "\x03\xe8bye"), ws.StatusNormalClosure},
		"a close without words": {masked(ws.OpClose, true, ""), ws.StatusNormalClosure},
		"a close of one byte":   {masked(ws.OpClose, true, "x"), ws.StatusProtocolError},
		"a close of no meaning": {masked(ws.OpClose, true, "\x03\xed"), ws.StatusProtocolError},
	} {
		conn, r := upgraded(t, addr)
		write(t, conn, c.bytes)
		answer, err := ws.ReadFrame(r)
		require.NoError(t, err, name)
		require.Equal(t, ws.OpClose, answer.Header.OpCode, name)
		code, _ := ws.ParseCloseFrameData(answer.Payload)
		require.Equal(t, c.code, code, name)
		_, err = r.ReadByte()
		require.Error(t, err, name)
		require.False(t, errors.Is(err, context.DeadlineExceeded), name)
	}
	require.Empty(t, arrivals)
}

func TestWS_frames_that_are_no_SIP_cost_only_themselves(t *testing.T) {
	server, arrivals := startLayer(t, Config{})
	conn, r := upgraded(t, listen(t, server, "ws", "127.0.0.1:0"))
	send := func(op ws.OpCode, payload string) { write(t, conn, string(wsFrame(op, []byte(payload), true))) }
	for _, garbage := range []string{"", "hello", "\x00\xff", "\r\n", "SIP/2.0 200 OK", strings.Repeat("x", 5000)} {
		send(ws.OpBinary, garbage)
	}
	send(ws.OpText, "\r\n\r\n") // RFC 7118 6: a keep-alive of RFC 5626
	answer, err := ws.ReadFrame(r)
	require.NoError(t, err)
	require.Equal(t, "\r\n", string(answer.Payload))

	two := options("one", "a.invalid", "") + options("two", "a.invalid", "")
	send(ws.OpText, two)
	answer, err = ws.ReadFrame(r)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer.Payload), "SIP/2.0 400 More Than One Message\r\n"), string(answer.Payload))

	send(ws.OpText, options("after", "a.invalid", ""))
	require.Equal(t, "after", next(t, arrivals).msg.CallID().Value())
	require.EqualValues(t, 5, server.Stats().Malformed)
	require.EqualValues(t, 1, server.Stats().KeepAlives)
}
