// Package bolt is a [dialog.Store] in a file (go.etcd.io/bbolt): for one machine, without
// a server. A process that was killed or restarted finds its calls again.
//
// Only one process can have the file open at a time.
package bolt

import (
	"context"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"

	"sipdialog.example/dialog"
)

// Options change how a Store works. The zero value is the default.
type Options struct {
	// LockTimeout is the time for which Open waits for another process that has the file
	// open, such as an earlier one that is being shut down. Zero means 5 s, negative that
	// Open waits for ever.
	LockTimeout time.Duration
	// NoSync lets the operating system decide when it writes to the disk. This is many
	// times as fast, and loses nothing if the process is killed. If the machine fails, the
	// file may be lost.
	NoSync bool
}

const (
	defaultLockTimeout = 5 * time.Second
	// batchDelay is the time for which a change waits for others, to be written with them.
	batchDelay = time.Millisecond
)

// Store is a Store in a file. Make it with [Open].
type Store struct {
	db *bolt.DB

	mu     sync.Mutex // guards the fields below
	closed bool
	// open counts the running operations.
	open sync.WaitGroup
}

var _ dialog.Peeker = (*Store)(nil)

// Open opens a file, and makes it if there is none. Nil opts are the defaults.
//
// Errors: those of the operating system and of bbolt, which has ErrTimeout for a file that
// another process has open.
func Open(path string, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockTimeout(opts.LockTimeout), NoSync: opts.NoSync, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	if err := db.Update(makeBuckets); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("bolt: open %s: %w", path, err)
	}
	return &Store{db: db}, nil
}

func lockTimeout(wanted time.Duration) time.Duration {
	switch {
	case wanted == 0:
		return defaultLockTimeout
	case wanted < 0:
		return 0 // bbolt waits for ever
	}
	return wanted
}

// Close waits for the running operations, and closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.open.Wait()
	return s.db.Close()
}

// begin counts an operation, unless the Store is closed.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("bolt: %w", bberrors.ErrDatabaseNotOpen)
	}
	s.open.Add(1)
	return nil
}

// do runs an operation, and waits for it until ctx ends, since a disk may be slow.
func (s *Store) do(ctx context.Context, operation func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer s.open.Done()
		result <- operation()
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
