package dialogtest_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

func TestBlockedCallsLetTheClockRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.Window = 4
		s := bind(t, n.Host("10.0.0.1"), ":5060")
		l, err := n.Host("10.0.0.1").Listen(t.Context(), "tcp", ":5060")
		require.NoError(t, err)
		here, far := connected(t, n)
		ended := make(chan error, 5)
		go func() { _, _, err := s.ReadFrom(make([]byte, 1)); ended <- err }()
		go func() { _, err := l.Accept(); ended <- err }()
		go func() { _, err := far.Read(make([]byte, 1)); ended <- err }()
		go func() { _, err := far.Write([]byte("too long")); ended <- err }()
		go func() {
			_, err := n.Host("10.0.0.1").DialContext(context.Background(), "tcp", "10.9.9.9:1")
			ended <- err
		}()

		start := time.Now()
		time.Sleep(time.Hour)
		require.Equal(t, time.Hour, time.Since(start))
		require.Empty(t, ended)
		require.NoError(t, far.Close())
		n.Close()
		for range 5 {
			require.ErrorIs(t, <-ended, net.ErrClosed)
		}
		require.NoError(t, here.Close())
	})
}

func TestReadDeadlineEndsAWaitingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		s := bind(t, n.Host("10.0.0.1"), ":5060")
		here, _ := connected(t, n)
		readers := map[string]struct {
			set  func(time.Time) error
			read func() error
		}{
			"udp": {s.SetReadDeadline, func() error { _, _, err := s.ReadFrom(make([]byte, 1)); return err }},
			"tcp": {here.SetDeadline, func() error { _, err := here.Read(make([]byte, 1)); return err }},
		}
		for name, r := range readers {
			start := time.Now()
			require.NoError(t, r.set(start.Add(time.Hour)), name)
			// A nearer deadline wakes a read that already waits.
			time.AfterFunc(time.Second, func() { _ = r.set(start.Add(3 * time.Second)) })
			err := r.read()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
			require.Equal(t, 3*time.Second, time.Since(start), name)
			var timeout net.Error
			require.ErrorAs(t, err, &timeout, name)
			require.True(t, timeout.Timeout(), name)
			require.ErrorIs(t, r.read(), os.ErrDeadlineExceeded, name)
		}
	})
}

func TestSlowReaderBlocksTheWriterUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		here, far := connected(t, n)
		start := time.Now()
		require.NoError(t, here.SetWriteDeadline(start.Add(5*time.Second)))
		written, err := here.Write(make([]byte, 100<<10))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, dialogtest.DefaultWindow, written)
		require.Equal(t, 5*time.Second, time.Since(start))

		require.NoError(t, here.SetWriteDeadline(time.Time{}))
		time.AfterFunc(time.Second, func() { _, _ = far.Read(make([]byte, 100)) })
		written, err = here.Write(make([]byte, 100))
		require.NoError(t, err)
		require.Equal(t, 100, written)
		require.Equal(t, 6*time.Second, time.Since(start))
	})
}

func TestPolicyDelaysRepeatsAndReorders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := bind(t, n.Host("10.0.0.1"), ":0"), bind(t, n.Host("10.0.0.2"), ":0")
		plan := map[string][]time.Duration{
			"late":  {3 * time.Second},
			"twice": {time.Second, 2 * time.Second},
			"lost":  nil,
			"now":   {0},
		}
		n.SetPolicy(func(p dialogtest.Packet) []time.Duration { return plan[string(p.Data)] })
		start := time.Now()
		for _, text := range []string{"late", "twice", "lost", "now"} {
			_, err := a.WriteTo([]byte(text), b.LocalAddr())
			require.NoError(t, err)
		}
		for i, text := range []string{"now", "twice", "twice", "late"} {
			got, _ := received(t, b)
			require.Equal(t, text, got)
			require.Equal(t, time.Duration(i)*time.Second, time.Since(start))
		}
		require.Equal(t, dialogtest.Stats{Sent: 4, Lost: 1, Delivered: 4}, n.Stats())
	})
}

func TestEqualDelaysKeepTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := bind(t, n.Host("10.0.0.1"), ":0"), bind(t, n.Host("10.0.0.2"), ":0")
		n.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{time.Second} })
		for i := range 200 {
			_, err := a.WriteTo([]byte{byte(i)}, b.LocalAddr())
			require.NoError(t, err)
		}
		for i := range 200 {
			got, _ := received(t, b)
			require.Equal(t, string([]byte{byte(i)}), got)
		}
	})
}

func TestCutOffHostLosesMessagesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a, b := bind(t, n.Host("10.0.0.1"), ":0"), bind(t, n.Host("10.0.0.2"), ":0")
		n.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{time.Second} })
		_, err := a.WriteTo([]byte("x"), b.LocalAddr())
		require.NoError(t, err)
		n.Host("10.0.0.2").Unreachable(true)
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, n.Stats().Unclaimed)
	})
}

func TestDialOfAnUnknownAddressWaitsForItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		_, err := n.Host("10.0.0.1").DialContext(ctx, "tcp", "10.9.9.9:5060")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

func TestClosedNetworkDropsMessagesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dialogtest.NewNetwork()
		a := bind(t, n.Host("10.0.0.1"), ":5060")
		n.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{time.Second} })
		_, err := a.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.1:5060")))
		require.NoError(t, err)
		n.Close()
		time.Sleep(time.Minute)
		require.Zero(t, n.Stats().Delivered)
	})
}

func TestWritesAreUnderWayAndStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		delays := map[string]time.Duration{"": 3 * time.Second, "a": 2 * time.Second, "b": time.Second, "c": 4 * time.Second}
		n.SetStreamPolicy(func(p dialogtest.Packet) time.Duration { return delays[string(p.Data)] })
		start := time.Now()
		here, far := connected(t, n)
		require.Equal(t, 3*time.Second, time.Since(start))
		start = time.Now()
		for _, word := range []string{"a", "b", "c"} {
			_, err := here.Write([]byte(word))
			require.NoError(t, err)
		}
		require.NoError(t, here.Close())
		buffer := make([]byte, 10)
		for _, want := range []struct {
			text  string
			after time.Duration
		}{{"ab", 2 * time.Second}, {"c", 4 * time.Second}} {
			got, err := far.Read(buffer)
			require.NoError(t, err)
			require.Equal(t, want.text, string(buffer[:got]))
			require.Equal(t, want.after, time.Since(start))
		}
		_, err := far.Read(buffer)
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestADeadlineComesBeforeAMessageInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		here, far := connected(t, n)
		n.SetStreamPolicy(func(dialogtest.Packet) time.Duration { return time.Minute })
		_, err := here.Write([]byte("a"))
		require.NoError(t, err)
		require.NoError(t, far.SetReadDeadline(time.Now().Add(time.Second)))
		_, err = far.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, far.SetReadDeadline(time.Time{}))
		_, err = far.Read(make([]byte, 1))
		require.NoError(t, err)
	})
}

func TestCongestionLosesDatagramsAndDelaysStreams(t *testing.T) {
	c := dialogtest.Congestion{Loss: 0.2, Jitter: 100 * time.Millisecond, Reorder: 0.05, Seed: 1}
	datagrams, streams := c.Datagrams(), c.Streams()
	lost, held, repeated := 0, 0, 0
	for range 10000 {
		delays := datagrams(dialogtest.Packet{})
		switch {
		case len(delays) == 0:
			lost++
		case delays[0] >= c.Jitter:
			held++
		}
		if streams(dialogtest.Packet{Data: []byte("a")}) >= 300*time.Millisecond {
			repeated++
		}
	}
	require.InDelta(t, 2000, lost, 200)
	require.InDelta(t, 400, held, 80)
	require.InDelta(t, 2000, repeated, 200)
	all := dialogtest.Congestion{Loss: 1}
	require.Less(t, all.Streams()(dialogtest.Packet{}), 5*time.Minute)
}
