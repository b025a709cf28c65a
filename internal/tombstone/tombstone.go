// Package tombstone remembers the calls that ended lately: their peer may send more, as
// when two BYEs cross (RFC 5407 3.2.1). It has no clock and no lock: time is an argument,
// and its owner's mutex guards it.
package tombstone

import (
	"hash/maphash"
	"time"
)

// Key is that of a call: its Call-ID and the two tags.
type Key struct{ CallID, LocalTag, RemoteTag string }

// Set is a bounded set of calls. What it keeps of a call is a hash of its key: the key
// itself is cut from a message of the peer's, all of which it would keep. Rest is what is
// known of some of the calls besides.
type Set[Rest comparable] struct {
	seed maphash.Seed
	most int
	// since is what times are counted from: there are many of them.
	since time.Time
	known map[uint64]struct{}
	rest  map[uint64]Rest
	queue []stone
}

type stone struct {
	hash  uint64
	until time.Duration // since Set.since
}

// New returns an empty set of that many calls at most.
func New[Rest comparable](now time.Time, most int) *Set[Rest] {
	return &Set[Rest]{seed: maphash.MakeSeed(), most: most, since: now, known: make(map[uint64]struct{}), rest: make(map[uint64]Rest)}
}

// Len returns the number of calls; zero for a nil set.
func (s *Set[Rest]) Len() int {
	if s == nil {
		return 0
	}
	return len(s.known)
}

// Add adds a call that is remembered for a time, the same for all. When the set is full
// the oldest is forgotten.
func (s *Set[Rest]) Add(now time.Time, life time.Duration, key Key, rest Rest) {
	if len(s.known) >= s.most {
		s.dropOldest()
	}
	hash := s.hashOf(key)
	s.known[hash] = struct{}{}
	if none := *new(Rest); rest != none {
		s.rest[hash] = rest
	}
	s.queue = append(s.queue, stone{hash: hash, until: now.Sub(s.since) + life})
}

// Expire forgets the calls whose time is over. It returns how long the next has left; ok
// is false when there is none.
func (s *Set[Rest]) Expire(now time.Time) (next time.Duration, ok bool) {
	age := now.Sub(s.since)
	for len(s.queue) > 0 && s.queue[0].until <= age {
		s.dropOldest()
	}
	if len(s.queue) == 0 {
		s.queue = nil
		return 0, false
	}
	return s.queue[0].until - age, true
}

// Find reports whether a call ended lately, and returns what is known of it besides.
func (s *Set[Rest]) Find(key Key) (rest Rest, found bool) {
	if s.Len() == 0 {
		return rest, false
	}
	hash := s.hashOf(key)
	_, found = s.known[hash]
	return s.rest[hash], found
}

// Clear forgets all.
func (s *Set[Rest]) Clear() {
	s.queue = nil
	clear(s.known)
	clear(s.rest)
}

func (s *Set[Rest]) dropOldest() {
	if len(s.queue) == 0 {
		return
	}
	delete(s.known, s.queue[0].hash)
	delete(s.rest, s.queue[0].hash)
	s.queue = s.queue[1:]
}

func (s *Set[Rest]) hashOf(key Key) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, part := range [...]string{key.CallID, key.LocalTag, key.RemoteTag} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}
