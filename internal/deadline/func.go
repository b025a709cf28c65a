package deadline

import "time"

// Func is a deadline at which a function is called, as time.AfterFunc does.
type Func struct {
	// Set at construction.

	queue *Queue
	f     func()

	timer Timer
}

// AfterFunc calls f on a goroutine of its own when the time has passed.
func (q *Queue) AfterFunc(wait time.Duration, f func()) *Func {
	t := &Func{queue: q, f: f}
	t.Reset(wait)
	return t
}

// Expire implements Expirer.
func (t *Func) Expire(uint32) { t.f() }

// Reset has f called when the time has passed from now on, whether it waits still or not.
func (t *Func) Reset(wait time.Duration) { t.queue.Set(&t.timer, wait, t, 0) }

// Stop takes the call back, unless it has begun. It may be called on nil.
func (t *Func) Stop() {
	if t != nil {
		t.queue.Stop(&t.timer)
	}
}
