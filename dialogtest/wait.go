package dialogtest

import (
	"time"
)

// wake lets goroutines wait for a change of the fields that a mutex guards. The same
// mutex guards the wake.
type wake struct {
	// changed is closed at the next change; nil while no goroutine waits.
	changed chan struct{}
}

// wait returns the channel that is closed at the next change.
func (w *wake) wait() <-chan struct{} {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

// all wakes all waiting goroutines.
func (w *wake) all() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// pause blocks until changed or done is closed or the deadline has come; a zero
// deadline never comes. The caller holds no mutex.
func pause(changed, done <-chan struct{}, deadline time.Time) {
	if deadline.IsZero() {
		select {
		case <-changed:
		case <-done:
		}
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
	case <-done:
	case <-timer.C:
	}
}

// sooner returns the earlier of two deadlines. A zero deadline never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// expired reports whether a deadline has been set and has come.
func expired(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}
