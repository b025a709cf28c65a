package txn

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// shardCount is how many locks share the load of a table or of the queues.
const shardCount = 64

// table is a map from keys to transactions. Its locks are the innermost: they
// may be taken under a transaction's.
type table[T comparable] struct {
	seed   maphash.Seed
	shards [shardCount]tableShard[T]
	size   atomic.Int64
}

type tableShard[T comparable] struct {
	mu      sync.Mutex // guards the fields below
	entries map[string]T
}

func newTable[T comparable]() *table[T] {
	t := &table[T]{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].entries = make(map[string]T)
	}
	return t
}

func (t *table[T]) shard(k string) *tableShard[T] {
	return &t.shards[maphash.String(t.seed, k)%shardCount]
}

func (t *table[T]) find(k []byte) (T, bool) {
	s := &t.shards[maphash.Bytes(t.seed, k)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.entries[string(k)]
	return v, ok
}

// add files v, unless the key is in use: then it returns the value of the key.
func (t *table[T]) add(k string, v T) (present T, added bool) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if present, taken := s.entries[k]; taken {
		return present, false
	}
	s.entries[k] = v
	t.size.Add(1)
	return v, true
}

// remove removes v, if it is the value of the key.
func (t *table[T]) remove(k string, v T) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[k] == v {
		delete(s.entries, k)
		t.size.Add(-1)
	}
}

func (t *table[T]) len() int { return int(t.size.Load()) }

// all returns the values of the table. No lock is held when it returns.
func (t *table[T]) all() []T {
	var out []T
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, v := range s.entries {
			out = append(out, v)
		}
		s.mu.Unlock()
	}
	return out
}
