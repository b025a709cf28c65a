//go:build go1.25

package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// secured runs body with a layer on host 192.0.2.1 that listens on port 5061,
// and a bare host 192.0.2.2.
func secured(t *testing.T, limits Limits, body func(t *testing.T, l *Layer, arrivals <-chan arrival, ca *authority, peer *dialogtest.Host)) {
	ca := newAuthority(t)
	config := ca.server("192.0.2.1", "192.0.2.2")
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock begins in 2000.
		ours := ca.client()
		ours.Time = func() time.Time { return time.Unix(1, 0) }
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, arrivals := startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: limits, TLS: ours})
		listenTLS(t, l, "tls", "192.0.2.1:5061", config)
		body(t, l, arrivals, ca, network.Host("192.0.2.2"))
		require.NoError(t, l.Close())
		require.Zero(t, l.tasks.Running())
		require.Zero(t, l.Stats().Connections)
		require.Zero(t, l.Stats().Handshakes)
	})
}

func dialSilent(t *testing.T, peer *dialogtest.Host, address string) net.Conn {
	t.Helper()
	conn, err := peer.DialContext(context.Background(), "tcp", address)
	require.NoError(t, err)
	return conn
}

func TestHandshake_silent_clients_hold_up_nobody_and_are_closed(t *testing.T) {
	secured(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, ca *authority, peer *dialogtest.Host) {
		silent := []net.Conn{dialSilent(t, peer, "192.0.2.1:5061"), dialSilent(t, peer, "192.0.2.1:5061")}
		write(t, silent[1], "\x16\x03\x01\x02") // half a record
		synctest.Wait()
		require.Equal(t, 2, l.Stats().Handshakes)

		start := time.Now()
		config := ca.client()
		config.ServerName, config.Time = "192.0.2.1", func() time.Time { return time.Unix(1, 0) }
		conn := tls.Client(dialSilent(t, peer, "192.0.2.1:5061"), config)
		defer conn.NetConn().Close()
		write(t, conn, options("x", "192.0.2.2", ""))
		require.Equal(t, "x", next(t, arrivals).msg.CallID().Value())
		require.Zero(t, time.Since(start))

		require.Equal(t, 10*time.Second, closedAfter(t, silent[0]))
		require.Zero(t, closedAfter(t, silent[1]))
		require.EqualValues(t, 2, l.Stats().HandshakesFailed)
		require.Equal(t, 1, l.Stats().Connections)
	})
}

func TestHandshake_limit_is_exact(t *testing.T) {
	secured(t, Limits{Handshakes: 3, HandshakeTimeout: time.Minute}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *authority, peer *dialogtest.Host) {
		var held []net.Conn
		for range 3 {
			held = append(held, dialSilent(t, peer, "192.0.2.1:5061"))
		}
		for range 5 {
			require.Zero(t, closedAfter(t, dialSilent(t, peer, "192.0.2.1:5061")), "over the limit")
		}
		require.Equal(t, 3, l.Stats().Handshakes)
		require.EqualValues(t, 5, l.Stats().HandshakesRefused)
		require.Equal(t, 3, l.Stats().Connections)

		// A place that is given back can be taken.
		require.NoError(t, held[0].Close())
		synctest.Wait()
		again := dialSilent(t, peer, "192.0.2.1:5061")
		require.Equal(t, time.Minute, closedAfter(t, again))
		require.EqualValues(t, 5, l.Stats().HandshakesRefused)
		for _, conn := range held[1:] {
			require.NoError(t, conn.Close())
		}
	})
}

func TestHandshake_ends_with_the_layer(t *testing.T) {
	secured(t, Limits{HandshakeTimeout: -1, DialTimeout: -1}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *authority, peer *dialogtest.Host) {
		conn := dialSilent(t, peer, "192.0.2.1:5061")
		ln, err := peer.Listen(context.Background(), "tcp", "192.0.2.2:5061")
		require.NoError(t, err)
		defer ln.Close()
		failed := make(chan error, 1)
		go func() {
			_, err := l.Connect(context.Background(), Target{Transport: "TLS", Addr: netip.MustParseAddrPort("192.0.2.2:5061")})
			failed <- err
		}()
		time.Sleep(time.Hour)
		start := time.Now()
		require.NoError(t, l.Close())
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, <-failed, ErrClosed)
		require.NoError(t, conn.Close())
	})
}

func TestHandshake_with_a_silent_server_ends_in_time(t *testing.T) {
	secured(t, Limits{HandshakeTimeout: 3 * time.Second}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *authority, peer *dialogtest.Host) {
		ln, err := peer.Listen(context.Background(), "tcp", "192.0.2.2:5061")
		require.NoError(t, err)
		defer ln.Close()
		target := Target{Transport: "TLS", Addr: netip.MustParseAddrPort("192.0.2.2:5061")}
		start := time.Now()
		_, err = l.Connect(context.Background(), target)
		require.ErrorIs(t, err, ErrTLS)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))

		// The caller's context ends the waiting; the dial nobody waits for ends too.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = l.Connect(ctx, target)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Zero(t, l.Stats().Connections)
	})
}

func TestTLS_close_waits_no_longer_than_a_second_for_a_slow_peer(t *testing.T) {
	secured(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, ca *authority, peer *dialogtest.Host) {
		config := ca.client()
		config.ServerName, config.Time = "192.0.2.1", func() time.Time { return time.Unix(1, 0) }
		raw := dialSilent(t, peer, "192.0.2.1:5061")
		defer raw.Close()
		conn := tls.Client(raw, config)
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		// The window is just full: what waits is TLS's own goodbye.
		for flow.Err() == nil {
			require.NoError(t, flow.Send(make([]byte, 8<<10)))
			synctest.Wait()
			if len(flow.stream.out) > 0 {
				break
			}
		}
		start := time.Now()
		require.NoError(t, l.Close())
		require.LessOrEqual(t, time.Since(start), flushTime)
	})
}
