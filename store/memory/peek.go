package memory

import (
	"context"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// Peek is [dialog.Peeker.Peek].
func (s *Store) Peek(ctx context.Context, key dialog.StoreKey) (dialog.Record, error) {
	if err := ctx.Err(); err != nil {
		return dialog.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return storerecord.Peek(s.aliveLocked(key, time.Now()), key)
}

// DueIf is [dialog.Peeker.DueIf].
func (s *Store) DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(dialog.Record) bool) (list []dialog.Record, err error) {
	for _, r := range s.due(before) {
		if err := ctx.Err(); err != nil || len(list) >= n {
			return list, err
		}
		if !usable(own(r)) {
			continue
		}
		if claimed, ok := s.claimAsSeen(r, before, owner); ok {
			list = append(list, claimed)
		}
	}
	return list, ctx.Err()
}

// due returns the records that are due.
func (s *Store) due(before time.Time) (list []dialog.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for key := range s.entries {
		if held := s.aliveLocked(key, now); held.IsDue(before) {
			list = append(list, held.Record(key))
		}
	}
	return list
}

// claimAsSeen takes a record that is due, unless it has changed since it was seen.
func (s *Store) claimAsSeen(seen dialog.Record, before time.Time, owner string) (dialog.Record, bool) {
	s.mu.Lock()
	held := s.aliveLocked(seen.Key, time.Now())
	claimed, due := storerecord.Claim(held, before, owner)
	if !due || held.Fence != seen.Fence {
		s.mu.Unlock()
		return dialog.Record{}, false
	}
	tell := s.movedLocked(nil, seen.Key, held.Owner, owner)
	s.entries[seen.Key] = claimed
	s.mu.Unlock()
	run(tell)
	return own(claimed.Record(seen.Key)), true
}
