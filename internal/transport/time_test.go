package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// bubble runs body with a layer on host 192.0.2.1, listening on port 5060, and
// a bare host 192.0.2.2.
func bubble(t *testing.T, limits Limits, body func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host)) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, arrivals := startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: limits})
		listen(t, l, "tcp", "192.0.2.1:5060")
		listen(t, l, "udp", "192.0.2.1:5060")
		body(t, l, arrivals, network.Host("192.0.2.2"))
		require.NoError(t, l.Close())
		require.Zero(t, l.tasks.Running())
	})
}

func dialMemory(t *testing.T, peer *dialogtest.Host) net.Conn {
	t.Helper()
	conn, err := peer.DialContext(context.Background(), "tcp", "192.0.2.1:5060")
	require.NoError(t, err)
	return conn
}

// closedAfter reads until the layer closes the connection, and says when.
func closedAfter(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	_, err := io.Copy(io.Discard, conn)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	return time.Since(start)
}

func TestStream_half_a_message_and_silence_is_closed(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, _ <-chan arrival, peer *dialogtest.Host) {
		msg := options("x", "192.0.2.2", "body")
		for _, half := range []string{"O", "\r\nO", msg[:40], msg[:len(msg)-1], msg + "X"} {
			conn := dialMemory(t, peer)
			write(t, conn, half)
			require.Equal(t, 30*time.Second, closedAfter(t, conn), half)
		}
		require.EqualValues(t, 5, l.Stats().ConnectionsPartial)
	})
}

func TestStream_single_bytes_do_not_extend_a_message(t *testing.T) {
	bubble(t, Limits{PartialTimeout: 10 * time.Second}, func(t *testing.T, l *Layer, _ <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		start := time.Now()
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, time.Since(start), 11*time.Second)
		require.EqualValues(t, 1, l.Stats().ConnectionsPartial)
	})
}

func TestStream_idle_is_closed_and_either_direction_keeps_it(t *testing.T) {
	bubble(t, Limits{IdleTimeout: time.Minute, SilenceTimeout: -1}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		time.Sleep(50 * time.Second)
		write(t, conn, "\r\n\r\n") // what we read counts
		time.Sleep(50 * time.Second)
		write(t, conn, options("x", "192.0.2.2", ""))
		a := next(t, arrivals)
		lost := make(chan error, 1)
		a.flow.Watch(func(err error) { lost <- err })
		time.Sleep(50 * time.Second)
		require.NoError(t, a.flow.Send(ok("x"))) // and what we write
		require.Equal(t, time.Minute, closedAfter(t, conn))
		require.ErrorIs(t, <-lost, ErrIdle)
		require.EqualValues(t, 1, l.Stats().ConnectionsIdle)
		require.Zero(t, l.Stats().Connections)
	})
}

func TestStream_that_is_held_is_not_closed_as_idle(t *testing.T) {
	bubble(t, Limits{IdleTimeout: time.Minute}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		flow.Hold()
		flow.Hold()
		time.Sleep(time.Hour)
		flow.Release()
		time.Sleep(time.Hour + time.Second)
		require.NoError(t, flow.Err())
		require.True(t, flow.Held())
		flow.Release()
		require.False(t, flow.Held())
		require.Equal(t, 59*time.Second, closedAfter(t, conn))
		<-flow.Done()
		require.ErrorIs(t, flow.Err(), ErrIdle)
	})
}

func TestStream_no_idle_bound_when_negative(t *testing.T) {
	bubble(t, Limits{IdleTimeout: -1, SilenceTimeout: -1}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		time.Sleep(1000 * time.Hour)
		write(t, conn, options("x", "192.0.2.2", ""))
		next(t, arrivals)
		require.NoError(t, conn.Close())
	})
}

func TestStream_peer_that_does_not_read_is_closed_by_the_queue(t *testing.T) {
	bubble(t, Limits{StreamQueue: 10}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		lost := make(chan error, 1)
		flow.Watch(func(err error) { lost <- err })
		big := []byte(strings.Repeat("x", 1<<20))
		require.NoError(t, flow.Send(big)) // the writer takes it and waits
		synctest.Wait()
		start := time.Now()
		for range 10 {
			require.NoError(t, flow.Send(big))
		}
		require.ErrorIs(t, flow.Send(big), ErrSlow)
		require.ErrorIs(t, <-lost, ErrSlow)
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, flow.Send(big), ErrClosed)
		require.EqualValues(t, 1, l.Stats().ConnectionsSlow)
	})
}

func TestStream_peer_that_does_not_read_is_closed_by_the_deadline(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		lost := make(chan error, 1)
		flow.Watch(func(err error) { lost <- err })
		start := time.Now()
		require.NoError(t, flow.Send([]byte(strings.Repeat("x", 1<<20))))
		require.ErrorIs(t, <-lost, ErrSlow)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.EqualValues(t, 1, l.Stats().ConnectionsSlow)
	})
}

func TestStream_two_ends_that_only_answer_do_not_stop_each_other(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, _ <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		// More pings than the queue holds, and the pongs are not read: the
		// read loop must not wait for us, but end the connection.
		for range 1000 {
			if _, err := io.WriteString(conn, strings.Repeat("\r\n\r\n", 100)); err != nil {
				break
			}
		}
		_, err := io.Copy(io.Discard, conn)
		require.NoError(t, err)
	})
}

func TestClose_waits_no_longer_than_a_second_for_a_slow_peer(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		require.NoError(t, flow.Send([]byte(strings.Repeat("x", 1<<20))))
		synctest.Wait()
		start := time.Now()
		require.NoError(t, l.Close())
		require.Equal(t, flushTime, time.Since(start))
	})
}

func TestConnect_gives_up_after_the_dial_timeout(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *dialogtest.Host) {
		start := time.Now()
		nobody := Target{Transport: "TCP", Addr: netip.MustParseAddrPort("198.51.100.1:5060")}
		_, err := l.Connect(context.Background(), nobody)
		require.ErrorIs(t, err, errDialTimeout)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller's has not ended")
		require.Equal(t, 10*time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		nobody.Addr = netip.MustParseAddrPort("198.51.100.2:5060")
		_, err = l.Connect(ctx, nobody)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 11*time.Second, time.Since(start))
		synctest.Wait()
		require.Zero(t, l.Stats().Connections, "the dial nobody waits for has ended")
	})
}

func TestConnect_ends_when_the_layer_closes(t *testing.T) {
	bubble(t, Limits{DialTimeout: -1}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *dialogtest.Host) {
		failed := make(chan error, 1)
		go func() {
			_, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: netip.MustParseAddrPort("198.51.100.1:5060")})
			failed <- err
		}()
		synctest.Wait()
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-failed, ErrClosed)
	})
}

func TestLocal_is_the_address_by_which_the_peer_is_reached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		host := wildcard{network.Host("192.0.2.1")}
		l, _ := startLayer(t, Config{Network: host})
		listen(t, l, "udp", "0.0.0.0:5060")
		flow, err := l.Connect(context.Background(), Target{Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.2:5070")})
		require.NoError(t, err)
		require.Equal(t, Local{Transport: "UDP", Host: "192.0.2.1", Port: 5060}, flow.Local())

		l.cfg.PublicHost, l.cfg.PublicPort = "sip.example.com", 5080
		require.Equal(t, Local{Transport: "UDP", Host: "sip.example.com", Port: 5080}, flow.Local())
		require.NoError(t, l.Close())
	})
}

// wildcard is a host whose sockets say that they are bound to all addresses.
type wildcard struct{ *dialogtest.Host }

type wildcardConn struct{ net.PacketConn }

func (wildcardConn) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4zero, Port: 5060} }

func (w wildcard) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	conn, err := w.Host.ListenPacket(ctx, network, address)
	return wildcardConn{conn}, err
}

func TestLocal_falls_back_to_loopback_and_remembers_few_peers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startLayer(t, Config{Network: broken{}})
		require.Equal(t, "127.0.0.1", l.source(netip.MustParseAddrPort("192.0.2.2:5060"), routeTime).String())
		require.Equal(t, "::1", l.source(netip.MustParseAddrPort("[2001:db8::1]:5060"), routeTime).String())
		ip := netip.MustParseAddr("10.0.0.0")
		for range 3 * routeEntries {
			ip = ip.Next()
			l.source(netip.AddrPortFrom(ip, 5060), routeTime)
		}
		require.Len(t, l.routes.entries, routeEntries)
		_, known := l.routes.get(ip)
		require.True(t, known)
		require.NoError(t, l.Close())
	})
}

// An address that is unknown just after the network has changed is looked up again soon:
// otherwise a Via would name 127.0.0.1 for a minute.
func TestLocal_asks_again_soon_for_a_route_that_was_not_there(t *testing.T) {
	onAllAddresses(t, func(t *testing.T, l *Layer, host *asks, flow *Flow) {
		for _, known := range []string{"127.0.0.1", "192.0.2.1"} {
			host.away.Store(true)
			time.Sleep(routeTime + 1)
			require.Equal(t, known, flow.Local().Host)
			host.away.Store(false)
			asked := host.udp.Load()
			time.Sleep(routeFresh)
			require.Equal(t, known, flow.Local().Host)
			require.Equal(t, asked, host.udp.Load(), "asked once a second")
			time.Sleep(time.Nanosecond)
			require.Equal(t, "192.0.2.1", flow.Local().Host)
			require.Equal(t, asked+1, host.udp.Load())
		}
	})
}

// broken is a network whose sockets open but only fail, as when a process has
// no file descriptors left, until they are closed.
type broken struct{}

var errBroken = errors.New("too many open files")

func (broken) DialContext(context.Context, string, string) (net.Conn, error) { return nil, errBroken }

func (broken) Listen(context.Context, string, string) (net.Listener, error) {
	return &brokenSocket{done: make(chan struct{})}, nil
}

func (broken) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return &brokenSocket{done: make(chan struct{})}, nil
}

type brokenSocket struct {
	net.PacketConn // nil: the methods used are below
	done           chan struct{}
}

func (s *brokenSocket) fail() error {
	select {
	case <-s.done:
		return net.ErrClosed
	default:
		return &net.OpError{Op: "read", Err: syscall.EMFILE}
	}
}

func (s *brokenSocket) Accept() (net.Conn, error)              { return nil, s.fail() }
func (s *brokenSocket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, s.fail() }
func (s *brokenSocket) Addr() net.Addr                         { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5060} }
func (s *brokenSocket) LocalAddr() net.Addr                    { return s.Addr() }
func (s *brokenSocket) WriteTo([]byte, net.Addr) (int, error)  { return 0, s.fail() }
func (s *brokenSocket) Close() error                           { close(s.done); return nil }

func TestSocket_errors_are_survived_with_pauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startLayer(t, Config{Network: broken{}})
		listen(t, l, "udp", "192.0.2.1:5060")
		listen(t, l, "tcp", "192.0.2.1:5060")
		time.Sleep(time.Minute)
		stats := l.Stats()
		require.InDelta(t, 68, stats.ReadErrors, 4, "one a second, after the pause has doubled to that")
		require.InDelta(t, 68, stats.AcceptErrors, 4)
		flow, err := l.Connect(context.Background(), Target{Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.2:5060")})
		require.NoError(t, err)
		require.ErrorIs(t, flow.Send(ok("x")), syscall.EMFILE)
		require.EqualValues(t, 1, l.Stats().WriteErrors)
		require.NoError(t, l.Close())
		require.ErrorIs(t, flow.Send(ok("x")), ErrClosed)
	})
}

func TestStream_reset_is_told(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		write(t, conn, options("x", "192.0.2.2", ""))
		lost := make(chan error, 1)
		next(t, arrivals).flow.Watch(func(err error) { lost <- err })
		peer.BreakStreams()
		require.Error(t, <-lost)
		require.Zero(t, l.Stats().Connections)
		_ = conn.Close()
	})
}

func TestUDP_in_memory_takes_what_arrives_and_answers(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn, err := peer.DialContext(context.Background(), "udp", "192.0.2.1:5060")
		require.NoError(t, err)
		defer conn.Close()
		write(t, conn, options("x", "192.0.2.2", ""))
		require.NoError(t, next(t, arrivals).flow.Send(ok("x")))
		buf := make([]byte, 2000)
		n, err := conn.Read(buf)
		require.NoError(t, err)
		require.Equal(t, string(ok("x")), string(buf[:n]))
	})
}
