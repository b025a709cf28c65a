package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func readText(t *testing.T, conn net.Conn, n int) string {
	t.Helper()
	buf := make([]byte, n)
	_, err := io.ReadFull(conn, buf)
	require.NoError(t, err)
	return string(buf)
}

func write(t *testing.T, conn net.Conn, data string) {
	t.Helper()
	_, err := io.WriteString(conn, data)
	require.NoError(t, err)
}

func TestTCP_each_answer_leaves_by_its_own_connection(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "tcp", "127.0.0.1:0")
	first, second := dialTCP(t, addr), dialTCP(t, addr)
	// Both name the same sent-by, as two connections of one peer do.
	write(t, first, options("one", "127.0.0.1:5060", ""))
	one := next(t, arrivals)
	write(t, second, options("two", "127.0.0.1:5060", ""))
	two := next(t, arrivals)
	require.False(t, one.flow.Same(two.flow))
	require.True(t, one.flow.Reliable())
	require.Equal(t, "TCP", one.msg.Transport())

	require.NoError(t, l.Reply(two.flow, two.m).Send(ok("two")))
	require.NoError(t, l.Reply(one.flow, one.m).Send(ok("one")))
	require.Equal(t, string(ok("one")), readText(t, first, len(ok("one"))))
	require.Equal(t, string(ok("two")), readText(t, second, len(ok("two"))))
}

func TestTCP_messages_of_one_connection_keep_their_order(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "tcp", "127.0.0.1:0")
	conn := dialTCP(t, addr)
	var all strings.Builder
	for i := range 200 {
		all.WriteString(options(strings.Repeat("x", i+1), "127.0.0.1", strings.Repeat("b", i)))
	}
	write(t, conn, all.String())
	for i := range 200 {
		a := next(t, arrivals)
		require.Len(t, a.msg.CallID().Value(), i+1)
		require.Len(t, a.msg.Body(), i)
	}
}

func TestTCP_ping_gets_a_pong(t *testing.T) {
	l, _ := startLayer(t, Config{})
	conn := dialTCP(t, listen(t, l, "tcp", "127.0.0.1:0"))
	write(t, conn, "\r\n\r\n")
	require.Equal(t, "\r\n", readText(t, conn, 2))
	require.EqualValues(t, 1, l.Stats().KeepAlives)
	require.EqualValues(t, 0, l.Stats().MessagesOut)
}

func TestTCP_lost_framing_is_answered_and_closed(t *testing.T) {
	l, _ := startLayer(t, Config{})
	addr := listen(t, l, "tcp", "127.0.0.1:0")
	conn := dialTCP(t, addr)
	write(t, conn, text("", "OPTIONS sip:b@example.com SIP/2.0", "Via: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "Call-ID: nolength"))
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer), "SIP/2.0 400 Missing Content-Length\r\n"), string(answer))

	conn = dialTCP(t, addr)
	write(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err = io.ReadAll(conn)
	require.NoError(t, err)
	require.Empty(t, answer)

	conn = dialTCP(t, addr)
	// The layer may close, with bytes unread, before all is written.
	_, _ = io.WriteString(conn, strings.Repeat("x", 64<<10))
	answer, _ = io.ReadAll(conn)
	require.Empty(t, answer)
	require.EqualValues(t, 3, l.Stats().ConnectionsUnframed)
}

func TestTCP_malformed_request_with_known_end_costs_only_itself(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	conn := dialTCP(t, listen(t, l, "tcp", "127.0.0.1:0"))
	write(t, conn, text("abc", "OPTIONS sip:b@example.com SIP/2.0", "Via: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK1", "CSeq: x", "l: 3")+options("after", "127.0.0.1", ""))
	require.Equal(t, "after", next(t, arrivals).msg.CallID().Value())
	status, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "SIP/2.0 400 Malformed CSeq\r\n", status)
}

func TestTCP_peer_that_half_closes_still_gets_its_answers(t *testing.T) {
	l, _ := startLayer(t, Config{})
	conn := dialTCP(t, listen(t, l, "tcp", "127.0.0.1:0"))
	write(t, conn, "\r\n\r\n")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "\r\n", string(answer))
}

func TestConnect_uses_live_connections_before_it_dials(t *testing.T) {
	server, arrivals := startLayer(t, Config{})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	client, answers := startLayer(t, Config{})
	port := listen(t, client, "tcp", "127.0.0.1:0").Port()

	target := Target{Transport: "TCP", Addr: addr}
	flow, err := client.Connect(context.Background(), target)
	require.NoError(t, err)
	again, err := client.Connect(context.Background(), target)
	require.NoError(t, err)
	require.True(t, flow.Same(again))
	// We dialled from an ephemeral port; the peer reaches us on our listener.
	require.Equal(t, Local{Transport: "TCP", Host: "127.0.0.1", Port: int(port)}, flow.Local())
	require.NotEqual(t, port, flow.LocalAddr().Port())

	require.NoError(t, flow.Send([]byte(options("there", "127.0.0.1", ""))))
	a := next(t, arrivals)
	require.Equal(t, Local{Transport: "TCP", Host: "127.0.0.1", Port: int(addr.Port())}, a.flow.Local())
	// The server's side of it is a connection to that address as well.
	back, err := server.Connect(context.Background(), Target{Transport: "TCP", Addr: a.flow.RemoteAddr()})
	require.NoError(t, err)
	require.True(t, back.Same(a.flow))
	require.NoError(t, back.Send([]byte(options("back", "127.0.0.1", ""))))
	require.Equal(t, "back", next(t, answers).msg.CallID().Value())
	require.Equal(t, 1, server.Stats().Connections)
	require.Equal(t, 1, client.Stats().Connections)
}

func TestConnect_without_a_listener_names_the_connection_itself(t *testing.T) {
	server, _ := startLayer(t, Config{})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	client, _ := startLayer(t, Config{})
	flow, err := client.Connect(context.Background(), Target{Transport: "tcp", Addr: addr})
	require.NoError(t, err)
	require.Equal(t, Local{Transport: "TCP", Host: "127.0.0.1", Port: int(flow.LocalAddr().Port())}, flow.Local())
}

// gatedNetwork holds dials until the gate opens, and counts them.
type gatedNetwork struct {
	osNetwork
	gate chan struct{}

	mu    sync.Mutex // guards the field below
	dials int
}

func (n *gatedNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	n.mu.Unlock()
	select {
	case <-n.gate:
		return n.osNetwork.DialContext(ctx, network, address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestConnect_shares_one_dial(t *testing.T) {
	server, _ := startLayer(t, Config{})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	gate := &gatedNetwork{gate: make(chan struct{})}
	client, _ := startLayer(t, Config{Network: gate})
	target := Target{Transport: "TCP", Addr: addr}

	type result struct {
		flow *Flow
		err  error
	}
	results := make(chan result, 20)
	for range cap(results) {
		go func() {
			flow, err := client.Connect(context.Background(), target)
			results <- result{flow, err}
		}()
	}
	// One caller gives up; the others' dial goes on.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := client.Connect(ctx, target)
	require.ErrorIs(t, err, context.Canceled)
	close(gate.gate)
	var first *Flow
	for range cap(results) {
		r := <-results
		require.NoError(t, r.err)
		if first == nil {
			first = r.flow
		}
		require.True(t, first.Same(r.flow))
	}
	require.Equal(t, 1, gate.dials)
	require.Equal(t, 1, client.Stats().Connections)
}

func TestConnect_that_nobody_waits_for_is_cancelled(t *testing.T) {
	gate := &gatedNetwork{gate: make(chan struct{})}
	client, _ := startLayer(t, Config{Network: gate, Limits: Limits{Connections: 1}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := client.Connect(ctx, Target{Transport: "TCP", Addr: netip.MustParseAddrPort("127.0.0.1:9")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, client.Close())
	require.Zero(t, client.Stats().Connections)
	require.Zero(t, client.tasks.Running())
}

func TestConnect_reports_a_refused_dial(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := addrPort(ln.Addr())
	require.NoError(t, ln.Close())
	client, _ := startLayer(t, Config{})
	_, err = client.Connect(context.Background(), Target{Transport: "TCP", Addr: addr})
	require.ErrorContains(t, err, "refused")
	require.Zero(t, client.Stats().Connections)
}

func TestConnections_are_limited_exactly(t *testing.T) {
	server, arrivals := startLayer(t, Config{Limits: Limits{Connections: 2}})
	addr := listen(t, server, "tcp", "127.0.0.1:0")
	kept := []net.Conn{dialTCP(t, addr), dialTCP(t, addr)}
	for i, conn := range kept {
		write(t, conn, options(string(rune('a'+i)), "127.0.0.1", ""))
		next(t, arrivals)
	}
	over := dialTCP(t, addr)
	_, err := over.Read(make([]byte, 1))
	require.Error(t, err)
	require.False(t, errors.Is(err, context.DeadlineExceeded))
	require.EqualValues(t, 1, server.Stats().ConnectionsRefused)
	require.Equal(t, 2, server.Stats().Connections)

	// A place that is given back can be taken.
	lost := make(chan error, 1)
	flow, err := server.Connect(context.Background(), Target{Transport: "TCP", Addr: addrPort(kept[0].LocalAddr())})
	require.NoError(t, err)
	flow.Watch(func(err error) { lost <- err })
	require.NoError(t, kept[0].Close())
	require.ErrorIs(t, <-lost, io.EOF)
	write(t, dialTCP(t, addr), options("c", "127.0.0.1", ""))
	require.Equal(t, "c", next(t, arrivals).msg.CallID().Value())
}

func TestWatch_tells_of_the_loss_once_before_and_after(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	conn := dialTCP(t, listen(t, l, "tcp", "127.0.0.1:0"))
	write(t, conn, options("x", "127.0.0.1:5090", ""))
	a := next(t, arrivals)
	lost := make(chan string, 8)
	a.flow.Watch(func(error) { panic("a watcher may panic") })
	a.flow.Watch(func(err error) { lost <- "first" })
	cancel := a.flow.Watch(func(err error) { lost <- "cancelled" })
	a.flow.Watch(func(err error) { lost <- "second" })
	cancel()
	cancel()
	require.NoError(t, conn.Close())
	require.Equal(t, "first", <-lost)
	require.Equal(t, "second", <-lost)
	a.flow.Watch(func(err error) { lost <- "late" })
	require.Equal(t, "late", <-lost)
	require.ErrorIs(t, a.flow.Err(), io.EOF)
	require.ErrorIs(t, a.flow.Send(ok("x")), ErrClosed)
	require.EqualValues(t, 1, l.Stats().Panics)

	// RFC 3261 18.2.2: the answer goes by a new connection to the sent-by port.
	target, found := l.ReplyTarget(a.flow, a.m)
	require.True(t, found)
	require.Equal(t, Target{Transport: "TCP", Addr: netip.MustParseAddrPort("127.0.0.1:5090")}, target)
	require.NoError(t, l.Close())
	require.Empty(t, lost)
}

func TestClose_ends_everything_and_writes_what_is_queued(t *testing.T) {
	l, arrivals := startLayer(t, Config{})
	addr := listen(t, l, "tcp", "127.0.0.1:0")
	udp := listen(t, l, "udp", "127.0.0.1:0")
	conn := dialTCP(t, addr)
	write(t, conn, options("x", "127.0.0.1", ""))
	a := next(t, arrivals)
	lost := make(chan error, 1)
	a.flow.Watch(func(err error) { lost <- err })
	for range 50 {
		require.NoError(t, a.flow.Send(ok("x")))
	}
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.Zero(t, l.tasks.Running())
	require.ErrorIs(t, <-lost, ErrClosed)
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat(string(ok("x")), 50), string(got))

	require.ErrorIs(t, a.flow.Send(ok("x")), ErrClosed)
	_, err = l.Listen(context.Background(), ListenConfig{Transport: "tcp", Address: "127.0.0.1:0"})
	require.ErrorIs(t, err, ErrClosed)
	_, err = l.Listen(context.Background(), ListenConfig{Transport: "udp", Address: "127.0.0.1:0"})
	require.ErrorIs(t, err, ErrClosed)
	for _, target := range []Target{{Transport: "UDP", Addr: udp}, {Transport: "TCP", Addr: addr}} {
		_, err = l.Connect(context.Background(), target)
		require.ErrorIs(t, err, ErrClosed)
	}
	require.Zero(t, l.Stats().Connections)
}

func TestClose_while_everything_is_in_use(t *testing.T) {
	server := New(Config{})
	t.Cleanup(func() { _ = server.Close() })
	tcp, udp := listen(t, server, "tcp", "127.0.0.1:0"), listen(t, server, "udp", "127.0.0.1:0")
	client, _ := startLayer(t, Config{})
	listen(t, client, "udp", "127.0.0.1:0")
	var users sync.WaitGroup
	for i := range 8 {
		users.Add(1)
		go func() {
			defer users.Done()
			target := Target{Transport: "TCP", Addr: tcp}
			if i%2 == 0 {
				target = Target{Transport: "UDP", Addr: udp}
			}
			for {
				flow, err := client.Connect(context.Background(), target)
				if err != nil {
					return
				}
				cancel := flow.Watch(func(error) {})
				_ = flow.Send([]byte(options("x", "127.0.0.1", "")))
				_ = flow.Local()
				cancel()
			}
		}()
	}
	require.Eventually(t, func() bool { return server.Stats().MessagesIn > 100 }, 10*time.Second, time.Millisecond)
	require.NoError(t, client.Close())
	users.Wait()
	require.Zero(t, client.tasks.Running())
	require.Zero(t, client.Stats().Connections)
}
