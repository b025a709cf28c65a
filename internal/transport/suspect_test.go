package transport

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

var farTCP = Target{Transport: "TCP", Addr: netip.MustParseAddrPort("192.0.2.2:5060")}

// connects has a layer connect to a bare server.
func connects(t *testing.T, network *dialogtest.Network, l *Layer) (net.Listener, *Flow, net.Conn) {
	t.Helper()
	ln, err := network.Host("192.0.2.2").Listen(context.Background(), "tcp", "192.0.2.2:5060")
	require.NoError(t, err)
	flow, err := l.Connect(context.Background(), farTCP)
	require.NoError(t, err)
	peer, err := ln.Accept()
	require.NoError(t, err)
	return ln, flow, peer
}

// dialled runs body with a layer that has connected to a bare server.
func dialled(t *testing.T, body func(t *testing.T, l *Layer, ln net.Listener, flow *Flow, peer net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1")})
		ln, flow, peer := connects(t, network, l)
		body(t, l, ln, flow, peer)
		require.NoError(t, l.Close())
		require.Zero(t, l.tasks.Running())
	})
}

// FN8: a connection by which nothing came is not given to the next who asks, until
// something comes.
func TestDoubt_has_another_connection_used_until_something_is_heard(t *testing.T) {
	dialled(t, func(t *testing.T, l *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		flow.Doubt(time.Minute)
		flow.Doubt(time.Minute) // is pinged once
		require.True(t, flow.Suspect())
		require.True(t, flow.Dialled())
		_, ready := l.ReadyTarget(farTCP)
		require.False(t, ready)
		other, err := l.Connect(context.Background(), farTCP)
		require.NoError(t, err)
		require.False(t, other.Same(flow))

		require.Equal(t, endBlock, readText(t, peer, 4))
		time.Sleep(pongTime - 1)
		write(t, peer, crlf)
		time.Sleep(time.Minute)
		require.NoError(t, flow.Err())
		require.False(t, flow.Suspect())
		other.stream.lose(ErrClosed)
		again, ok := l.ReadyTarget(farTCP)
		require.True(t, ok)
		require.True(t, again.Same(flow))
	})
}

// A message shows that the connection lives, as a pong does.
func TestDoubt_ends_with_whatever_is_heard(t *testing.T) {
	dialled(t, func(t *testing.T, _ *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		flow.Doubt(time.Minute)
		time.Sleep(time.Second)
		write(t, peer, "OPTIONS")
		synctest.Wait()
		require.False(t, flow.Suspect())
		time.Sleep(pongTime)
		require.NoError(t, flow.Err())
		// The next doubt has its own ten seconds.
		time.Sleep(5 * time.Second)
		flow.Doubt(time.Second)
		time.Sleep(pongTime - 1)
		require.NoError(t, flow.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, flow.Err(), ErrNoPong)
	})
}

func TestDoubt_ends_a_connection_that_stays_silent_and_tells_once(t *testing.T) {
	dialled(t, func(t *testing.T, l *Layer, _ net.Listener, flow *Flow, _ net.Conn) {
		var told []error
		flow.Watch(func(err error) { told = append(told, err) })
		start := time.Now()
		flow.Doubt(time.Minute)
		<-flow.Done()
		require.Equal(t, pongTime, time.Since(start))
		synctest.Wait()
		require.Len(t, told, 1)
		require.ErrorIs(t, told[0], ErrNoPong)
		require.EqualValues(t, 1, l.Stats().ConnectionsNoPong)
		flow.Doubt(0) // too late
	})
}

func TestDoubt_is_not_shared_when_something_was_heard_since(t *testing.T) {
	dialled(t, func(t *testing.T, _ *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		write(t, peer, crlf)
		time.Sleep(time.Minute - 1)
		flow.Doubt(time.Minute)
		require.False(t, flow.Suspect())
		time.Sleep(time.Nanosecond)
		flow.Doubt(time.Minute)
		require.True(t, flow.Suspect())
	})
}

// Nothing else leads to who has connected to us.
func TestDoubt_leaves_an_accepted_connection_in_use(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		write(t, conn, options("x", "192.0.2.2", ""))
		flow := next(t, arrivals).flow
		time.Sleep(time.Minute)
		flow.Doubt(time.Minute)
		require.True(t, flow.Suspect())
		require.False(t, flow.Dialled())
		found, ok := l.ReadyTarget(Target{Transport: "TCP", Addr: flow.RemoteAddr()})
		require.True(t, ok)
		require.True(t, found.Same(flow))
		require.Equal(t, endBlock, readText(t, conn, 4))
		require.NoError(t, conn.Close())
	})
}

func TestDoubt_does_not_concern_UDP(t *testing.T) {
	bubble(t, Limits{}, func(t *testing.T, l *Layer, _ <-chan arrival, _ *dialogtest.Host) {
		flow, err := l.Connect(context.Background(), Target{Transport: "UDP", Addr: farTCP.Addr})
		require.NoError(t, err)
		flow.Doubt(0)
		require.False(t, flow.Suspect())
		require.False(t, flow.Dialled())
	})
}

// A verdict that was stopped too late knows that it is stale, and one of a connection
// that is lost does not come.
func TestDoubt_has_one_verdict_at_a_time(t *testing.T) {
	dialled(t, func(t *testing.T, l *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		flow.Doubt(time.Minute)
		stale := flow.stream.inquiry
		write(t, peer, crlf)
		synctest.Wait()
		time.Sleep(time.Second)
		flow.Doubt(time.Second)
		flow.stream.convict(stale)
		require.NoError(t, flow.Err())
		flow.stream.lose(ErrClosed)
		require.Nil(t, flow.stream.verdict)
		time.Sleep(time.Minute)
		require.Zero(t, l.Stats().ConnectionsNoPong)
	})
}

// When the network has changed, all that is open may be dead; who does not know
// keep-alives is not closed for that.
func TestChanged_doubts_and_condemns_only_who_knows_keep_alives(t *testing.T) {
	for _, knows := range []bool{false, true} {
		dialled(t, func(t *testing.T, l *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
			if knows {
				flow.Doubt(time.Minute)
				require.Equal(t, endBlock, readText(t, peer, 4))
				write(t, peer, crlf)
				synctest.Wait()
			}
			l.Changed()
			require.True(t, flow.Suspect())
			require.Equal(t, endBlock, readText(t, peer, 4))
			time.Sleep(time.Minute)
			require.Equal(t, knows, flow.Err() != nil)
			if !knows {
				write(t, peer, crlf)
				synctest.Wait()
				require.False(t, flow.Suspect())
			}
		})
	}
}

// Crossing events: a doubt, an arrival, the loss of the connection and the end of the layer.
func TestDoubt_crosses_what_is_heard(t *testing.T) {
	network := dialogtest.NewNetwork()
	defer network.Close()
	l, arrivals := startLayer(t, Config{Network: network.Host("192.0.2.1")})
	_, flow, peer := connects(t, network, l)
	go func() { // who answers nothing
		for b := make([]byte, 1000); ; {
			if _, err := peer.Read(b); err != nil {
				return
			}
		}
	}()
	for range 200 {
		flow.Doubt(time.Nanosecond)
		var all sync.WaitGroup
		all.Go(func() { _, _ = peer.Write([]byte(options("x", "192.0.2.2", ""))) })
		all.Go(func() { flow.Doubt(time.Hour) })
		all.Go(func() { _, _ = l.ReadyTarget(farTCP) })
		all.Wait()
		next(t, arrivals)
		require.Eventually(t, func() bool { return !flow.Suspect() }, 10*time.Second, time.Microsecond)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { flow.Doubt(0) })
		all.Go(l.Changed)
	}
	all.Go(func() { flow.stream.lose(ErrClosed) })
	all.Go(func() { _ = l.Close() })
	all.Wait()
	flow.stream.mu.Lock()
	defer flow.stream.mu.Unlock()
	require.Nil(t, flow.stream.verdict)
}

// A peer that pings us need not answer our ping (RFC 5626 4.4.1), and its ping does not count
// as an answer.
func TestAPingThatCrossesOursIsAnswered(t *testing.T) {
	dialled(t, func(t *testing.T, _ *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		flow.stream.ask()
		require.Equal(t, endBlock, readText(t, peer, 4))
		write(t, peer, endBlock)
		require.Equal(t, crlf, readText(t, peer, 2))
		require.False(t, flow.stream.mustAnswer())
		write(t, peer, crlf)
		synctest.Wait()
		require.True(t, flow.stream.mustAnswer())
	})
}

// Data that arrived after a request does not end a later doubt.
func TestDoubt_leaves_a_later_doubt_alone(t *testing.T) {
	dialled(t, func(t *testing.T, l *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
		write(t, peer, crlf)
		time.Sleep(time.Second)
		l.Changed()
		time.Sleep(time.Second)
		flow.Doubt(time.Minute)
		require.True(t, flow.Suspect())
		write(t, peer, crlf)
		synctest.Wait()
		require.False(t, flow.Suspect())
	})
}

// Line ends that come later than an answer may come do not count as one: a peer whose own
// keep-alive is one CRLF is not closed for not answering ours.
func TestALateCRLFIsNoAnswer(t *testing.T) {
	for late, answers := range map[time.Duration]bool{pongTime: true, pongTime + 1: false} {
		dialled(t, func(t *testing.T, _ *Layer, _ net.Listener, flow *Flow, peer net.Conn) {
			flow.stream.ask()
			require.Equal(t, endBlock, readText(t, peer, 4))
			time.Sleep(late)
			write(t, peer, crlf)
			synctest.Wait()
			require.Equal(t, answers, flow.stream.mustAnswer())
			write(t, peer, options("x", "192.0.2.2", "")) // is read as ever
			synctest.Wait()
			flow.stream.ask()
			require.Equal(t, endBlock, readText(t, peer, 4))
			time.Sleep(time.Minute)
			require.Equal(t, answers, flow.Err() != nil)
		})
	}
}
