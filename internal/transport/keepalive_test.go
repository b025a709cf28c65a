package transport

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// linked runs body with two layers, of which client dials server over
// transport. The server's read loop stops at a message until resume is called.
func linked(t *testing.T, transport string, keepAlive time.Duration, limits Limits, body func(t *testing.T, client, server *Layer, flow *Flow, resume func())) {
	ca := testcert.New(t)
	config := ca.Server("192.0.2.2")
	synctest.Test(t, func(t *testing.T) {
		ours := ca.Client()
		ours.Time = func() time.Time { return time.Unix(1, 0) } // the bubble's clock begins in 2000
		network := dialogtest.NewNetwork()
		defer network.Close()
		ctx, resume := context.WithCancel(context.Background())
		server, _ := startLayer(t, Config{Network: network.Host("192.0.2.2"), Limits: limits, Trace: func(Event) { <-ctx.Done() }})
		addr := listenTLS(t, server, transport, "192.0.2.2:5060", config)
		client, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: limits, TLS: ours, KeepAlive: keepAlive})
		flow, err := client.Connect(context.Background(), Target{Transport: transport, Addr: addr})
		require.NoError(t, err)
		body(t, client, server, flow, resume)
		resume()
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		require.Zero(t, client.tasks.Running())
		require.Zero(t, server.tasks.Running())
	})
}

func TestKeepAlive_holds_idle_connections_open(t *testing.T) {
	for _, transport := range []string{"TCP", "TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			linked(t, transport, time.Minute, Limits{IdleTimeout: 2 * time.Minute, SilenceTimeout: -1}, func(t *testing.T, client, server *Layer, flow *Flow, resume func()) {
				resume()
				time.Sleep(time.Hour + time.Second)
				require.NoError(t, flow.Err())
				// After 80 to 100 % of the minute.
				pings := server.Stats().KeepAlives
				require.GreaterOrEqual(t, pings, uint64(60))
				require.LessOrEqual(t, pings, uint64(75))
				require.Zero(t, client.Stats().KeepAlives, "who was dialled only answers")
				require.Zero(t, client.Stats().MessagesOut)

				// Where there is traffic no keep-alive is needed.
				require.NoError(t, flow.Send([]byte(options("x", "192.0.2.1", ""))))
				synctest.Wait()
				pings = server.Stats().KeepAlives
				for range 60 {
					time.Sleep(30 * time.Second)
					require.NoError(t, flow.Send([]byte(options("x", "192.0.2.1", ""))))
				}
				require.Equal(t, pings, server.Stats().KeepAlives)
			})
		})
	}
}

func TestKeepAlive_without_an_answer_ends_the_connection(t *testing.T) {
	for _, transport := range []string{"TCP", "TLS", "WS", "WSS"} {
		t.Run(transport, func(t *testing.T) {
			linked(t, transport, time.Minute, Limits{}, func(t *testing.T, client, server *Layer, flow *Flow, resume func()) {
				lost := make(chan error, 1)
				flow.Watch(func(err error) { lost <- err })
				require.NoError(t, flow.Send([]byte(options("x", "192.0.2.1", "")))) // the server hangs
				start := time.Now()
				require.ErrorIs(t, <-lost, ErrNoPong)
				require.GreaterOrEqual(t, time.Since(start), 48*time.Second+pongTime)
				require.LessOrEqual(t, time.Since(start), time.Minute+pongTime)
				synctest.Wait()
				require.Zero(t, client.Stats().Connections)
			})
		})
	}
}

func TestKeepAlive_fails_when_no_pong_comes_in_ten_seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		client, arrivals := startLayer(t, Config{Network: network.Host("192.0.2.1"), KeepAlive: 100 * time.Second})
		ln, err := network.Host("192.0.2.2").Listen(context.Background(), "tcp", "192.0.2.2:5060")
		require.NoError(t, err)
		defer ln.Close()
		flow, err := client.Connect(context.Background(), Target{Transport: "TCP", Addr: netip.MustParseAddrPort("192.0.2.2:5060")})
		require.NoError(t, err)
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		lost := make(chan error, 1)
		flow.Watch(func(err error) { lost <- err })

		// Pongs in all shapes: alone, in two pieces, before a message.
		for _, pong := range [][]string{{"\r\n"}, {"\r", "\n"}, {"\r\n" + options("x", "192.0.2.2", "")}, {"\r\n"}} {
			start := time.Now()
			require.Equal(t, endBlock, readText(t, peer, 4))
			require.GreaterOrEqual(t, time.Since(start), 80*time.Second)
			require.LessOrEqual(t, time.Since(start), 100*time.Second)
			time.Sleep(9 * time.Second)
			for _, piece := range pong {
				write(t, peer, piece)
				synctest.Wait()
			}
		}
		require.Equal(t, "x", next(t, arrivals).msg.CallID().Value())
		require.NoError(t, flow.Err())

		// A ping of the peer's is still answered, and none of ours.
		write(t, peer, endBlock)
		require.Equal(t, crlf, readText(t, peer, 2))

		require.Equal(t, endBlock, readText(t, peer, 4))
		start := time.Now()
		write(t, peer, options("busy", "192.0.2.2", "")) // no pong
		require.ErrorIs(t, <-lost, ErrNoPong)
		require.Equal(t, pongTime, time.Since(start))
		require.EqualValues(t, 1, client.Stats().ConnectionsNoPong)
		rest, err := io.ReadAll(peer)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.NoError(t, client.Close())
	})
}

func TestKeepAlive_is_not_for_UDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		client, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), KeepAlive: time.Second})
		listen(t, client, "udp", "192.0.2.1:5060")
		peer, err := network.Host("192.0.2.2").ListenPacket(context.Background(), "udp", "192.0.2.2:5060")
		require.NoError(t, err)
		defer peer.Close()
		_, err = client.Connect(context.Background(), Target{Transport: "UDP", Addr: netip.MustParseAddrPort("192.0.2.2:5060")})
		require.NoError(t, err)
		require.NoError(t, peer.SetReadDeadline(time.Now().Add(time.Hour)))
		_, _, err = peer.ReadFrom(make([]byte, 10))
		require.Error(t, err)
		require.NoError(t, client.Close())
	})
}
