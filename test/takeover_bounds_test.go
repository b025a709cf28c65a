package test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/store/memory"
)

// Anybody can send requests with random tags. In no second the store is asked for more than
// allowed, calls are not affected, and nothing is left of it.
func TestFloodOfUnknownCallsIsBoundedAtTheStore(t *testing.T) {
	const rate, perSecond, seconds = 100, 10_000, 3
	k := newLink(memory.New())
	var mu sync.Mutex
	var takes []time.Time
	k.meets(func(ctx context.Context, operation string) error {
		if operation == "Peek" {
			time.Sleep(5 * time.Millisecond) // a round trip
			mu.Lock()
			defer mu.Unlock()
			takes = append(takes, time.Now())
		}
		return nil
	})
	limits := func(c *dialog.StackConfig) { c.Store, c.Limits.TakesPerSecond, c.Limits.Transactions = k, rate, 1000 }
	bounded(t, 12<<20, limits, func(t *testing.T, w *world, b *dialog.Stack, look func()) {
		caller := w.stacks[0].Dialogs()[0]
		p := w.peer("10.0.0.9")
		methods := []string{"BYE", "INFO", "INVITE", "UPDATE", "NOTIFY"}
		for i := range perSecond * seconds {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 5060)
			w.net.Inject(from, b.Addr(), []byte(p.Request(dialogtest.Request{
				Method: methods[i%len(methods)], URI: "sip:x@" + b.Addr().String(), FromTag: "a", ToTag: fmt.Sprint("random", i), CallID: fmt.Sprint("flood", i), CSeq: 2,
			})))
			if i%100 == 99 {
				time.Sleep(10 * time.Millisecond)
			}
			if i%2500 == 0 {
				require.NoError(t, caller.SendInfo(context.Background(), nil))
			}
			if i%10_000 == 9999 {
				look()
			}
		}
		time.Sleep(40 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(takes), rate*(seconds-1))
		slices.SortFunc(takes, time.Time.Compare)
		for i := rate; i < len(takes); i++ {
			require.GreaterOrEqual(t, takes[i].Sub(takes[i-rate]), 990*time.Millisecond, "%d in one second", rate+1)
		}
		require.NotZero(t, b.Stats().Refused["takeovers"])
		require.Zero(t, testkit.Held(b).Tasks)
	})
}

// A former owner ends its call, and sends nothing: at once if the store tells it, else when it
// reviews its calls.
func TestFormerOwnerLearnsThatItsCallHasMoved(t *testing.T) {
	for name, c := range map[string]struct {
		wrap    func(k *link) dialog.Store
		longest time.Duration
	}{
		"a notice": {func(k *link) dialog.Store { return k }, time.Second},
		"a review": {func(k *link) dialog.Store { return struct{ dialog.Store }{k} }, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				k := newLink(store)
				s := w.stack(stackIP, func(c2 *dialog.StackConfig) { c2.Store = c.wrap(k) })
				p := w.peer(peerIP)
				l := w.incoming(s, p)
				stays := w.incoming(s, w.peer(proxyIP))
				other, _ := w.process(otherIP, store)
				l.stack = other.Addr()
				l.theirs("INFO", 200)
				began := time.Now()
				<-l.d.Done()
				require.LessOrEqual(t, time.Since(began), c.longest)
				require.Equal(t, dialog.PartyMoved, l.d.Cause().By)
				require.Len(t, w.sent(stackIP, "BYE"), 0)
				synctest.Wait()
				require.Equal(t, stays.d, oneCall(t, s))
				l.d = oneCall(t, other)
				l.theirs("INFO", 200)

				l.stack = s.Addr() // and back again
				l.theirs("INFO", 200)
				require.Len(t, s.Dialogs(), 2)
				l.theirs("BYE", 200)
				hangUp(t, stays.d, stays.peer)
				time.Sleep(6 * time.Minute)
				require.Empty(t, other.Dialogs())
				require.Zero(t, store.Len())
			})
		})
	}
}

// A store that has lost its calls has them again from those who have them.
func TestStoreThatWasEmptiedIsFilledAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := memory.New()
		s, k := w.process(stackIP, store)
		p := w.peer(peerIP)
		l := w.incoming(s, p)
		synctest.Wait()
		k.mu.Lock()
		k.Store = memory.New() // killed, and started anew
		store = k.Store
		k.mu.Unlock()
		time.Sleep(5 * time.Minute)
		require.Equal(t, 1, store.Len())
		_, _ = l.failsOver(k, store)
		l.theirs("INFO", 200)
	})
}

// A process whose session is overdue, since its refresh fails, takes its own call from the
// store like another one would: it keeps it, and there is one dialog.
func TestOwnOverdueCallIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const interval = 30 * time.Minute
		store := memory.New()
		s, k := w.process(stackIP, store)
		taken := restoring(s)
		p := w.peer(peerIP)
		l := w.withTimer(s, p, "callee", interval, true)
		refused := time.Now().Add(interval*5/8 + time.Minute)
		go func() {
			for {
				in, err := p.Recv(context.Background())
				if err != nil {
					return
				}
				switch r := grants(interval); {
				case in.Request() == nil:
				case in.Request().Method == "UPDATE" && time.Now().Before(refused):
					_ = p.Reply(in, dialogtest.Response{Code: 503})
				case in.Request().Method == "UPDATE":
					_ = p.Reply(in, r)
				default:
					_ = p.Reply(in, dialogtest.Response{Code: 200})
				}
			}
		}()
		time.Sleep(2 * interval)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Empty(t, taken.all())
		require.Equal(t, l.d, oneCall(t, s))
		require.NotZero(t, k.calls("DueIf"))
		require.NoError(t, l.d.Close())
		time.Sleep(time.Second)
		require.Zero(t, store.Len())
	})
}

// A stack with a Store and without a session timer says so once.
func TestStoreWithoutASessionTimerIsWarnedOf(t *testing.T) {
	for interval, want := range map[time.Duration]int{0: 1, time.Hour: 0} {
		bubble(t, func(t *testing.T, w *world) {
			var lines lineCount
			w.process(stackIP, memory.New(), func(c *dialog.StackConfig) {
				c.SessionExpires, c.Slog = interval, slog.New(slog.NewTextHandler(&lines, nil))
			})
			time.Sleep(time.Minute)
			require.Equal(t, want, lines.n())
		})
	}
}

// lineCount counts what is written.
type lineCount struct {
	mu sync.Mutex
	of int
}

func (c *lineCount) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of++
	return len(b), nil
}

func (c *lineCount) n() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of
}
