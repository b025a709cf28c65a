package transport

import (
	"sync/atomic"
	"time"
)

// instant is when something last happened. It synchronises itself, and counts from when
// the layer began: the wall clock may be set meanwhile, which moves no time.Time that
// time.Now has returned, but all those that are made of a number. The zero value is
// before anything.
type instant struct{ since atomic.Int64 }

// set records when it happened; the beginning of the layer itself is a time too.
func (i *instant) set(at, began time.Time) { i.since.Store(int64(at.Sub(began)) + 1) }

// known reports whether it has happened.
func (i *instant) known() bool { return i.since.Load() > 0 }

// time is when it last happened, and when the layer began where it has not.
func (i *instant) time(began time.Time) time.Time {
	return began.Add(time.Duration(max(0, i.since.Load()-1)))
}
