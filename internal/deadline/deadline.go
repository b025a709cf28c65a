// Package deadline has many deadlines share one timer of the runtime: one for each would
// cost an object and two closures, for what mostly never happens.
package deadline

import (
	"container/heap"
	"sync"
	"time"
)

// Expirer is called when its deadline has come, on a goroutine of its own. tag is that of
// [Queue.Set]: it identifies a deadline that was moved or stopped meanwhile.
type Expirer interface{ Expire(tag uint32) }

// Timer is one deadline. The zero value is one that is not set. It must not be copied while
// it is set; the queue's mutex guards it.
type Timer struct {
	who Expirer
	at  time.Duration // since the queue was made
	tag uint32
	pos int32 // in the heap, and one; zero when it is not set
}

// Queue is the deadlines that are set, the next one first. It owns no goroutine, and no
// timer runs while it is empty. Its methods may be called from any goroutine, with locks
// held. Make it with New.
type Queue struct {
	// Set at construction.

	began time.Time
	run   func()

	mu sync.Mutex // guards the fields below; innermost

	waiting timers
	timer   *time.Timer   // nil before the first
	rings   time.Duration // when it fires, or when what it would run was begun for
}

// New returns an empty queue. Calls of Expirers run within run: see tasks.Group.Run.
func New(run func(func()) bool) *Queue {
	q := &Queue{began: time.Now(), rings: never}
	q.run = func() { run(q.expire) }
	return q
}

// Set sets a deadline, or moves it.
func (q *Queue) Set(t *Timer, wait time.Duration, who Expirer, tag uint32) {
	now := time.Since(q.began)
	q.mu.Lock()
	defer q.mu.Unlock()
	t.at, t.who, t.tag = now+wait, who, tag
	if t.pos > 0 {
		heap.Fix(&q.waiting, int(t.pos-1))
	} else {
		heap.Push(&q.waiting, t)
	}
	q.armLocked(now)
}

// Stop cancels a deadline; it does nothing if none is set. A call that has begun
// continues.
func (q *Queue) Stop(t *Timer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.pos > 0 {
		heap.Remove(&q.waiting, int(t.pos-1))
		q.armLocked(-1)
	}
}

// Len is how many deadlines are set.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// armLocked has the timer fire at the first deadline. now may be negative: not looked at
// yet. What is due is begun without the timer: in a bubble of testing/synctest a timer of no
// time runs on this very thread, which the race detector of Go 1.26 does not survive.
func (q *Queue) armLocked(now time.Duration) {
	if len(q.waiting) == 0 {
		if q.timer != nil && q.rings >= 0 {
			q.timer.Stop()
		}
		q.rings = never
		return
	}
	first := q.waiting[0].at
	if q.rings == first {
		return
	}
	if now < 0 {
		now = time.Since(q.began)
	}
	q.rings = first
	switch {
	case first <= now:
		go q.run()
	case q.timer == nil:
		q.timer = time.AfterFunc(first-now, q.run)
	default:
		q.timer.Reset(first - now)
	}
}

// never is when a timer that does not run fires.
const never = time.Duration(-1)

// expire calls the Expirer whose deadline has come. If the next one is due, its goroutine has
// been started by then: an Expirer that blocks delays no other.
func (q *Queue) expire() {
	if who, tag := q.due(); who != nil {
		who.Expire(tag)
	}
}

func (q *Queue) due() (Expirer, uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Since(q.began)
	q.rings = never
	defer q.armLocked(now)
	if len(q.waiting) == 0 || q.waiting[0].at > now {
		return nil, 0
	}
	t := heap.Pop(&q.waiting).(*Timer)
	who := t.who
	t.who = nil
	return who, t.tag
}

// timers is a heap.
type timers []*Timer

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at < h[j].at }

func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = int32(i+1), int32(j+1)
}

func (h *timers) Push(t any) {
	*h = append(*h, t.(*Timer))
	t.(*Timer).pos = int32(len(*h))
}

func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.pos = 0
	return t
}
