package storewriter_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/tasks"
)

// model is a store, and a call that is written to it, whose state is a number.
type model struct {
	t     *testing.T
	group *storewriter.Group
	tasks tasks.Group
	stop  context.CancelFunc

	reading func() // precedes what a Save reads, if set

	mu      sync.Mutex // guards the fields below
	fence   uint64     // that was taken last
	now     int        // the call
	kept    int        // what the store has of it
	ops     []string
	results []storewriter.Result // of the next operations; then Done
	takes   time.Duration        // an operation
	asking  int
	moved   int
}

func newModel(t *testing.T) *model {
	m := &model{t: t}
	base, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.group = &storewriter.Group{Store: m, Go: m.tasks.Go, Run: m.tasks.Run, Base: base}
	return m
}

func (m *model) close() {
	m.group.Close()
	m.stop()
	m.tasks.Close()
	m.tasks.Wait(context.Background())
	require.Zero(m.t, m.group.Waiting())
}

func (m *model) do(ctx context.Context, op string, done func()) storewriter.Result {
	m.mu.Lock()
	m.asking++
	require.Equal(m.t, 1, m.asking, "one operation at a time")
	m.ops = append(m.ops, op)
	result := storewriter.Done
	if len(m.results) > 0 {
		result, m.results = m.results[0], m.results[1:]
	}
	takes := m.takes
	m.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		result = storewriter.Unknown
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asking--
	if result == storewriter.Done {
		done()
	}
	return result
}

func (m *model) Save(ctx context.Context, _ uint64) storewriter.Result {
	if m.reading != nil {
		m.reading()
	}
	m.mu.Lock()
	now := m.now
	m.mu.Unlock()
	return m.do(ctx, "save", func() { m.kept = now })
}

func (m *model) Drop(ctx context.Context, _ storewriter.Key, _ uint64) storewriter.Result {
	return m.do(ctx, "drop", func() { m.kept = 0 })
}

func (m *model) Take(ctx context.Context, _ storewriter.Key) (fence uint64, result storewriter.Result) {
	result = m.do(ctx, "take", func() { m.fence++; fence = m.fence })
	return fence, result
}

func (m *model) Check(ctx context.Context, _ storewriter.Key, _ uint64) storewriter.Result {
	return m.do(ctx, "check", func() {})
}

func (m *model) Saved() {}

func (m *model) Moved() { m.mu.Lock(); defer m.mu.Unlock(); m.moved++ }

// changes the call, and says so.
func (m *model) changes(w *storewriter.Writer) {
	m.mu.Lock()
	m.now++
	m.mu.Unlock()
	w.Mark()
}

func (m *model) answers(results ...storewriter.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results = results
}

// did returns the operations since the last did.
func (m *model) did() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	did := m.ops
	m.ops = nil
	return did
}

func (m *model) has() int { m.mu.Lock(); defer m.mu.Unlock(); return m.kept }

func modelled(t *testing.T, test func(t *testing.T, m *model, w *storewriter.Writer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t)
		defer m.close()
		test(t, m, m.group.NewCall(storewriter.Key{1}, m))
	})
}

// Changes that come while one is being saved are saved together, as they are then.
func TestChangesCoalesce(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.takes = time.Second
		m.changes(w)
		time.Sleep(time.Millisecond)
		for range 100 {
			m.changes(w)
		}
		require.Equal(t, storewriter.Done, w.Wait(context.Background()))
		require.Equal(t, 101, m.has())
		require.Equal(t, []string{"save", "save"}, m.did())
	})
}

// A change between the begin of a Save and its reading of the call is in it: who waits for that
// change waits for one Save, not for two.
func TestWhatASaveReadsIsSaved(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.takes = time.Second
		begun, changed := make(chan struct{}), make(chan struct{})
		m.reading = func() {
			close(begun)
			<-changed
			w.Reading()
		}
		m.changes(w)
		<-begun
		m.changes(w)
		close(changed)
		require.Equal(t, storewriter.Done, w.Wait(context.Background()))
		require.Equal(t, 2, m.has())
		synctest.Wait()
		require.Equal(t, []string{"save"}, m.did())
	})
}

// Wait is for the changes before it, not for those that follow.
func TestWaitIsForEarlierChanges(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.takes = time.Second
		m.changes(w)
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		go func() { time.Sleep(time.Millisecond); m.changes(w) }()
		require.Equal(t, storewriter.Done, w.Wait(context.Background()))
		require.Equal(t, 500*time.Millisecond, time.Since(began))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		require.Equal(t, storewriter.Unknown, w.Wait(ctx))
	})
}

// A store that does not answer is asked again after 100 ms, then less often, and at least
// every 5 s; what is saved in the end is the latest.
func TestFailuresAreTriedAgain(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.answers(slices.Repeat([]storewriter.Result{storewriter.Unknown}, 20)...)
		m.changes(w)
		var times []time.Duration
		began := time.Now()
		for len(times) < 21 {
			time.Sleep(time.Millisecond)
			if len(m.did()) > 0 {
				times = append(times, time.Since(began))
				m.changes(w)
			}
		}
		require.Less(t, times[1], 110*time.Millisecond)
		for i := 8; i < len(times); i++ {
			require.LessOrEqual(t, times[i]-times[i-1], 5*time.Second)
			require.GreaterOrEqual(t, times[i]-times[i-1], 2*time.Second)
		}
		require.Equal(t, storewriter.Done, w.Wait(context.Background()))
		require.Equal(t, m.now, m.has())
		require.Equal(t, uint64(20), m.group.Failures())
	})
}

// The end of a call is told after the Save that is being done, whatever became of it, and
// not at all if nothing was ever saved.
func TestDropFollowsTheLastSave(t *testing.T) {
	for _, result := range []storewriter.Result{storewriter.Done, storewriter.Unknown} {
		modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
			m.takes = time.Second
			m.answers(result)
			m.changes(w)
			time.Sleep(time.Millisecond)
			w.Drop(false)
			w.Drop(false)
			w.Mark()
			require.Equal(t, 1, m.group.Waiting())
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, []string{"save", "drop"}, m.did())
			require.Zero(t, m.has())
		})
	}
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		w.Drop(false)
		w.Mark()
		synctest.Wait()
		require.Empty(t, m.did())
	})
}

// A call that another process has taken is reported once, and not written any more.
func TestMovedCallIsNotWritten(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.answers(storewriter.Done, storewriter.Moved)
		m.changes(w)
		synctest.Wait()
		m.changes(w)
		require.Equal(t, storewriter.Moved, w.Wait(context.Background()))
		synctest.Wait()
		require.Equal(t, 1, m.moved)
		m.did()
		m.changes(w)
		w.Drop(false)
		require.Equal(t, storewriter.Moved, w.Confirm(context.Background(), time.Hour))
		synctest.Wait()
		require.Empty(t, m.did())
		require.Equal(t, 1, m.moved)
	})
}

// A call that its peer has ended goes from the store even if another process has taken it
// meanwhile, several times, and though the store fails between; any other call is left to
// that process.
func TestCallEndedByItsPeerIsDroppedFromAnyOwner(t *testing.T) {
	const done, unknown, moved = storewriter.Done, storewriter.Unknown, storewriter.Moved
	for _, one := range []struct {
		certain bool
		answers []storewriter.Result // from the Drop on
		did     []string
		left    bool
	}{
		{true, []storewriter.Result{moved}, []string{"drop", "take", "drop"}, false},
		{true, []storewriter.Result{moved, done, moved, done}, []string{"drop", "take", "drop", "take", "drop"}, false},
		{true, []storewriter.Result{moved, unknown}, []string{"drop", "take", "drop"}, false},
		{true, []storewriter.Result{moved, storewriter.NotKept}, []string{"drop", "take"}, true},
		{true, []storewriter.Result{moved, moved}, []string{"drop", "take"}, true},
		{false, []storewriter.Result{moved}, []string{"drop"}, true},
	} {
		modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
			m.fence = 1
			m.changes(w)
			synctest.Wait()
			m.did()
			m.answers(one.answers...)
			w.Drop(one.certain)
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, one.did, m.did())
			require.Equal(t, one.left, m.has() != 0)
			require.Zero(t, m.moved)
		})
	}
}

// The store is asked whose the call is only if it has not said so lately. What it has lost is
// saved again.
func TestConfirm(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.changes(w)
		synctest.Wait()
		confirm := func(want storewriter.Result, did ...string) {
			t.Helper()
			require.Equal(t, want, w.Confirm(context.Background(), time.Minute))
			synctest.Wait()
			require.Equal(t, did, m.did())
		}
		m.did()
		confirm(storewriter.Done)
		time.Sleep(2 * time.Minute)
		require.False(t, w.IsConfirmed(time.Minute))
		confirm(storewriter.Done, "check")
		require.True(t, w.IsConfirmed(time.Minute))
		confirm(storewriter.Done)
		time.Sleep(2 * time.Minute)
		m.answers(storewriter.NotKept)
		confirm(storewriter.Done, "check", "save")
		time.Sleep(2 * time.Minute)
		m.answers(storewriter.Unknown)
		confirm(storewriter.Unknown, "check")
		m.answers(storewriter.Moved)
		confirm(storewriter.Moved, "check")
		require.Equal(t, 1, m.moved)
	})
}

// dropAll is Drop of each.
func (m *model) dropAll(ctx context.Context, calls []storewriter.Dropped) (results []storewriter.Result) {
	for range calls {
		results = append(results, m.Drop(ctx, storewriter.Key{}, 0))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ops = append(m.ops, "round")
	return results
}

// A call that ends alone is dropped at once; of many that end, those of 20 ms are dropped
// together, and all of them in the end.
func TestCallsThatEndAreDroppedTogether(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.group.DropAll = m.dropAll
		ends := func() {
			w := m.group.NewCall(storewriter.Key{2}, m)
			m.changes(w)
			require.Equal(t, storewriter.Done, w.Wait(context.Background()))
			synctest.Wait() // else the goroutine of the Save may drop it as well
			w.Drop(false)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		ends()
		require.Equal(t, []string{"save", "drop", "round"}, m.did(), "at once")
		for range 10 {
			time.Sleep(time.Millisecond)
			ends()
		}
		require.Equal(t, slices.Repeat([]string{"save"}, 10), m.did())
		require.Equal(t, 10, m.group.Waiting())
		began := time.Now()
		require.Zero(t, m.group.Wait(context.Background()))
		require.LessOrEqual(t, time.Since(began), 20*time.Millisecond)
		require.Equal(t, append(slices.Repeat([]string{"drop"}, 10), "round"), m.did())
		time.Sleep(time.Second)
		ends()
		require.Equal(t, []string{"save", "drop", "round"}, m.did())
		ends()
		m.group.Close()
		require.Zero(t, m.group.Waiting(), "those that wait are forgotten at the end")
		ends()
	})
}

// What the store does not answer is dropped again later, and what another process has is taken
// from it, as if it had been asked alone. So is what a store leaves out, or one that ends the
// goroutine.
func TestRoundThatFails(t *testing.T) {
	for _, certain := range []bool{false, true} {
		modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
			m.group.DropAll = m.dropAll
			m.fence = 1
			m.changes(w)
			synctest.Wait()
			m.did()
			m.answers(storewriter.Unknown, storewriter.Moved, storewriter.Moved)
			w.Drop(certain)
			synctest.Wait()
			require.Equal(t, []string{"drop", "round"}, m.did())
			require.Equal(t, uint64(1), m.group.Failures())
			require.Zero(t, m.group.Wait(context.Background()))
			if certain {
				require.Equal(t, []string{"drop", "take"}, m.did())
			} else {
				require.Equal(t, []string{"drop"}, m.did())
			}
		})
	}
	for _, dropAll := range []func(context.Context, []storewriter.Dropped) []storewriter.Result{
		func(context.Context, []storewriter.Dropped) []storewriter.Result { return nil },
		func(context.Context, []storewriter.Dropped) []storewriter.Result { runtime.Goexit(); return nil },
	} {
		modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
			m.group.DropAll = dropAll
			m.changes(w)
			synctest.Wait()
			w.Drop(false)
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, []string{"save", "drop"}, m.did())
		})
	}
}

// A prompt store is asked by the goroutine that waits, once; another one is not: it might not
// return.
func TestWaitSavesItself(t *testing.T) {
	for _, isPrompt := range []bool{true, false} {
		modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
			m.group.IsPrompt = isPrompt
			var began int
			m.group.Go = func(f func()) bool { began++; return m.tasks.Go(f) }
			notes := func() { m.mu.Lock(); m.now++; m.mu.Unlock(); w.Note() }
			m.takes = 100 * time.Millisecond
			notes()
			synctest.Wait()
			require.Empty(t, m.did(), "it is for Wait to begin")
			require.Equal(t, storewriter.Done, w.Wait(context.Background()))
			require.Equal(t, []string{"save"}, m.did())
			require.Equal(t, isPrompt, began == 0)
			notes() // what comes meanwhile is another's
			go func() { time.Sleep(time.Millisecond); m.changes(w) }()
			require.Equal(t, storewriter.Done, w.Wait(context.Background()))
			synctest.Wait()
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, []string{"save", "save"}, m.did())
			require.Equal(t, m.now, m.has())
			m.takes = time.Minute // as long as the context allows
			notes()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			asked := time.Now()
			require.Equal(t, storewriter.Unknown, w.Wait(ctx))
			require.Equal(t, time.Second, time.Since(asked))
			require.True(t, m.group.IsDown())
			m.mu.Lock()
			m.takes = 0
			m.mu.Unlock()
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, m.now, m.has())
		})
	}
}

// A store that ends the goroutine has not answered: the call is saved all the same.
func TestStoreThatEndsTheGoroutine(t *testing.T) {
	for _, note := range []bool{true, false} {
		modelled(t, func(t *testing.T, m *model, _ *storewriter.Writer) {
			m.group.IsPrompt = true
			w := m.group.NewCall(storewriter.Key{3}, &leaves{model: m})
			done := make(chan struct{})
			go func() {
				defer close(done)
				if note {
					w.Note()
				} else {
					m.changes(w)
				}
				w.Wait(context.Background())
			}()
			<-done
			require.Zero(t, m.group.Wait(context.Background()))
			require.Equal(t, []string{"save"}, m.did())
		})
	}
}

// leaves ends the goroutine of the first Save.
type leaves struct {
	*model
	once sync.Once
}

func (l *leaves) Save(ctx context.Context, fence uint64) storewriter.Result {
	l.once.Do(runtime.Goexit)
	return l.model.Save(ctx, fence)
}

// Once the process ends nothing more is begun, and nothing waits for it.
func TestNothingIsBegunAtTheEnd(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.group.IsPrompt = true
		m.tasks.Close()
		w.Note()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.Equal(t, storewriter.Unknown, w.Wait(ctx))
		require.Empty(t, m.did())
		require.Zero(t, m.group.Waiting())
	})
}

// Close leaves nothing behind: neither a timer nor a goroutine.
func TestCloseEndsThePauses(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.answers(slices.Repeat([]storewriter.Result{storewriter.Unknown}, 100)...)
		m.changes(w)
		time.Sleep(time.Second)
		m.group.Close()
		require.Zero(t, m.group.Waiting())
		m.did()
		time.Sleep(time.Minute)
		require.Empty(t, m.did())
	})
}

// A Writer that is released writes nothing; nil is a Writer of no store.
func TestReleasedAndNoWriter(t *testing.T) {
	modelled(t, func(t *testing.T, m *model, w *storewriter.Writer) {
		m.changes(w)
		synctest.Wait()
		w.Release()
		m.did()
		m.changes(w)
		w.Drop(false)
		synctest.Wait()
		require.Empty(t, m.did())
	})
	var w *storewriter.Writer
	w.Mark()
	w.Drop(false)
	w.Release()
	require.Zero(t, w.Fence())
	require.Equal(t, storewriter.Done, w.Wait(context.Background()))
	require.Equal(t, storewriter.Done, w.Confirm(context.Background(), 0))
	require.True(t, w.IsConfirmed(0))
}
