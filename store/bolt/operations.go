package bolt

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// Save is [dialog.Store.Save].
func (s *Store) Save(ctx context.Context, r dialog.Record) error {
	r.Data = append([]byte(nil), r.Data...) // the operation may outlive ctx
	return s.change(ctx, r.Key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		return storerecord.Save(now, r)
	})
}

// Take is [dialog.Store.Take].
func (s *Store) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	taken := make(chan dialog.Record, 1)
	err := s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		next, err := storerecord.Take(now, owner)
		replace(taken, next.Record(key))
		return next, err
	})
	if err != nil {
		return dialog.Record{}, err
	}
	return <-taken, nil
}

// replace puts the result of the latest try into a channel of one: bbolt runs a function
// again when another one of its batch has failed.
func replace[T any](result chan T, latest T) {
	select {
	case <-result:
	default:
	}
	result <- latest
}

// Check is [dialog.Store.Check].
func (s *Store) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	return s.view(ctx, func(c calls) error {
		now, err := c.entry(key)
		if err != nil {
			return err
		}
		return storerecord.Check(now, fence)
	})
}

// Drop is [dialog.Store.Drop].
func (s *Store) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	return s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		return storerecord.Drop(now, fence, time.Now().Add(tomb))
	})
}

// Due is [dialog.Store.Due].
func (s *Store) Due(ctx context.Context, before time.Time, owner string, n int) ([]dialog.Record, error) {
	if none, err := s.noneDue(ctx, before); none || err != nil || n <= 0 {
		return nil, err
	}
	return s.claim(ctx, func(c calls) ([]dialog.Record, error) { return c.claim(before, owner, n) })
}

// Peek is [dialog.Peeker.Peek].
func (s *Store) Peek(ctx context.Context, key dialog.StoreKey) (dialog.Record, error) {
	shown := make(chan dialog.Record, 1)
	err := s.view(ctx, func(c calls) error {
		now, err := c.entry(key)
		if err != nil {
			return err
		}
		r, err := storerecord.Peek(now, key)
		shown <- r
		return err
	})
	if err != nil {
		return dialog.Record{}, err
	}
	return <-shown, nil
}

// DueIf is [dialog.Peeker.DueIf].
func (s *Store) DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(dialog.Record) bool) ([]dialog.Record, error) {
	due := make(chan []dialog.Record, 1)
	err := s.view(ctx, func(c calls) error {
		list, err := c.due(before)
		due <- list
		return err
	})
	if err != nil || n <= 0 {
		return nil, err
	}
	var wanted []dialog.Record
	for _, r := range <-due {
		if len(wanted) < n && usable(r) {
			wanted = append(wanted, r)
		}
	}
	if len(wanted) == 0 {
		return nil, ctx.Err()
	}
	return s.claim(ctx, func(c calls) ([]dialog.Record, error) { return c.claimAsSeen(wanted, before, owner) })
}

// claim takes records.
func (s *Store) claim(ctx context.Context, take func(calls) ([]dialog.Record, error)) ([]dialog.Record, error) {
	claimed := make(chan []dialog.Record, 1)
	err := s.do(ctx, func() error {
		return s.db.Batch(func(tx *bolt.Tx) error {
			list, err := take(calls{tx, time.Now()})
			replace(claimed, list)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return <-claimed, nil
}

// view reads.
func (s *Store) view(ctx context.Context, read func(calls) error) error {
	return s.do(ctx, func() error {
		return s.db.View(func(tx *bolt.Tx) error { return read(calls{tx, time.Now()}) })
	})
}

// noneDue reports that nothing is due, without a write.
func (s *Store) noneDue(ctx context.Context, before time.Time) (none bool, err error) {
	result := make(chan bool, 1)
	err = s.view(ctx, func(c calls) error {
		first, _ := c.tx.Bucket(dueBucket).Cursor().First()
		result <- first == nil || timeOf(first).After(before)
		return nil
	})
	if err != nil {
		return false, err
	}
	return <-result, nil
}

// change writes the entry that a rule makes of the one that is there.
func (s *Store) change(ctx context.Context, key dialog.StoreKey, rule func(now *storerecord.Entry) (storerecord.Entry, error)) error {
	return s.do(ctx, func() error {
		return s.db.Batch(func(tx *bolt.Tx) error {
			c := calls{tx, time.Now()}
			now, err := c.entry(key)
			if err != nil {
				return err
			}
			next, err := rule(now)
			if err != nil {
				return err
			}
			if err := c.put(key, next); err != nil {
				return err
			}
			return c.sweep()
		})
	})
}
