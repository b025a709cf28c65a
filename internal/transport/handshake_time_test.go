package transport

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// secured runs body, for each transport that has handshakes, with a layer on
// host 192.0.2.1 that listens on port 5061, another layer on host 192.0.2.3, and
// a bare host 192.0.2.2.
func secured(t *testing.T, limits Limits, body func(t *testing.T, w secureWire)) {
	ca := testcert.New(t)
	config := ca.Server("192.0.2.1", "192.0.2.2")
	for _, transport := range []string{"TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours := ca.Client()
				ours.Time = func() time.Time { return time.Unix(1, 0) } // the bubble's clock begins in 2000
				network := dialogtest.NewNetwork()
				defer network.Close()
				w := secureWire{transport: transport, peer: network.Host("192.0.2.2"), failure: ErrTLS}
				if transport == "WS" {
					w.failure = ErrWebSocket
				}
				w.layer, w.arrivals = startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: limits, TLS: ours})
				w.other, _ = startLayer(t, Config{Network: network.Host("192.0.2.3"), TLS: ours})
				listenTLS(t, w.layer, transport, "192.0.2.1:5061", config)
				body(t, w)
				require.NoError(t, w.other.Close())
				require.NoError(t, w.layer.Close())
				require.Zero(t, w.layer.tasks.Running())
				require.Zero(t, w.layer.Stats().Connections)
				require.Zero(t, w.layer.Stats().Handshakes)
			})
		})
	}
}

type secureWire struct {
	transport    string
	layer, other *Layer
	arrivals     <-chan arrival
	peer         *dialogtest.Host
	failure      error // of a handshake
}

// silent is a client that connects and says no more.
func (w secureWire) silent(t *testing.T) net.Conn {
	t.Helper()
	conn, err := w.peer.DialContext(context.Background(), "tcp", "192.0.2.1:5061")
	require.NoError(t, err)
	return conn
}

func (w secureWire) target(address string) Target {
	return Target{Transport: w.transport, Addr: netip.MustParseAddrPort(address)}
}

func TestHandshake_silent_clients_hold_up_nobody_and_are_closed(t *testing.T) {
	secured(t, Limits{}, func(t *testing.T, w secureWire) {
		silent := []net.Conn{w.silent(t), w.silent(t)}
		half := "\x16\x03\x01\x02" // of a TLS record
		if w.transport == "WS" {
			half = "GET / HTTP/1.1\r\nHost: x\r\n"
		}
		write(t, silent[1], half)
		synctest.Wait()
		require.Equal(t, 2, w.layer.Stats().Handshakes)

		start := time.Now()
		flow, err := w.other.Connect(context.Background(), w.target("192.0.2.1:5061"))
		require.NoError(t, err)
		require.NoError(t, flow.Send([]byte(options("x", "192.0.2.3", ""))))
		require.Equal(t, "x", next(t, w.arrivals).msg.CallID().Value())
		require.Zero(t, time.Since(start))

		require.Equal(t, 10*time.Second, closedAfter(t, silent[0]))
		require.Zero(t, closedAfter(t, silent[1]))
		synctest.Wait()
		require.EqualValues(t, 2, w.layer.Stats().HandshakesFailed)
		require.Equal(t, 1, w.layer.Stats().Connections)
	})
}

func TestHandshake_limit_is_exact(t *testing.T) {
	secured(t, Limits{Handshakes: 3, HandshakeTimeout: time.Minute}, func(t *testing.T, w secureWire) {
		var held []net.Conn
		for range 3 {
			held = append(held, w.silent(t))
		}
		for range 5 {
			require.Zero(t, closedAfter(t, w.silent(t)), "over the limit")
		}
		synctest.Wait()
		stats := w.layer.Stats()
		require.Equal(t, 3, stats.Handshakes)
		require.EqualValues(t, 5, stats.HandshakesRefused)
		require.Equal(t, 3, stats.Connections)

		// A place that is given back can be taken.
		require.NoError(t, held[0].Close())
		synctest.Wait()
		require.Equal(t, time.Minute, closedAfter(t, w.silent(t)))
		synctest.Wait()
		require.EqualValues(t, 5, w.layer.Stats().HandshakesRefused)
		for _, conn := range held[1:] {
			require.NoError(t, conn.Close())
		}
	})
}

func TestHandshake_ends_with_the_layer(t *testing.T) {
	secured(t, Limits{HandshakeTimeout: -1, DialTimeout: -1}, func(t *testing.T, w secureWire) {
		conn := w.silent(t)
		ln, err := w.peer.Listen(context.Background(), "tcp", "192.0.2.2:5061")
		require.NoError(t, err)
		defer ln.Close()
		failed := make(chan error, 1)
		go func() {
			_, err := w.layer.Connect(context.Background(), w.target("192.0.2.2:5061"))
			failed <- err
		}()
		time.Sleep(time.Hour)
		start := time.Now()
		require.NoError(t, w.layer.Close())
		require.Zero(t, time.Since(start))
		require.ErrorIs(t, <-failed, ErrClosed)
		require.NoError(t, conn.Close())
	})
}

func TestHandshake_with_a_silent_server_ends_in_time(t *testing.T) {
	secured(t, Limits{HandshakeTimeout: 3 * time.Second}, func(t *testing.T, w secureWire) {
		ln, err := w.peer.Listen(context.Background(), "tcp", "192.0.2.2:5061")
		require.NoError(t, err)
		defer ln.Close()
		start := time.Now()
		_, err = w.layer.Connect(context.Background(), w.target("192.0.2.2:5061"))
		require.ErrorIs(t, err, w.failure)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start))

		// The caller's context ends the waiting; the dial without a waiter ends too.
		time.Sleep(time.Minute) // what has failed is not tried again at once
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = w.layer.Connect(ctx, w.target("192.0.2.2:5061"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Zero(t, w.layer.Stats().Connections)
	})
}

// stuck is a flow to a layer that has stopped reading.
func stuck(t *testing.T, limits Limits, body func(t *testing.T, client *Layer, flow *Flow)) {
	for _, transport := range []string{"TCP", "TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			linked(t, transport, 0, limits, func(t *testing.T, client, _ *Layer, flow *Flow, _ func()) {
				require.NoError(t, flow.Send([]byte(options("x", "192.0.2.1", ""))))
				synctest.Wait()
				body(t, client, flow)
			})
		})
	}
}

func TestSlow_peer_is_closed_by_the_deadline_on_every_stream(t *testing.T) {
	stuck(t, Limits{}, func(t *testing.T, client *Layer, flow *Flow) {
		lost := make(chan error, 1)
		flow.Watch(func(err error) { lost <- err })
		start := time.Now()
		require.NoError(t, flow.Send(make([]byte, 2<<20)))
		require.ErrorIs(t, <-lost, ErrSlow)
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

func TestSlow_peer_is_closed_by_the_queue_on_every_stream(t *testing.T) {
	stuck(t, Limits{StreamQueue: 5}, func(t *testing.T, client *Layer, flow *Flow) {
		require.NoError(t, flow.Send(make([]byte, 2<<20))) // the writer takes it and waits
		synctest.Wait()
		start := time.Now()
		for range 5 {
			require.NoError(t, flow.Send([]byte("x")))
		}
		require.ErrorIs(t, flow.Send([]byte("x")), ErrSlow)
		synctest.Wait()
		require.Zero(t, time.Since(start), "nothing waits for the peer")
		require.Zero(t, client.Stats().Connections)
	})
}

func TestClose_waits_no_longer_than_a_second_on_every_stream(t *testing.T) {
	// The window is full; only TLS's or the WebSocket's own goodbye does not
	// fit; or the peer does not answer that.
	for _, size := range []int{2 << 20, 60 << 10, 0} {
		stuck(t, Limits{}, func(t *testing.T, client *Layer, flow *Flow) {
			for size > 0 && flow.stream.written.known() {
				flow.stream.written.since.Store(0)
				require.NoError(t, flow.Send(make([]byte, size)))
				synctest.Wait()
			}
			start := time.Now()
			require.NoError(t, client.Close())
			require.LessOrEqual(t, time.Since(start), flushTime)
		})
	}
}

func TestIdle_is_closed_on_every_stream(t *testing.T) {
	for _, transport := range []string{"TCP", "TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			linked(t, transport, 0, Limits{IdleTimeout: time.Minute, SilenceTimeout: -1}, func(t *testing.T, client, server *Layer, flow *Flow, _ func()) {
				lost := make(chan error, 1)
				flow.Watch(func(err error) { lost <- err })
				start := time.Now()
				require.Error(t, <-lost)
				require.Equal(t, time.Minute, time.Since(start))
				synctest.Wait()
				require.Zero(t, client.Stats().Connections)
				require.Zero(t, server.Stats().Connections)
			})
		})
	}
}
