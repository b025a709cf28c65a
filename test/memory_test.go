package test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bounded runs an attack, and checks that it leaves no more than so many bytes
// behind while it lasts, and that a call made before it is alive afterwards.
func bounded(t *testing.T, most uint64, change func(*dialog.StackConfig), attack func(t *testing.T, w *world, b *dialog.Stack, look func())) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2", change)
		caller, callee := w.established(a, b)
		b.OnIncomingDialog(func(dialog.IDialog) {})
		w.deaf()
		before := heap()
		peak := before
		attack(t, w, b, func() { peak = max(peak, heap()) })
		synctest.Wait()
		stats := b.Stats()
		t.Logf("heap before %d KiB, under attack at most %d KiB, afterwards %d KiB; refused %v, dropped %v",
			before>>10, peak>>10, heap()>>10, stats.Refused, stats.Dropped)
		require.Less(t, peak, before+most)
		require.NoError(t, caller.ReInvite(context.Background(), offer(offerSDP)))
		require.NoError(t, caller.Bye(context.Background(), ""))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, callee.State())
	})
}

// deaf stops the log of the wire, which would be counted.
func (w *world) deaf() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = true
}

func TestSpoofedSourcesLeaveMemoryBounded(t *testing.T) {
	limits := func(c *dialog.StackConfig) {
		c.MaxDialogs, c.Limits.Tombstones, c.Limits.InviteRatePerSource, c.Limits.InviteRate = 100, 100, 1, 1000
	}
	bounded(t, 8<<20, limits, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		for i := range 5000 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 5060)
			w.net.Inject(from, b.Addr(), []byte(p.Request(p.invite(fmt.Sprint("spoofed", i)))))
			if i%500 == 0 {
				synctest.Wait()
			}
			if i%2500 == 2499 {
				synctest.Wait()
				look()
			}
		}
		time.Sleep(40 * time.Second) // the transactions end
	})
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestGarbageLeavesNothing(t *testing.T) {
	bounded(t, 2<<20, func(*dialog.StackConfig) {}, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		for i := range 20000 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 5060)
			w.net.Inject(from, b.Addr(), []byte(fmt.Sprintf("INVITE sip:x@y SIP/2.0\r\nnonsense %d\r\n\r\n", i)))
			if i%500 == 0 {
				synctest.Wait()
			}
			if i%2500 == 2499 {
				synctest.Wait()
				look()
			}
		}
	})
}

// A flood of requests inside a call costs no more than its queue.
func TestFloodInsideACallLeavesMemoryBounded(t *testing.T) {
	bounded(t, 8<<20, func(c *dialog.StackConfig) { c.Limits.Transactions = 1000 }, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		p := w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		stuck := make(chan struct{})
		require.NoError(t, d.OnRequest("INFO", func(ctx context.Context, _ *sip.Request) dialog.Answer { <-stuck; return dialog.Answer{} }))
		for i := range 5000 {
			w.net.Inject(p.Addr(), b.Addr(), []byte(p.Request(inside("INFO", uint32(11+i)))))
			if i%500 == 0 {
				synctest.Wait()
			}
			if i%2500 == 2499 {
				synctest.Wait()
				look()
			}
		}
		time.Sleep(40 * time.Second)
		close(stuck)
		require.NoError(t, d.Close())
		time.Sleep(time.Minute)
	})
}

func onTCP(c *dialog.StackConfig) {
	c.Listeners = []dialog.TransportConfig{{Protocol: "tcp", Address: "10.0.0.2", Port: 5060}}
	c.Limits.Connections = 200
}

// Connections that send half a message, and those that nothing is read from, are
// bounded in number, and closed in time.
func TestHalfOpenAndSlowConnectionsLeaveMemoryBounded(t *testing.T) {
	bounded(t, 16<<20, onTCP, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		host := w.net.Host("10.0.0.9")
		var conns []net.Conn
		for i := range 1000 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			conn, err := host.DialContext(ctx, "tcp", "10.0.0.2:5060")
			cancel()
			if err != nil {
				continue
			}
			conns = append(conns, conn)
			if i%2 == 0 {
				_, _ = conn.Write([]byte("INVITE sip:b@10.0.0.2 SIP/2.0\r\nVia: "))
				continue
			}
			for range 50 {
				_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = conn.Write([]byte(crlf("OPTIONS sip:b@10.0.0.2 SIP/2.0\nVia: SIP/2.0/TCP 10.0.0.9:5060;branch=z9hG4bK" + fmt.Sprint(i) + "\nFrom: <sip:a@b>;tag=1\nTo: <sip:b@c>\nCall-ID: slow" + fmt.Sprint(i) + "\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n")))
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, b.Stats().Connections, 200)
		look()
		time.Sleep(40 * time.Second)
		require.NotZero(t, b.Stats().Dropped["half messages"])
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
}
