// Package memory is a [dialog.Store] in the memory of one process: for tests, and for
// several stacks in one process. It has no goroutine, and need not be closed.
package memory

import (
	"context"
	"sync"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// maxTombstones bounds the tombstones; beyond it the oldest are forgotten early.
const maxTombstones = 100_000

// swept is the number of entries that each write checks, to forget expired ones.
const swept = 4

// Store is a Store in memory. Make it with [New].
type Store struct {
	mu      sync.Mutex // guards the fields below
	entries map[dialog.StoreKey]storerecord.Entry
	// tombstones are the keys that were dropped, the oldest first. Some have a record
	// again, or nothing.
	tombstones []dialog.StoreKey
	watchers   map[*watcher]struct{}
}

var (
	_ dialog.MoveNotifier = (*Store)(nil)
	_ dialog.Peeker       = (*Store)(nil)
)

// New returns an empty Store.
func New() *Store {
	return &Store{entries: make(map[dialog.StoreKey]storerecord.Entry), watchers: make(map[*watcher]struct{})}
}

// Len returns how many calls are kept, tombstones left out.
func (s *Store) Len() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, e := range s.entries {
		if e.Alive(now) != nil && !e.Ended {
			n++
		}
	}
	return n
}

// Save is [dialog.Store.Save].
func (s *Store) Save(ctx context.Context, r dialog.Record) error {
	return s.change(ctx, r.Key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		return storerecord.Save(now, r)
	})
}

// Take is [dialog.Store.Take].
func (s *Store) Take(ctx context.Context, key dialog.StoreKey, owner string) (r dialog.Record, err error) {
	var tell []func()
	err = s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		taken, err := storerecord.Take(now, owner)
		if err == nil {
			tell = s.movedLocked(nil, key, now.Owner, owner)
		}
		r = taken.Record(key)
		return taken, err
	})
	if err != nil {
		return dialog.Record{}, err
	}
	run(tell)
	return own(r), nil
}

// Check is [dialog.Store.Check].
func (s *Store) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return storerecord.Check(s.aliveLocked(key, time.Now()), fence)
}

// Drop is [dialog.Store.Drop].
func (s *Store) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	err := s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		return storerecord.Drop(now, fence, time.Now().Add(tomb))
	})
	if err == nil {
		s.boundTombstones(key)
	}
	return err
}

// Due is [dialog.Store.Due].
func (s *Store) Due(ctx context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list, tell := s.claim(before, owner, n)
	run(tell)
	return list, nil
}

func (s *Store) claim(before time.Time, owner string, n int) (list []dialog.Record, tell []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for key := range s.entries {
		if len(list) >= n {
			break
		}
		held := s.aliveLocked(key, now)
		claimed, due := storerecord.Claim(held, before, owner)
		if due {
			tell = s.movedLocked(tell, key, held.Owner, owner)
			s.entries[key] = claimed
			list = append(list, own(claimed.Record(key)))
		}
	}
	return list, tell
}

// change writes the entry that a rule makes of the one that is there.
func (s *Store) change(ctx context.Context, key dialog.StoreKey, rule func(now *storerecord.Entry) (storerecord.Entry, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next, err := rule(s.aliveLocked(key, now))
	if err != nil {
		return err
	}
	next.Data = append([]byte(nil), next.Data...)
	s.entries[key] = next
	s.sweepLocked(now)
	return nil
}

// aliveLocked returns the entry of a key, and forgets one that has expired.
func (s *Store) aliveLocked(key dialog.StoreKey, now time.Time) *storerecord.Entry {
	e, ok := s.entries[key]
	if !ok {
		return nil
	}
	if e.Alive(now) == nil {
		delete(s.entries, key)
		return nil
	}
	return &e
}

// sweepLocked forgets what has expired of a few entries: Go's maps begin at another one
// each time.
func (s *Store) sweepLocked(now time.Time) {
	looked := 0
	for key, e := range s.entries {
		if looked++; looked > swept {
			return
		}
		if e.IsExpired(now) {
			delete(s.entries, key)
		}
	}
}

// boundTombstones adds a tombstone, and drops the oldest beyond the bound.
func (s *Store) boundTombstones(key dialog.StoreKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tombstones = append(s.tombstones, key)
	if len(s.tombstones) <= maxTombstones {
		return
	}
	oldest := s.tombstones[0]
	s.tombstones = s.tombstones[1:]
	if s.entries[oldest].Ended {
		delete(s.entries, oldest)
	}
}

// own is a record that shares nothing with the Store.
func own(r dialog.Record) dialog.Record {
	r.Data = append([]byte(nil), r.Data...)
	return r
}
