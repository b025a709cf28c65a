package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// dials is a host whose dials are counted.
type dials struct {
	*dialogtest.Host
	tcp atomic.Int32
}

func (d *dials) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "tcp" {
		d.tcp.Add(1)
	}
	return d.Host.DialContext(ctx, network, address)
}

// dialling runs f with a layer whose dials are counted, and another host.
func dialling(t *testing.T, limits Limits, f func(t *testing.T, l *Layer, d *dials, peer *dialogtest.Host)) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		d := &dials{Host: network.Host("192.0.2.1")}
		l, _ := startLayer(t, Config{Network: d, Limits: limits})
		f(t, l, d, network.Host("192.0.2.2"))
		require.NoError(t, l.Close())
	})
}

func tcp(address string) Target {
	return Target{Transport: "TCP", Addr: netip.MustParseAddrPort(address)}
}

// FN6: a destination that does not answer costs one wait, not one each request.
func TestConnect_remembers_a_dial_that_failed(t *testing.T) {
	for name, c := range map[string]struct {
		address   string
		dials     int32
		cost, lie time.Duration
	}{
		"refused":     {"192.0.2.2:5060", 2, 0, time.Second}, // once more, at once
		"no answer":   {"198.51.100.1:5060", 1, 10 * time.Second, 30 * time.Second},
		"unreachable": {"[2001:db8::1]:5060", 2, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			dialling(t, Limits{}, func(t *testing.T, l *Layer, d *dials, _ *dialogtest.Host) {
				began, first := time.Now(), error(nil)
				for range c.dials {
					_, first = l.Connect(context.Background(), tcp(c.address))
					require.NotContains(t, first.Error(), "ago)")
				}
				require.Equal(t, c.cost, time.Since(began))
				time.Sleep(c.lie - time.Millisecond)
				_, again := l.Connect(context.Background(), tcp(c.address))
				require.ErrorIs(t, again, errors.Unwrap(first))
				require.ErrorContains(t, again, "ago)")
				require.Equal(t, c.cost+c.lie-time.Millisecond, time.Since(began))
				require.Equal(t, c.dials, d.tcp.Load())
				time.Sleep(time.Millisecond)
				_, _ = l.Connect(context.Background(), tcp(c.address))
				require.Equal(t, c.dials+1, d.tcp.Load())
			})
		})
	}
}

// However long a dial took where nothing bounds it: the kernel gives up after two minutes.
func TestAFailureIsRememberedForHalfAMinuteAtMost(t *testing.T) {
	f, key, began := failures{}, streamKey{transport: "TCP", addr: farTCP.Addr}, time.Now()
	for pause, lie := range map[time.Duration]time.Duration{time.Second: 30 * time.Second, time.Minute: time.Minute} {
		end := began.Add(2 * time.Minute)
		f.put(key, errDialTimeout, began, end, pause)
		require.Error(t, f.get(key, end.Add(lie-1)))
		require.NoError(t, f.get(key, end.Add(lie)))
	}
}

func TestConnect_forgets_a_failed_dial_in_time(t *testing.T) {
	for pause, waits := range map[time.Duration]bool{-1: false, 5 * time.Second: true} {
		dialling(t, Limits{DialPause: pause}, func(t *testing.T, l *Layer, d *dials, peer *dialogtest.Host) {
			for range 2 {
				_, err := l.Connect(context.Background(), tcp("192.0.2.2:5060"))
				require.Error(t, err)
			}
			ln, err := peer.Listen(context.Background(), "tcp", "192.0.2.2:5060")
			require.NoError(t, err)
			defer ln.Close()
			_, err = l.Connect(context.Background(), tcp("192.0.2.2:5060"))
			require.Equal(t, waits, err != nil)
			time.Sleep(5 * time.Second)
			_, err = l.Connect(context.Background(), tcp("192.0.2.2:5060"))
			require.NoError(t, err)
		})
	}
}

// A caller who gives up says nothing about the destination.
func TestConnect_does_not_remember_a_dial_that_nobody_waited_for(t *testing.T) {
	dialling(t, Limits{}, func(t *testing.T, l *Layer, d *dials, _ *dialogtest.Host) {
		for range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := l.Connect(ctx, tcp("198.51.100.1:5060"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			synctest.Wait()
		}
		require.EqualValues(t, 2, d.tcp.Load())
	})
}

func TestConnect_uses_a_connection_of_the_peers_though_a_dial_has_failed(t *testing.T) {
	bubble(t, Limits{DialPause: time.Hour}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		conn := dialMemory(t, peer)
		defer conn.Close()
		key := streamKey{transport: "TCP", addr: addrPort(conn.LocalAddr())}
		l.failures.put(key, errDialTimeout, time.Now(), time.Now(), time.Hour)
		write(t, conn, options("x", "192.0.2.2", ""))
		flow, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: next(t, arrivals).flow.RemoteAddr()})
		require.NoError(t, err)
		require.Equal(t, key.addr, flow.RemoteAddr())
	})
}

// FN6: a thousand requests for one dead destination, at once and one after the other,
// are one dial, or two where it is refused at once.
func TestConnect_is_no_storm_of_dials(t *testing.T) {
	for address, most := range map[string]int32{"192.0.2.2:5060": 2, "198.51.100.1:5060": 1} {
		dialling(t, Limits{}, func(t *testing.T, l *Layer, d *dials, _ *dialogtest.Host) {
			var group sync.WaitGroup
			for range 1000 {
				group.Go(func() {
					_, err := l.Connect(context.Background(), tcp(address))
					require.Error(t, err)
				})
			}
			group.Wait()
			for range 1000 {
				_, err := l.Connect(context.Background(), tcp(address))
				require.Error(t, err)
			}
			require.Equal(t, most, d.tcp.Load())
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	f, now := failures{}, time.Now()
	for i := range 3 * failureEntries {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		f.put(streamKey{addr: netip.AddrPortFrom(addr, 5060)}, errDialTimeout, now, now, time.Second)
	}
	require.Equal(t, failureEntries, len(f.entries)) // not Len, which would print them all
	for key := range f.entries {
		require.NoError(t, f.get(key, now))
		require.Error(t, f.get(key, now))
		require.NoError(t, f.get(key, now.Add(time.Second)))
	}
	require.Empty(t, f.entries)
}

// A destination with a new connection is no longer a failed one.
func TestConnect_forgets_a_failure_with_a_success(t *testing.T) {
	dialling(t, Limits{DialPause: time.Hour}, func(t *testing.T, l *Layer, _ *dials, peer *dialogtest.Host) {
		_, err := l.Connect(context.Background(), tcp("192.0.2.2:5060"))
		require.Error(t, err)
		ln, err := peer.Listen(context.Background(), "tcp", "192.0.2.2:5060")
		require.NoError(t, err)
		defer ln.Close()
		for range 3 {
			flow, err := l.Connect(context.Background(), tcp("192.0.2.2:5060"))
			require.NoError(t, err)
			flow.stream.lose(ErrClosed)
		}
	})
}

// FN7: a dial from an address that is ours no longer is not shared, and its end says
// nothing of the destination.
func TestChanged_leaves_the_dials_that_are_under_way(t *testing.T) {
	dialling(t, Limits{}, func(t *testing.T, l *Layer, d *dials, _ *dialogtest.Host) {
		began, old := time.Now(), make(chan error, 1)
		go func() {
			_, err := l.Connect(context.Background(), tcp("198.51.100.1:5060"))
			old <- err
		}()
		time.Sleep(9 * time.Second)
		l.Changed()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := l.Connect(ctx, tcp("198.51.100.1:5060"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, <-old, errDialTimeout)
		require.EqualValues(t, 2, d.tcp.Load())
		require.Equal(t, 14*time.Second, time.Since(began))
		_, err = l.Connect(context.Background(), tcp("198.51.100.1:5060"))
		require.NotContains(t, err.Error(), "ago)")
	})
}
