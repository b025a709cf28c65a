// Package past keeps what is over for a while, in memory that has no pointers: small
// records of text and a value, in the order in which they end. The garbage collector does
// not look into them, so that a hundred thousand of them cost it what one does.
//
// A Store does not synchronise itself, and asks no clock.
package past

import (
	"hash/maphash"
	"math"
	"slices"
	"time"
)

// MaxText is how much text a record may hold. What holds more is better kept by itself.
const MaxText = 4 << 10

// Record is what is kept. V must have no pointers.
type Record[V any] struct {
	Key string // no other record has it
	// Alias is another key, which no other record has; none when it is empty.
	Alias string
	Note  string
	Data  []byte
	Value V
}

// Text is how much text a record holds.
func (r *Record[V]) Text() int { return len(r.Key) + len(r.Alias) + len(r.Note) + len(r.Data) }

// Store keeps records by their keys. Make it with New.
type Store[V any] struct {
	// Set at construction.

	seed maphash.Seed
	bits uint64 // of a hash that count

	keys, aliases index[V]
	chunks        []*chunk[V] // by number; nil where none is
	free          []uint32    // numbers of chunks that there are none of
	queues        []*queue
	spare         *chunk[V] // the last one that became empty
	count         int
}

// queue is the chunks of the records that wait equally long, the first to end first.
type queue struct {
	wait   time.Duration
	chunks []uint32
}

// New returns an empty Store.
func New[V any]() *Store[V] {
	s := &Store[V]{seed: maphash.MakeSeed(), bits: math.MaxUint64}
	s.keys = index[V]{store: s, text: (*chunk[V]).key, link: (*entry[V]).byKey}
	s.aliases = index[V]{store: s, text: (*chunk[V]).alias, link: (*entry[V]).byAlias}
	return s
}

// Len is the number of records.
func (s *Store[V]) Len() int { return s.count }

// Add keeps a copy of r, which has no more than MaxText, until now and wait. Those with the
// same wait come in the order of now. There are few different waits.
func (s *Store[V]) Add(now, wait time.Duration, r *Record[V]) {
	c, number := s.last(s.queue(wait), r.Text())
	where := place(number, len(c.entries))
	c.add(now+wait, r)
	s.count++
	s.keys.add(where, maphash.String(s.seed, r.Key)&s.bits)
	if r.Alias != "" {
		s.aliases.add(where, maphash.String(s.seed, r.Alias)&s.bits)
	}
}

// Find returns a copy of the record with that key.
func (s *Store[V]) Find(key []byte) (Record[V], bool) { return s.found(s.keys.find(key)) }

// FindAlias returns a copy of the record with that alias.
func (s *Store[V]) FindAlias(alias []byte) (Record[V], bool) { return s.found(s.aliases.find(alias)) }

func (s *Store[V]) found(where uint32) (Record[V], bool) {
	if where == nowhere {
		return Record[V]{}, false
	}
	c, e := s.at(where)
	return c.record(e), true
}

// Next is when the next record ends; false when there is none.
func (s *Store[V]) Next() (end time.Duration, found bool) {
	for _, q := range s.queues {
		if first := s.chunks[q.chunks[0]].first(); !found || first.end < end {
			end, found = first.end, true
		}
	}
	return end, found
}

// Drop removes the expired records, and returns their number and the length of their text.
func (s *Store[V]) Drop(now time.Duration) (records, text int) {
	for i := len(s.queues) - 1; i >= 0; i-- {
		for len(s.queues[i].chunks) > 0 && s.chunks[s.queues[i].chunks[0]].first().end <= now {
			records++
			text += s.drop(s.queues[i])
		}
	}
	s.queues = slices.DeleteFunc(s.queues, func(q *queue) bool { return len(q.chunks) == 0 })
	if s.count == 0 { // what a rush has needed goes
		s.keys.heads, s.aliases.heads, s.chunks, s.free, s.spare = nil, nil, nil, nil, nil
	}
	return records, text
}

// drop takes out the first record of a queue.
func (s *Store[V]) drop(q *queue) (text int) {
	number := q.chunks[0]
	c := s.chunks[number]
	e, where := c.first(), place(number, c.done)
	s.keys.remove(where)
	if e.aliasLen > 0 {
		s.aliases.remove(where)
	}
	s.count--
	if c.done++; c.done == len(c.entries) {
		q.chunks = q.chunks[1:]
		s.spare, s.chunks[number] = c, nil
		s.free = append(s.free, number)
	}
	return e.length()
}

func (s *Store[V]) hash(text []byte) uint64 { return maphash.Bytes(s.seed, text) & s.bits }

func (s *Store[V]) queue(wait time.Duration) *queue {
	for _, q := range s.queues {
		if q.wait == wait {
			return q
		}
	}
	q := &queue{wait: wait}
	s.queues = append(s.queues, q)
	return q
}

// last is the chunk of a queue that can take a record with n bytes of text.
func (s *Store[V]) last(q *queue, n int) (*chunk[V], uint32) {
	var full *chunk[V]
	if len(q.chunks) > 0 {
		number := q.chunks[len(q.chunks)-1]
		if full = s.chunks[number]; full.hasRoom(n) {
			return full, number
		}
	}
	number := s.number(s.chunk(full))
	q.chunks = append(q.chunks, number)
	return s.chunks[number], number
}

// chunk is an empty one behind full, which is nil for the first of a queue: that grows as
// it is needed.
func (s *Store[V]) chunk(full *chunk[V]) *chunk[V] {
	c := s.spare
	s.spare = nil
	switch {
	case c != nil:
		c.empty()
	case full != nil:
		c = full.next()
	default:
		c = &chunk[V]{}
	}
	return c
}

func (s *Store[V]) number(c *chunk[V]) uint32 {
	if n := len(s.free); n > 0 {
		number := s.free[n-1]
		s.free = s.free[:n-1]
		s.chunks[number] = c
		return number
	}
	s.chunks = append(s.chunks, c)
	return uint32(len(s.chunks) - 1)
}

func (s *Store[V]) at(where uint32) (*chunk[V], *entry[V]) {
	c := s.chunks[(where-1)/perChunk]
	return c, &c.entries[(where-1)%perChunk]
}
