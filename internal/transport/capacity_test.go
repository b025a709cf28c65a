package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// FX6: peers cannot use up the bound of our connections, nor we theirs.
func TestDialsHaveABoundOfTheirOwn(t *testing.T) {
	bubble(t, Limits{Connections: 2, Dials: 1}, func(t *testing.T, l *Layer, _ <-chan arrival, peer *dialogtest.Host) {
		for range 2 {
			dialMemory(t, peer)
		}
		refusedAtOnce(t, dialMemory(t, peer))
		for _, addr := range []string{"192.0.2.2:5060", "192.0.2.2:5061"} {
			_, err := peer.Listen(t.Context(), "tcp", addr)
			require.NoError(t, err)
		}
		_, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: netip.MustParseAddrPort("192.0.2.2:5060")})
		require.NoError(t, err)
		_, err = l.Connect(context.Background(), Target{Transport: "TCP", Addr: netip.MustParseAddrPort("192.0.2.2:5061")})
		require.ErrorIs(t, err, ErrTooManyConnections)
		require.Equal(t, 3, l.Stats().Connections)
		require.EqualValues(t, 1, l.Stats().ConnectionsRefused)
	})
}

func refusedAtOnce(t *testing.T, conn net.Conn) {
	t.Helper()
	require.Zero(t, closedAfter(t, conn))
}

// FX6: one host has so many connections, and others have theirs.
func TestConnectionsOfOneSourceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: Limits{ConnectionsPerSource: 3}})
		listen(t, l, "tcp", "192.0.2.1:5060")
		one, other := network.Host("192.0.2.2"), network.Host("192.0.2.3")
		var kept []net.Conn
		for range 3 {
			kept = append(kept, dialMemory(t, one))
		}
		refusedAtOnce(t, dialMemory(t, one))
		kept = append(kept, dialMemory(t, other))
		synctest.Wait()
		require.Equal(t, 4, l.Stats().Connections)
		require.EqualValues(t, 1, l.Stats().ConnectionsOfSource)

		require.NoError(t, kept[0].Close())
		synctest.Wait()
		kept[0] = dialMemory(t, one) // a place that is given back can be taken
		synctest.Wait()
		require.Equal(t, 4, l.Stats().Connections)
		for _, conn := range kept {
			require.NoError(t, conn.Close())
		}
		synctest.Wait()
		require.Empty(t, l.capacity.sources)
		require.NoError(t, l.Close())
	})
}

// One host has all addresses of an IPv6 network of 64 bits.
func TestASourceIsAnAddressOrANetwork(t *testing.T) {
	source := func(addr string) string { return Source(netip.MustParseAddr(addr)).String() }
	require.Equal(t, "192.0.2.1", source("192.0.2.1"))
	require.Equal(t, "192.0.2.1", source("::ffff:192.0.2.1"))
	require.Equal(t, "2001:db8:1:2::", source("2001:db8:1:2:3:4:5:6"))
	require.Equal(t, source("fe80::1%eth0"), source("fe80::2%eth1"))
	require.False(t, Source(netip.Addr{}).IsValid())
}

// FX6: handshakes that one host leaves undone are bounded as well.
func TestHandshakesOfOneSourceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dialogtest.NewNetwork()
		defer network.Close()
		l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), Limits: Limits{HandshakesPerSource: 2}})
		listen(t, l, "ws", "192.0.2.1:5060")
		peer := network.Host("192.0.2.2")
		for range 2 {
			dialMemory(t, peer)
		}
		refusedAtOnce(t, dialMemory(t, peer))
		dialMemory(t, network.Host("192.0.2.3"))
		synctest.Wait()
		require.Equal(t, 3, l.Stats().Handshakes)
		require.EqualValues(t, 1, l.Stats().HandshakesRefused)
		time.Sleep(10 * time.Second) // HandshakeTimeout
		synctest.Wait()
		require.Zero(t, l.Stats().Handshakes)
		require.Zero(t, l.Stats().Connections)
		require.Empty(t, l.capacity.shakers)
		require.NoError(t, l.Close())
	})
}

// FX6: who opens a connection has to say something.
func TestASilentConnectionIsClosed(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Second} {
		bubble(t, Limits{SilenceTimeout: limit}, func(t *testing.T, l *Layer, _ <-chan arrival, peer *dialogtest.Host) {
			if limit == 0 {
				limit = 30 * time.Second
			}
			silent, talks := dialMemory(t, peer), dialMemory(t, peer)
			time.Sleep(limit - 1)
			write(t, talks, "\r\n")
			synctest.Wait()
			require.Equal(t, 2, l.Stats().Connections)
			require.Equal(t, time.Duration(1), closedAfter(t, silent))
			require.EqualValues(t, 1, l.Stats().ConnectionsSilent)
			time.Sleep(29 * time.Minute)
			require.Equal(t, 1, l.Stats().Connections)
		})
	}
}

// FX6: what messages hold that do not end is bounded for all streams together; whose
// waits longest goes. Whoever sends a message without a break gets through.
func TestHalfMessagesAreBoundedTogether(t *testing.T) {
	const most = 128 << 10
	whole := options("honest", "192.0.2.3", strings.Repeat("x", 20<<10))
	for name, half := range map[string]string{
		"headers": "OPTIONS sip:b@example.com SIP/2.0\r\nX: " + strings.Repeat("x", 10<<10),
		"bodies":  whole[:len(whole)-10],
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Limits{StreamBytes: most}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
				for i := range 100 {
					write(t, dialMemory(t, peer), half)
					synctest.Wait()
					require.LessOrEqual(t, l.Stats().Held, most)
					if i%10 == 0 {
						honest := dialMemory(t, peer)
						write(t, honest, whole)
						require.Equal(t, "honest", next(t, arrivals).msg.CallID().Value())
						require.NoError(t, honest.Close())
					}
				}
				require.Greater(t, l.Stats().ConnectionsCrowded, uint64(80))
				require.Greater(t, l.Stats().Held, most/2)
				time.Sleep(30 * time.Second) // PartialTimeout
				synctest.Wait()
				require.Zero(t, l.Stats().Connections)
				require.Zero(t, l.Stats().Held)
			})
		})
	}
}

// FX6: likewise what waits for peers that do not read.
func TestMessagesThatWaitToBeWrittenAreBoundedTogether(t *testing.T) {
	const most = 512 << 10
	bubble(t, Limits{StreamBytes: most}, func(t *testing.T, l *Layer, arrivals <-chan arrival, peer *dialogtest.Host) {
		for i := range 20 {
			conn := dialMemory(t, peer)
			write(t, conn, options(fmt.Sprint(i), "192.0.2.2", ""))
			flow := next(t, arrivals).flow
			for range 10 {
				if flow.Send(make([]byte, 30<<10)) != nil {
					break
				}
				require.LessOrEqual(t, l.Stats().Held, most)
			}
			synctest.Wait()
		}
		require.NotZero(t, l.Stats().ConnectionsCrowded)
		time.Sleep(time.Minute)
		require.Zero(t, l.Stats().Held)
	})
}
