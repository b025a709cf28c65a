package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
)

// FX6: one host opens as many connections as it can, sends nothing or half a message, and does
// not use up the bound for other hosts; all of it is counted, and over in 30 s.
func TestConnectionsOfOneHostAreBoundedAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack("10.0.0.2", func(c *dialog.StackConfig) {
			c.Transport = &dialog.TransportConfig{Protocol: "tcp", Address: "10.0.0.2"}
			c.Limits.ConnectionsPerSource, c.Limits.StreamBytes = 5, 64<<10
		})
		dial := func(ip string) net.Conn {
			conn, err := w.net.Host(ip).DialContext(t.Context(), "tcp", b.Addr().String())
			require.NoError(t, err)
			return conn
		}
		for i := range 15 {
			conn := dial("10.0.0.66")
			if i%2 == 0 {
				_, _ = io.WriteString(conn, "OPTIONS sip:b@10.0.0.2 SIP/2.0\r\nX: "+string(make([]byte, 20<<10)))
			}
			synctest.Wait()
			require.LessOrEqual(t, b.Stats().StreamBytes, 64<<10)
		}
		dial("10.0.0.67")
		synctest.Wait()
		stats := b.Stats()
		require.NotZero(t, stats.StreamBytes)
		require.NotZero(t, stats.Refused["connections of a source"])
		require.NotZero(t, stats.Dropped["crowded connections"])
		require.LessOrEqual(t, stats.Connections, 6)
		time.Sleep(31 * time.Second)
		stats = b.Stats()
		require.Zero(t, stats.Connections)
		require.Zero(t, stats.StreamBytes)
		require.NotZero(t, stats.Dropped["silent connections"])
		require.NotZero(t, stats.Dropped["half messages"])
	})
}

// The queue of one Call-ID is bounded; a request that ends the call is still accepted.
func TestPendingWorkOfACallIsBounded(t *testing.T) {
	held := make(chan struct{})
	limits := func(c *dialog.StackConfig) {
		c.Limits.PendingPerCall = 3
		c.Trace = func(e dialog.TraceEvent) {
			if e.Outbound && strings.Contains(string(e.Data), "200 OK\r\n") && strings.Contains(string(e.Data), " INFO\r\n") {
				<-held // the call's worker, in the middle of an answer
			}
		}
	}
	bounded(t, 2<<20, limits, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		held = make(chan struct{})
		p := w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		const sent = 500
		for i := range sent {
			require.NoError(t, p.Send(b.Addr(), p.Request(inside("INFO", uint32(11+i)))))
			synctest.Wait()
		}
		require.EqualValues(t, sent-4, b.Stats().Refused["queue"], "one at work, three that wait")
		refusal := p.next("503 INFO")
		require.NotEmpty(t, testkit.Value(refusal.Message, "Retry-After"))
		look()
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("BYE", 1000))))
		synctest.Wait()
		require.EqualValues(t, sent-4, b.Stats().Refused["queue"])
		close(held)
		p.next("200 BYE")
		<-d.Done()
	})
}

// Transactions are bounded exactly; a request beyond gets 503, a BYE does not.
func TestTransactionsAreBounded(t *testing.T) {
	bounded(t, 2<<20, func(c *dialog.StackConfig) { c.Limits.Transactions = 20 }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		already := b.Stats().ServerTransactions
		const sent = 500
		for i := range sent {
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: fmt.Sprint("many", i)})))
		}
		synctest.Wait()
		require.Equal(t, 20, b.Stats().ServerTransactions)
		require.EqualValues(t, sent-(20-already), b.Stats().Refused["queue"])
		require.NotEmpty(t, testkit.Value(p.next("503 OPTIONS").Message, "Retry-After"))
		look()
		require.NoError(t, p.Send(b.Addr(), p.Request(inside("BYE", 1000))))
		p.next("200 BYE")
		<-d.Done()
		time.Sleep(time.Minute) // the transactions end
	})
}

// Calls that have ended are remembered up to a number.
func TestTombstonesAreBounded(t *testing.T) {
	bounded(t, 2<<20, func(c *dialog.StackConfig) { c.Limits.Tombstones = 10 }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		b.OnIncomingDialog(func(d dialog.IDialog) {
			if err := d.Reject(context.Background(), 486, ""); err != nil {
				t.Errorf("reject: %v", err)
			}
		})
		p := w.peer("10.0.0.9")
		for i := range 100 {
			require.NoError(t, p.Send(b.Addr(), p.Request(p.invite(fmt.Sprint("busy", i)))))
			synctest.Wait()
			require.LessOrEqual(t, b.Stats().Tombstones, 10)
		}
		require.Equal(t, 10, b.Stats().Tombstones)
		look()
		time.Sleep(2 * time.Minute)
		require.Zero(t, b.Stats().Tombstones)
	})
}

// A message may have so many bytes and headers; what is longer is refused, and
// counted.
func TestSizeOfMessagesIsBounded(t *testing.T) {
	limits := func(c *dialog.StackConfig) {
		c.Limits.HeaderBytes, c.Limits.Headers, c.Limits.BodyBytes = 2000, 20, 1000
	}
	bounded(t, 2<<20, limits, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		options := func(id, body string, headers ...string) string {
			return p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: id, Body: body, Headers: headers})
		}
		for i, c := range []struct {
			status int
			text   string
		}{
			{200, options("fits", strings.Repeat("b", 1000))},
			{413, options("body", strings.Repeat("b", 1001))},
			{400, options("many", "", strings.Split(strings.Repeat("X: y,", 19)+"X: y", ",")...)},
			{400, options("long", "", "X: "+strings.Repeat("y", 2000))},
		} {
			require.NoError(t, p.Send(b.Addr(), c.text))
			require.Equal(t, c.status, p.final("OPTIONS").StatusCode, c.text)
			synctest.Wait() // counted once it is written
			require.EqualValues(t, i, b.Stats().Refused["malformed"])
		}
		for range 200 {
			require.NoError(t, p.Send(b.Addr(), options("body", strings.Repeat("b", 5000))))
		}
		synctest.Wait()
		look()
	})
}

// Connections, and handshakes that do not end, are bounded in number; calls
// over those that are there go on.
func TestConnectionsAndHandshakesAreBounded(t *testing.T) {
	ca := testcert.New(t)
	for _, transport := range []string{"tcp", "tls", "ws", "wss"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.site("10.0.0.2", transport, ca, func(c *dialog.StackConfig) {
					c.Limits.Connections, c.Limits.Handshakes, c.Limits.HandshakeTimeout = 10, 5, 5*time.Second
				})
				a := w.site("10.0.0.1", transport, ca)
				a.follows(t)
				b.follows(t)
				caller, callee := a.call(t, b.uri("bob"), b.takes(t))
				before := heap()
				for range 100 {
					conn, err := w.net.Host("10.0.0.9").DialContext(context.Background(), "tcp", b.Addr().String())
					require.NoError(t, err)
					defer func() { _ = conn.Close() }()
					go func() { _, _ = io.Copy(io.Discard, conn) }()
					synctest.Wait()
				}
				now := b.Stats()
				t.Logf("heap before %d KiB, with 100 silent clients %d KiB; refused %v", before>>10, heap()>>10, now.Refused)
				if transport == "tcp" {
					require.Equal(t, 10, now.Connections)
					require.EqualValues(t, 91, now.Refused["connections"])
				} else {
					require.Equal(t, 5, now.Handshakes)
					require.EqualValues(t, 95, now.Refused["handshakes"])
				}
				converse(t, caller, callee, true)
				time.Sleep(6 * time.Second)
				require.Zero(t, b.Stats().Handshakes)
			})
		})
	}
}

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

// silentTCP is a host whose dials by TCP are neither answered nor refused.
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

// FX7: requests of unknown calls get their response without a transaction.
func TestRequestsOfNoCallTakeNoTransaction(t *testing.T) {
	bounded(t, 2<<20, func(*dialog.StackConfig) {}, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		time.Sleep(time.Minute) // the call's own transactions end
		p := w.peer("10.0.0.9")
		for _, method := range []string{"BYE", "PRACK", "INFO", "CANCEL"} {
			ask := func(i int) dialogtest.Request {
				return dialogtest.Request{Method: method, URI: "sip:b@10.0.0.2", CallID: fmt.Sprint(method, i), ToTag: "none"}
			}
			text := p.Request(ask(-1))
			require.NoError(t, p.Send(b.Addr(), text))
			first := p.next("481 " + method)
			require.NoError(t, p.Send(b.Addr(), text))
			require.Equal(t, first.Message.String(), p.next("481 "+method).Message.String(), "the same answer to the same request")
			for i := range 1000 {
				r := ask(i)
				r.CallID += strings.Repeat("x", 30<<10)
				require.NoError(t, p.Send(b.Addr(), p.Request(r)))
				p.next("481 " + method)
				require.Zero(t, b.Stats().ServerTransactions)
			}
			look()
		}
	})
}

// FX7: what transactions hold is bounded, though there are few of them; a call in
// progress goes on.
func TestTransactionsAreBoundedInBytes(t *testing.T) {
	const most = 8 << 20
	bounded(t, most+2<<20, func(c *dialog.StackConfig) { c.Limits.TransactionBytes = most }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		_, inside := w.called(b, p, answerSDP)
		refused := 0
		for i := range 1000 {
			id := fmt.Sprint(i, strings.Repeat("x", 30<<10))
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "OPTIONS", URI: "sip:b@10.0.0.2", CallID: id})))
			if p.final("OPTIONS").StatusCode == 503 {
				refused++
			}
			require.LessOrEqual(t, b.Stats().TransactionBytes, most)
		}
		require.Greater(t, refused, 500)
		require.EqualValues(t, refused, b.Stats().Refused["queue"])
		look()
		require.Equal(t, 200, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 12)).StatusCode)
		time.Sleep(time.Minute)
		require.Zero(t, b.Stats().TransactionBytes)
	})
}
