// Package takeover bounds what requests for calls that are not here may ask of a store of
// calls: anybody can send requests with random tags.
package takeover

import (
	"sync"
	"time"
)

// Outcome is what became of a look-up in the store.
type Outcome int

const (
	// Taken: the call is here now.
	Taken Outcome = iota
	// NotKept: the store does not have the call.
	NotKept
	// Ended: the call has ended.
	Ended
	// Unusable: this process cannot continue the call, another one might.
	Unusable
	// Failed: the store did not answer. That is not remembered.
	Failed
)

// memory is the time for which an outcome is remembered: requests are repeated for 64*T1
// (RFC 3261 17.1).
const memory = 32 * time.Second

// mostKnown bounds the outcomes that are remembered, also without a rate.
const mostKnown = 100_000

// Gate decides which look-ups are made. It is safe for concurrent use.
type Gate[K comparable] struct {
	// Set at construction; zero or less: not bounded.
	atOnce int

	mu      sync.Mutex // guards the fields below
	recent  window
	flights map[K]struct{}
	known   map[K]fact
	// queue has the keys of known, the oldest first.
	queue []K
}

// fact is an outcome that is remembered.
type fact struct {
	outcome Outcome
	until   time.Time
}

// New returns a Gate for that many look-ups in any second, and that many at once; zero or
// less means no bound.
func New[K comparable](perSecond, atOnce int) *Gate[K] {
	return &Gate[K]{
		atOnce: atOnce, recent: window{most: perSecond},
		flights: make(map[K]struct{}), known: make(map[K]fact),
	}
}

// Begin reports whether a key may be looked up now; End must follow then. Otherwise outcome
// is the one that is remembered, or Failed beyond a bound and while the same key is being
// looked up.
func (g *Gate[K]) Begin(key K, now time.Time) (outcome Outcome, may bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(now)
	if f, ok := g.known[key]; ok {
		return f.outcome, false
	}
	_, flies := g.flights[key]
	if flies || g.atOnce > 0 && len(g.flights) >= g.atOnce || !g.recent.take(now) {
		return Failed, false
	}
	g.flights[key] = struct{}{}
	return Taken, true
}

// End records the outcome of a look-up.
func (g *Gate[K]) End(key K, outcome Outcome, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.flights, key)
	g.noteLocked(key, outcome, now)
}

// Note records an outcome without a look-up of its own.
func (g *Gate[K]) Note(key K, outcome Outcome, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(now)
	g.noteLocked(key, outcome, now)
}

// Remembers reports whether that outcome of a key is remembered.
func (g *Gate[K]) Remembers(key K, outcome Outcome, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(now)
	f, ok := g.known[key]
	return ok && f.outcome == outcome
}

func (g *Gate[K]) noteLocked(key K, outcome Outcome, now time.Time) {
	if _, ok := g.known[key]; ok || outcome == Taken || outcome == Failed {
		return
	}
	if len(g.queue) >= mostKnown {
		g.dropOldestLocked()
	}
	g.known[key] = fact{outcome, now.Add(memory)}
	g.queue = append(g.queue, key)
}

// Held returns how many outcomes are remembered, and how many look-ups are under way.
func (g *Gate[K]) Held() (known, flights int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.known), len(g.flights)
}

// forgetLocked forgets outcomes that are too old.
func (g *Gate[K]) forgetLocked(now time.Time) {
	for len(g.queue) > 0 {
		if f, ok := g.known[g.queue[0]]; ok && now.Before(f.until) {
			return
		}
		g.dropOldestLocked()
	}
	g.queue = nil
}

func (g *Gate[K]) dropOldestLocked() {
	delete(g.known, g.queue[0])
	g.queue = g.queue[1:]
}

// window counts events in the latest second.
type window struct {
	most int // zero or less: not bounded
	// at are the times of the latest events, next is the place of the oldest of them.
	at   []time.Time
	next int
}

// take counts an event, and reports whether there were fewer than most in the second before.
func (w *window) take(now time.Time) bool {
	switch {
	case w.most <= 0:
		return true
	case len(w.at) < w.most:
		w.at = append(w.at, now)
		return true
	case now.Sub(w.at[w.next]) < time.Second:
		return false
	}
	w.at[w.next] = now
	w.next = (w.next + 1) % w.most
	return true
}
