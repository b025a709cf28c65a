package transport

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/dialogtest"
)

// monotonic reports whether a time has a monotonic clock reading, by which it is compared
// then (package time). It has none in a bubble.
func monotonic(at time.Time) bool { return at != at.Round(0) }

// FN11: the times that close connections, or keep them alive, do not change when the wall
// clock is set.
func TestStream_times_do_not_move_with_the_wall_clock(t *testing.T) {
	network := dialogtest.NewNetwork()
	defer network.Close()
	l, _ := startLayer(t, Config{Network: network.Host("192.0.2.1"), KeepAlive: time.Minute})
	ln, err := network.Host("192.0.2.2").Listen(context.Background(), "tcp", ":5060")
	require.NoError(t, err)
	flow, err := l.Connect(context.Background(), Target{Transport: "TCP", Addr: addrPort(ln.Addr())})
	require.NoError(t, err)
	r := &reader{s: flow.stream, f: newFramer(l.limits), every: time.Minute}
	check := func(sent bool) {
		require.True(t, monotonic(r.active()), "active, sent: %v", sent)
		require.True(t, monotonic(r.end()), "end, sent: %v", sent)
		require.True(t, monotonic(r.nextPing()), "nextPing, sent: %v", sent)
	}
	check(false)
	require.NoError(t, flow.Send(ok("x")))
	require.Eventually(t, flow.stream.written.known, time.Minute, time.Millisecond)
	check(true)
}
