package registry

import (
	"time"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/tombstone"
)

// AddTombstone remembers for a time, the same for all, that a call of that key has ended, and the
// PRACK that it still expects.
func (r *Of[K, D]) AddTombstone(now time.Time, life time.Duration, key K, expected rel100.RAck) {
	r.ended.Add(now, life, tombstone.Key(key), expected)
}

// EndedLately reports whether a call with that key ended lately, and returns the PRACK that
// it still expects.
func (r *Of[K, D]) EndedLately(key K) (expected rel100.RAck, ended bool) {
	if r == nil {
		return expected, false
	}
	return r.ended.Find(tombstone.Key(key))
}

func (r *Of[K, D]) hasTombstone(key K) bool {
	_, ended := r.EndedLately(key)
	return ended
}

// HasEnded reports whether a call with that key has ended: lately, or something is left of
// it.
func (r *Of[K, D]) HasEnded(key K) bool { return r.IsLeft(key) || r.hasTombstone(key) }

// Expire forgets the calls whose time is over. It returns how long the next has left; ok is
// false when there is none.
func (r *Of[K, D]) Expire(now time.Time) (next time.Duration, ok bool) { return r.ended.Expire(now) }

// ForgetEnded forgets all calls that ended lately.
func (r *Of[K, D]) ForgetEnded() {
	if r != nil {
		r.ended.Clear()
	}
}
