package test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/internal/testkit"
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

// FX12: the bytes sent for each byte of a request with a forged source, whose responses get no
// answer, at the default timers and with a request as short as possible. docs/security.md has
// these figures.
func TestAmplificationIsAsDocumented(t *testing.T) {
	ctx := context.Background()
	body := dialog.WithBody(dialog.NewBody("application/sdp", []byte(answerSDP)))
	for _, c := range []struct {
		name, method, supported string
		take                    func(dialog.IDialog)
		messages, factor        int // at most
	}{
		{"OPTIONS", "OPTIONS", "", nil, 1, 3},
		{"reject", "INVITE", "", func(d dialog.IDialog) { _ = d.Reject(ctx, 486, "") }, 13, 18},
		{"ring until RingingLimit", "INVITE", "", func(dialog.IDialog) {}, 16, 25}, // the third minute ends with RingingLimit,
		{"reliable 183", "INVITE", "k:100rel", func(d dialog.IDialog) {
			_ = d.(*dialog.Dialog).Provisional(ctx, 183, "", body)
		}, 20, 42},
		{"accept", "INVITE", "", func(d dialog.IDialog) { _ = d.Accept(ctx, body) }, 24, 68},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP)
				b.OnIncomingDialog(c.take)
				request := shortest(c.method, c.supported)
				p := w.peer(peerIP)
				require.NoError(t, p.Send(b.Addr(), request))
				time.Sleep(10 * time.Minute)
				out, messages := w.bytesFrom(stackIP)
				factor := float64(out) / float64(len(request))
				t.Logf("%d bytes in, %d out in %d messages: %.1f", len(request), out, messages, factor)
				require.LessOrEqual(t, messages, c.messages)
				require.LessOrEqual(t, factor, float64(c.factor))
			})
		})
	}
}

// shortest is a request as short as possible.
func shortest(method, header string) string {
	if header != "" {
		header += "\r\n"
	}
	return method + " sip:" + stackIP + " SIP/2.0\r\nv:SIP/2.0/UDP " + peerIP + ";branch=z9hG4bK1\r\nf:<sip:a>;tag=1\r\n" +
		"t:<sip:b>\r\ni:1\r\nCSeq:1 " + method + "\r\nm:<sip:" + peerIP + ">\r\n" + header + "\r\n"
}

// bytesFrom counts what a host has sent.
func (w *world) bytesFrom(ip string) (bytes, messages int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.log {
		if m.from.Addr().String() == ip {
			bytes += len(m.raw)
			messages++
		}
	}
	return bytes, messages
}

// congested is a link that loses one in five, and delays the rest.
var congested = dialogtest.Congestion{Loss: 0.2, Jitter: 100 * time.Millisecond, Reorder: 0.05, Seed: 12}

// Over a congested link every call is whole: set up, held, resumed, and ended at both
// ends. The times are in docs/performance.md.
func TestCallsOverACongestedLinkAreWhole(t *testing.T) {
	const calls, pace = 200, 100 * time.Millisecond
	ca := testcert.New(t)
	for _, transport := range []string{"udp", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.net.Window = 4 << 20 // as Linux lets a connection's grow: all calls share one
				w.net.SetPolicy(sparing(congested.Datagrams()))
				w.net.SetStreamPolicy(congested.Streams())
				from, to := w.site("10.0.0.1", transport, ca), w.site("10.0.0.2", transport, ca)
				callees := make(chan *dialog.Dialog, calls+1)
				to.OnIncomingDialog(func(d dialog.IDialog) {
					callees <- d.(*dialog.Dialog)
					_ = d.Accept(context.Background(), withSDP(answerSDP))
				})
				results := make(chan wholeCall, calls)
				for range calls {
					go func() { results <- from.wholeCall(to) }()
					time.Sleep(pace)
				}
				var setUps []time.Duration
				for range calls {
					result := <-results
					require.NoError(t, result.err)
					setUps = append(setUps, result.setUp)
				}
				for range calls {
					callee := <-callees
					<-callee.Done()
					require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, callee.Cause())
				}
				time.Sleep(time.Minute) // what was repeated is forgotten
				require.Empty(t, callees, "half a call")
				for _, s := range []*site{from, to} {
					stats := s.Stats()
					require.Zero(t, stats.Dialogs+stats.Releasing+stats.ClientTransactions+stats.ServerTransactions)
				}
				slices.Sort(setUps)
				t.Logf("set-up over %s: p50 %s, p99 %s", transport,
					setUps[calls/2].Round(time.Millisecond), setUps[calls*99/100].Round(time.Millisecond))
			})
		})
	}
}

// wholeCall is how long a call took to be set up, and what went wrong in it.
type wholeCall struct {
	setUp time.Duration
	err   error
}

// wholeCall calls, holds, resumes, talks a while and hangs up.
func (s *site) wholeCall(to *site) (result wholeCall) {
	ctx := context.Background()
	began := time.Now()
	d, err := s.NewInvite(ctx, testkit.URIOver(to.transport, "bob", to.Addr()), offer(offerSDP))
	if err != nil {
		return wholeCall{err: err}
	}
	call := d.(*dialog.Dialog)
	if err := call.WaitAnswer(ctx); err != nil {
		return wholeCall{err: fmt.Errorf("after %s: %w", time.Since(began), err)}
	}
	result.setUp = time.Since(began)
	for _, step := range []func(context.Context) error{call.Hold, call.Resume} {
		if err := step(ctx); err != nil {
			return wholeCall{err: err}
		}
		time.Sleep(10 * time.Second)
	}
	result.err = call.Bye(ctx, "")
	return result
}

// sparing loses no datagram more than five times. By chance all seven of an INVITE are
// lost in one run of a hundred; it is then the caller's right to give up.
func sparing(policy func(dialogtest.Packet) []time.Duration) func(dialogtest.Packet) []time.Duration {
	const most = 5
	var mu sync.Mutex // guards lost
	lost := make(map[string]int)
	return func(p dialogtest.Packet) []time.Duration {
		delays := policy(p)
		mu.Lock()
		defer mu.Unlock()
		if lost[string(p.Data)]++; len(delays) > 0 || lost[string(p.Data)] > most {
			delete(lost, string(p.Data))
			return append(delays, 0)[:1]
		}
		return nil
	}
}
