package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func TestLimitsOfSendingAreChecked(t *testing.T) {
	for _, l := range []dialog.Limits{
		{UDPRequestBytes: -1}, {UDPRequestBytes: 65508}, {DialTimeout: -1},
	} {
		_, err := dialog.NewStack(&dialog.StackConfig{Limits: l})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	}
	_, err := dialog.NewStack(&dialog.StackConfig{Limits: dialog.Limits{UDPRequestBytes: 65507, DialPause: -1}})
	require.NoError(t, err)
}

// silentTCP is a host whose dials by TCP nobody answers, nor refuses.
type silentTCP struct {
	*dialogtest.Host
	dials atomic.Int32
}

func (h *silentTCP) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return h.Host.DialContext(ctx, network, address)
	}
	h.dials.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

// FN6: requests too long for UDP wait for TCP once, as long as is configured; what
// comes behind them does not wait at all.
func TestRequestsTooLongForUDPWaitForTCPOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := &silentTCP{Host: w.net.Host(stackIP)}
		a := w.stack(stackIP, func(c *dialog.StackConfig) { c.Network, c.Limits.DialTimeout = h, 3*time.Second })
		l := w.outgoing(a, w.peer(peerIP))
		long := dialog.NewBody("text/plain", make([]byte, 2000))
		for _, wait := range []time.Duration{3 * time.Second, 0, 0} {
			start := time.Now()
			result := began(func() error { return l.d.SendInfo(context.Background(), long) })
			l.reply(l.next("INFO"), dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
			require.Equal(t, wait, time.Since(start))
		}
		start := time.Now()
		result := began(func() error { return l.d.Bye(context.Background(), strings.Repeat("x", 2000)) })
		l.reply(l.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		require.Zero(t, time.Since(start))
		require.EqualValues(t, 1, h.dials.Load())
	})
}

func TestLengthAboveWhichRequestsGoByTCPIsConfigured(t *testing.T) {
	for limit, transport := range map[int]string{0: "TCP", 1300: "TCP", 5000: "UDP"} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.UDPRequestBytes = limit }), w.peer(peerIP)
			l := w.outgoing(a, p)
			w.servesTCP(p, p.Addr().String())
			result := began(func() error {
				return l.d.SendInfo(context.Background(), dialog.NewBody("text/plain", make([]byte, 2000)))
			})
			if transport == "UDP" {
				l.reply(l.next("INFO"), dialogtest.Response{Code: 200})
			}
			require.NoError(t, <-result)
			ways := w.ways(stackIP)
			require.True(t, strings.HasPrefix(ways[len(ways)-1], "INFO "+transport), ways)
			if transport == "UDP" {
				l.ends()
				return
			}
			require.NoError(t, l.d.Bye(context.Background(), ""))
		})
	}
}

// FN6: a thousand callers whose connections are lost at once are answered by new ones;
// the proxy that they all came by, which refuses, is dialled twice, not a thousand times.
func TestAThousandDeadConnectionsAreNoStormOfDials(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const callers = 1000
		host := &countedDials{Host: w.net.Host(stackIP)}
		b := w.stack(stackIP, alsoTCP, func(c *dialog.StackConfig) {
			c.Network, c.MaxDialogs, c.Limits.ConnectionsPerSource = host, callers, callers
		})
		calls := make(chan dialog.IDialog, callers)
		b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
		p := w.peer(peerIP)
		for i := range callers {
			conn, err := w.net.Host(peerIP).DialContext(context.Background(), "tcp", b.Addrs()[1].String())
			require.NoError(t, err)
			invite := p.Request(p.invite(fmt.Sprint("call", i)))
			_, err = conn.Write([]byte(strings.Replace(string(invite), "SIP/2.0/UDP", "SIP/2.0/TCP", 1)))
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Len(t, calls, callers)
		w.net.BreakStreams()
		synctest.Wait()
		for range callers {
			d := (<-calls).(*dialog.Dialog)
			err := d.Reject(context.Background(), 486, "")
			require.True(t, err == nil || errors.Is(err, dialog.ErrTransport), err)
		}
		synctest.Wait()
		require.EqualValues(t, 2, host.dials.Load())
	})
}

// countedDials is a host whose dials by TCP are counted.
type countedDials struct {
	*dialogtest.Host
	dials atomic.Int32
}

func (h *countedDials) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "tcp" {
		h.dials.Add(1)
	}
	return h.Host.DialContext(ctx, network, address)
}
