package mailbox

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wait fails the test if c is not closed in time.
func wait(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was delivered")
	}
}

func TestOrderOfDeliveryIsTheOrderOfTheChanges(t *testing.T) {
	var m Mailbox
	var mu sync.Mutex // the lock that guards the state
	state := 0
	var seen []int // only the mailbox touches it
	var pushers sync.WaitGroup
	for range 8 {
		pushers.Add(1)
		go func() {
			defer pushers.Done()
			for range 1000 {
				mu.Lock()
				state++
				now := state
				m.Push(func() { seen = append(seen, now) })
				mu.Unlock()
			}
		}()
	}
	pushers.Wait()
	last := make(chan struct{})
	m.Push(func() { close(last) })
	wait(t, last)
	require.Len(t, seen, 8000)
	for i, s := range seen {
		require.Equal(t, i+1, s)
	}
}

func TestOneCallAtATime(t *testing.T) {
	var m Mailbox
	var inside, overlaps, calls atomic.Int32
	var pushers sync.WaitGroup
	for range 8 {
		pushers.Add(1)
		go func() {
			defer pushers.Done()
			for range 500 {
				m.Push(func() {
					if inside.Add(1) > 1 {
						overlaps.Add(1)
					}
					runtime.Gosched()
					inside.Add(-1)
					calls.Add(1)
				})
			}
		}()
	}
	pushers.Wait()
	last := make(chan struct{})
	m.Push(func() { close(last) })
	wait(t, last)
	require.Zero(t, overlaps.Load())
	require.EqualValues(t, 4000, calls.Load())
}

func TestPanicAndGoexitCostOneCall(t *testing.T) {
	var reports []any
	m := Mailbox{Panicked: func(v any, stack []byte) {
		reports = append(reports, v)
		if len(stack) == 0 {
			reports = append(reports, "no stack")
		}
	}}
	var seen []string
	gate := make(chan struct{})
	m.Push(
		func() { <-gate; seen = append(seen, "first") },
		func() { panic("in a callback") },
		func() { seen = append(seen, "after the panic") },
		func() { runtime.Goexit() },
		func() { seen = append(seen, "after the Goexit") },
	)
	last := make(chan struct{})
	m.Push(func() { close(last) })
	close(gate)
	wait(t, last)
	require.Equal(t, []string{"first", "after the panic", "after the Goexit"}, seen)
	require.Equal(t, []any{"in a callback", ErrGoexit}, reports)
}

func TestGoexitOfTheLastCallLeavesTheMailboxUsable(t *testing.T) {
	var m Mailbox
	wait(t, m.Push(runtime.Goexit))
	done := make(chan struct{})
	m.Push(func() { close(done) }) // the old goroutine may still be leaving
	wait(t, done)
}

func TestPanickingReporterIsSurvived(t *testing.T) {
	m := Mailbox{Panicked: func(any, []byte) { panic("in the logger") }}
	last := make(chan struct{})
	m.Push(func() { panic("in a callback") }, func() { close(last) })
	wait(t, last)
}

func TestOnlyAnIdleMailboxGivesSomethingToWaitFor(t *testing.T) {
	var m Mailbox
	entered, leave := make(chan struct{}), make(chan struct{})
	first := m.Push(func() { close(entered); <-leave })
	require.NotNil(t, first)
	wait(t, entered)
	require.Nil(t, m.Push(func() {}), "a call is running: waiting for it could be waiting for oneself")
	close(leave)
	wait(t, first)
	require.Nil(t, m.Push(), "nothing to deliver, nothing to wait for")
}

func TestCallsMayPushAndWaitWithoutDeadlock(t *testing.T) {
	var m Mailbox
	last := make(chan struct{})
	wait(t, m.Push(func() {
		if c := m.Push(func() { close(last) }); c != nil {
			<-c
		}
	}))
	wait(t, last)
}

func TestReceiptIsGivenAfterAllCallsOfThePush(t *testing.T) {
	var m Mailbox
	n := 0
	wait(t, m.Push(func() { n++ }, func() { n++ }, func() { n++ }))
	require.Equal(t, 3, n)
}

func TestNothingComesAfterTheSeal(t *testing.T) {
	var m Mailbox
	var seen []string
	gate := make(chan struct{})
	m.Push(func() { <-gate })
	m.Push(func() { seen = append(seen, "before") })
	last := make(chan struct{})
	m.Seal(func() { seen = append(seen, "last"); close(last) })
	require.Nil(t, m.Push(func() { seen = append(seen, "late") }))
	require.False(t, m.Offer(func() { seen = append(seen, "late offer") }))
	require.Nil(t, m.Seal(func() { seen = append(seen, "second seal") }))
	close(gate)
	wait(t, last)
	require.Equal(t, []string{"before", "last"}, seen)
	require.EqualValues(t, 1, m.Dropped())
}

func TestOffersAreBoundAndPushesAreNot(t *testing.T) {
	m := Mailbox{Bound: 2}
	entered, gate := make(chan struct{}), make(chan struct{})
	m.Push(func() { close(entered); <-gate })
	wait(t, entered)
	require.True(t, m.Offer(func() {}))
	require.True(t, m.Offer(func() {}))
	require.False(t, m.Offer(func() {}))
	require.Equal(t, 2, m.Waiting())
	last := make(chan struct{})
	m.Push(func() { close(last) })
	require.EqualValues(t, 1, m.Dropped())
	close(gate)
	wait(t, last)
}

func TestOfferOfMoreCallsThanTheBoundIsAcceptedWhenEmpty(t *testing.T) {
	m := Mailbox{Bound: 2}
	var calls []func()
	var n atomic.Int32
	for range 5 {
		calls = append(calls, func() { n.Add(1) })
	}
	require.True(t, m.Offer(calls...))
	last := make(chan struct{})
	m.Push(func() { close(last) })
	wait(t, last)
	require.EqualValues(t, 5, n.Load())
	require.Zero(t, m.Dropped())
}

func TestRefusedGoroutineDropsAndReleases(t *testing.T) {
	m := Mailbox{Go: func(func()) bool { return false }}
	wait(t, m.Push(func() { panic("must not run") }))
	require.EqualValues(t, 1, m.Dropped())
	require.Zero(t, m.Waiting())
}

func TestIdleMailboxOwnsNoGoroutine(t *testing.T) {
	running := make(chan struct{}, 100)
	m := Mailbox{Go: func(f func()) bool {
		running <- struct{}{}
		go func() { defer func() { <-running }(); f() }()
		return true
	}}
	for range 100 {
		if c := m.Push(func() {}); c != nil {
			wait(t, c)
		}
	}
	require.Eventually(t, func() bool { return len(running) == 0 }, 10*time.Second, time.Millisecond)
}

func BenchmarkPush(b *testing.B) {
	var m Mailbox
	var n atomic.Int64
	for range b.N {
		m.Push(func() { n.Add(1) })
	}
}
