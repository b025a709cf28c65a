package deadline

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func direct(f func()) bool { f(); return true }

// noting notes when it was told, and by which tag.
type noting struct {
	began time.Time
	mu    sync.Mutex // guards the fields below
	at    []time.Duration
	tags  []uint32
}

func (n *noting) Expire(tag uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at, n.tags = append(n.at, time.Since(n.began)), append(n.tags, tag)
}

// Each is told in its time, once, as it was set last, and not at all once it is stopped.
func TestDeadlinesComeInTheirTime(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			q, began := New(direct), time.Now()
			var timers [20]Timer
			var told [20]noting
			want := make(map[int]time.Duration)
			var got [20][]time.Duration
			for step := range uint32(200) {
				i := rnd.IntN(len(timers))
				if rnd.IntN(3) == 0 {
					q.Stop(&timers[i])
					delete(want, i)
				} else {
					wait := time.Duration(rnd.IntN(40)) * time.Second
					told[i].began = began
					q.Set(&timers[i], wait, &told[i], step)
					want[i] = time.Since(began) + wait
				}
				time.Sleep(time.Duration(rnd.IntN(3)) * time.Second)
				synctest.Wait()
				for i, at := range want {
					if at <= time.Since(began) {
						got[i] = append(got[i], at)
						delete(want, i)
					}
				}
				require.Equal(t, len(want), q.Len())
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			for i, at := range want {
				got[i] = append(got[i], at)
			}
			for i := range timers {
				require.Equal(t, got[i], told[i].at, i)
			}
			require.Zero(t, q.Len())
		})
	}
}

// blocked waits.
type blocked chan struct{}

func (b blocked) Expire(uint32) { <-b }

// One that waits for something delays no other.
func TestOneThatWaitsDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(direct)
		b, told := make(blocked), &noting{began: time.Now()}
		var timers [5]Timer
		q.Set(&timers[0], time.Second, b, 0)
		for i := 1; i < len(timers); i++ {
			q.Set(&timers[i], time.Second, told, uint32(i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, told.at, 4)
		close(b)
	})
}

// Nothing runs for deadlines that were taken back: a timer that fires to no purpose wakes
// the processor.
func TestNoTimerFiresForADeadlineThatWasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fired atomic.Int32
		q := New(func(f func()) bool { fired.Add(1); f(); return true })
		var first, second Timer
		told := &noting{began: time.Now()}
		q.Set(&first, time.Second, told, 1)
		q.Set(&second, time.Minute, told, 2)
		q.Stop(&first)
		q.Stop(&first)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Zero(t, fired.Load())
		q.Stop(&second)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, fired.Load())
		q.Set(&second, time.Second, told, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, int32(1), fired.Load())
		require.Equal(t, []uint32{3}, told.tags)
	})
}

// Setting and stopping takes no memory.
func TestADeadlineTakesNoMemory(t *testing.T) {
	q := New(direct)
	var timers [8]Timer
	told := &noting{}
	round := func() {
		for i := range timers {
			q.Set(&timers[i], time.Hour-time.Duration(i), told, 0)
		}
		for i := range timers {
			q.Stop(&timers[i])
		}
	}
	round()
	require.Zero(t, testing.AllocsPerRun(100, round))
}

func TestDeadlinesAreSetAndStoppedByMany(t *testing.T) {
	q := New(direct)
	var running sync.WaitGroup
	for g := range 4 {
		running.Go(func() {
			var timer Timer
			for i := range 3000 {
				q.Set(&timer, time.Duration((i*g)%7)*10*time.Microsecond, &noting{}, 0)
				if i%2 == 0 {
					q.Stop(&timer)
				}
			}
			q.Stop(&timer)
		})
	}
	running.Wait()
	require.Zero(t, q.Len())
}

// Deadlines without a wait are told at once, in a bubble with many queues too: timers of no
// time would end the process there, with the race detector of Go 1.26.
func TestNoWaitIsToldAtOnce(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			told := noting{began: time.Now()}
			var setters sync.WaitGroup
			for range 8 {
				setters.Go(func() {
					q := New(direct)
					for range 50 {
						q.Set(&Timer{}, 0, &told, 0)
					}
				})
			}
			setters.Wait()
			synctest.Wait()
			require.Equal(t, make([]time.Duration, 400), told.at)
		})
	}
}
