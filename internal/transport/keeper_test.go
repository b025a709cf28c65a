package transport

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// runs reports whether the timer does, holds how many flows are held.
func (k *keeper) runs() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.timer != nil
}

func (k *keeper) holds() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.held)
}

const every = 25 * time.Second

// keeping runs body with a layer that has a flow to a bare peer, and a channel of all
// that the peer gets.
func keeping(t *testing.T, transport string, keepAlive time.Duration, body func(t *testing.T, l *Layer, flow *Flow, peer net.Conn, got <-chan string)) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), FlowKeepAlive: keepAlive})
		listen(t, l, "udp", "192.0.2.1:5060")
		ln, err := network.Host("192.0.2.2").Listen(context.Background(), "tcp", "192.0.2.2:5060")
		require.NoError(t, err)
		packets, err := network.Host("192.0.2.2").ListenPacket(context.Background(), "udp", "192.0.2.2:5060")
		require.NoError(t, err)
		flow, err := l.Connect(context.Background(), Target{Transport: transport, Addr: farTCP.Addr})
		require.NoError(t, err)
		got := make(chan string, 1000)
		var peer net.Conn
		read := func(b []byte) (int, error) { n, _, err := packets.ReadFrom(b); return n, err }
		if flow.Reliable() {
			peer, err = ln.Accept()
			require.NoError(t, err)
			read = peer.Read
		}
		go func() {
			for b := make([]byte, 2000); ; {
				n, err := read(b)
				if err != nil {
					return
				}
				got <- string(b[:n])
			}
		}()
		body(t, l, flow, peer, got)
		require.NoError(t, l.Close())
		require.Zero(t, l.tasks.Running())
		require.False(t, l.keeper.runs())
	})
}

// inAnHour returns what the peer gets in an hour.
func inAnHour(got <-chan string) (list []string) {
	for end := time.After(time.Hour); ; {
		select {
		case text := <-got:
			list = append(list, text)
		case <-end:
			return list
		}
	}
}

// FN12: a flow over UDP that is needed is kept open, and no other.
func TestHold_keeps_a_flow_over_UDP_open(t *testing.T) {
	keeping(t, "UDP", every, func(t *testing.T, l *Layer, flow *Flow, _ net.Conn, got <-chan string) {
		require.Empty(t, inAnHour(got))
		flow.Hold()
		(&Flow{layer: l, socket: flow.socket, remote: flow.remote}).Hold() // the same
		for range 2 {
			begun := time.Now()
			require.Equal(t, endBlock, <-got)
			require.GreaterOrEqual(t, time.Since(begun), every*4/5)
			require.LessOrEqual(t, time.Since(begun), every)
		}
		list := inAnHour(got)
		require.GreaterOrEqual(t, len(list), 3600/25)
		require.LessOrEqual(t, len(list), 3600/20)
		require.Zero(t, l.Stats().MessagesOut)
		flow.Release()
		require.NotEmpty(t, inAnHour(got))
		flow.Release()
		require.False(t, l.keeper.runs())
		require.Empty(t, inAnHour(got))
		require.Zero(t, l.keeper.holds())
	})
}

func TestHold_sends_nothing_where_that_is_switched_off(t *testing.T) {
	for _, transport := range []string{"UDP", "TCP"} {
		keeping(t, transport, 0, func(t *testing.T, l *Layer, flow *Flow, _ net.Conn, got <-chan string) {
			flow.Hold()
			require.Empty(t, inAnHour(got))
			require.False(t, l.keeper.runs())
		})
	}
}

// A registration lasts for a time, and longer when it is renewed.
func TestHoldFor_ends_by_itself(t *testing.T) {
	keeping(t, "UDP", every, func(t *testing.T, l *Layer, flow *Flow, _ net.Conn, got <-chan string) {
		flow.HoldFor(time.Minute)
		flow.HoldFor(10 * time.Minute)
		flow.HoldFor(time.Second)
		list := inAnHour(got)
		require.GreaterOrEqual(t, len(list), 600/25)
		require.LessOrEqual(t, len(list), 600/20)
		require.Zero(t, l.keeper.holds())
		require.False(t, l.keeper.runs())
	})
}

// A connection is asked only when it is silent, and need not answer who does not know how
// to.
func TestHold_asks_a_silent_connection(t *testing.T) {
	keeping(t, "TCP", every, func(t *testing.T, l *Layer, flow *Flow, peer net.Conn, got <-chan string) {
		flow.Hold()
		for range 10 { // there is traffic
			time.Sleep(time.Minute)
			require.NoError(t, flow.Send(ok("x")))
			require.Equal(t, string(ok("x")), <-got)
		}
		begun := time.Now()
		require.Equal(t, endBlock, <-got)
		require.GreaterOrEqual(t, time.Since(begun), streamKeepAlive*4/5)
		require.LessOrEqual(t, time.Since(begun), streamKeepAlive)
		list := inAnHour(got) // of which none is answered
		require.GreaterOrEqual(t, len(list), 3600/120)
		require.LessOrEqual(t, len(list), 3600/96)
		require.NoError(t, flow.Err())

		require.Equal(t, endBlock, <-got)
		write(t, peer, crlf) // it knows how to, then
		require.Equal(t, endBlock, <-got)
		require.False(t, flow.Suspect())
		time.Sleep(pongTime - 1)
		write(t, peer, "\r") // anything shows that it lives
		require.Equal(t, endBlock, <-got)
		begun = time.Now()
		<-flow.Done()
		require.Equal(t, pongTime, time.Since(begun))
		require.ErrorIs(t, flow.Err(), ErrNoPong)
		l.keeper.sweep()
		require.Zero(t, l.keeper.holds(), "what is lost")
		flow.Release()
	})
}

// Each end of a WebSocket answers.
func TestHold_finds_a_dead_WebSocket_in_half_a_minute(t *testing.T) {
	linked(t, "WS", 0, Limits{}, func(t *testing.T, client, server *Layer, flow *Flow, resume func()) {
		client.keeper.every = every
		flow.Hold()
		time.Sleep(time.Hour)
		require.NoError(t, flow.Err())
		require.GreaterOrEqual(t, server.Stats().KeepAlives, uint64(3600/25))
		require.NoError(t, flow.Send([]byte(options("x", "192.0.2.1", "")))) // the server hangs
		begun := time.Now()
		<-flow.Done()
		require.LessOrEqual(t, time.Since(begun), every+pongTime)
		require.ErrorIs(t, flow.Err(), ErrNoPong)
	})
}

func TestHold_crosses_sweeps_and_the_end(t *testing.T) {
	network := dialogtest.NewNetwork()
	defer network.Close()
	l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), FlowKeepAlive: time.Millisecond})
	listen(t, l, "udp", "192.0.2.1:5060")
	ln, err := network.Host("192.0.2.2").Listen(context.Background(), "tcp", "192.0.2.2:5060")
	require.NoError(t, err)
	defer ln.Close()
	stream, err := l.Connect(context.Background(), farTCP)
	require.NoError(t, err)
	packet, err := l.Connect(context.Background(), Target{Transport: "UDP", Addr: farTCP.Addr})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 20 {
		for _, f := range []*Flow{stream, packet} {
			all.Go(func() {
				for range 50 {
					f.Hold()
					f.HoldFor(time.Microsecond)
					l.keeper.sweep()
					f.Release()
				}
			})
		}
	}
	all.Go(func() { stream.stream.lose(ErrClosed) })
	all.Wait()
	time.Sleep(2 * time.Microsecond)
	l.keeper.sweep()
	require.Zero(t, l.keeper.holds())
	for range 20 {
		all.Go(packet.Hold)
		all.Go(l.keeper.sweep)
	}
	all.Go(func() { _ = l.Close() })
	all.Wait()
	require.False(t, l.keeper.runs())
}

// A connection that we dialled has the keep-alives of KeepAlive, if there are any, and no
// others: whichever would come sooner.
func TestHold_leaves_a_dialled_connection_to_KeepAlive(t *testing.T) {
	for _, longest := range []time.Duration{30 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			network := dialogtest.NewNetwork()
			defer network.Close()
			server, _ := startLayer(t, Config{Network: network.Host("192.0.2.2"), Limits: Limits{SilenceTimeout: -1}})
			listen(t, server, "tcp", "192.0.2.2:5060")
			l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), KeepAlive: longest, FlowKeepAlive: every})
			flow, err := l.Connect(context.Background(), farTCP)
			require.NoError(t, err)
			flow.Hold()
			time.Sleep(time.Hour)
			pings := int(server.Stats().KeepAlives)
			require.GreaterOrEqual(t, pings, int(time.Hour/longest)-1)
			require.LessOrEqual(t, pings, int(time.Hour/longest)*5/4)
			require.NoError(t, flow.Err())
			require.NoError(t, l.Close())
			require.NoError(t, server.Close())
		})
	}
}
