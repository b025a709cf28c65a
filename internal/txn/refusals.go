package txn

import (
	"hash/maphash"
	"sync"
	"time"
)

// maxRefusals bounds the requests whose refusal is remembered; beyond it the
// oldest are forgotten early.
const maxRefusals = 100000

// refusals remembers which requests were refused at a limit. They have no transactions, but
// their retransmissions must not be accepted later. An entry costs
// some dozen bytes.
type refusals struct {
	life time.Duration
	seed maphash.Seed

	mu    sync.Mutex // guards the fields below
	known map[uint64]struct{}
	queue []refusal // in the order of their ends
}

type refusal struct {
	hash  uint64
	until time.Time
}

func newRefusals(life time.Duration) *refusals {
	return &refusals{life: life, seed: maphash.MakeSeed(), known: make(map[uint64]struct{})}
}

// add remembers a request by its key.
func (r *refusals) add(k string) {
	hash := maphash.String(r.seed, k)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweepLocked(now)
	if _, ok := r.known[hash]; ok {
		return
	}
	if len(r.queue) >= maxRefusals {
		r.dropLocked()
	}
	r.known[hash] = struct{}{}
	r.queue = append(r.queue, refusal{hash: hash, until: now.Add(r.life)})
}

// has reports whether a request was refused lately.
func (r *refusals) has(k string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return false
	}
	r.sweepLocked(time.Now())
	_, ok := r.known[maphash.String(r.seed, k)]
	return ok
}

func (r *refusals) sweepLocked(now time.Time) {
	for len(r.queue) > 0 && !r.queue[0].until.After(now) {
		r.dropLocked()
	}
	if len(r.queue) == 0 {
		r.queue = nil
	}
}

func (r *refusals) dropLocked() {
	delete(r.known, r.queue[0].hash)
	r.queue = r.queue[1:]
}
