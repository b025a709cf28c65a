package test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
)

// What one Call-ID may have waiting is bounded; what ends the call is taken all
// the same.
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
		require.NotEmpty(t, value(refusal.Message, "Retry-After"))
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
		require.NotEmpty(t, value(p.next("503 OPTIONS").Message, "Retry-After"))
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
