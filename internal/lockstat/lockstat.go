// Package lockstat has a read-write mutex that counts the waits for it, and their
// duration. Locking a free mutex costs one more atomic operation than sync.RWMutex. Only a
// goroutine that has to wait reads the clock.
package lockstat

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts the waits for any number of mutexes. The zero value is ready to use. It is
// safe for concurrent use.
type Stats struct {
	waits  atomic.Uint64
	waited atomic.Int64
}

// Waits returns the number of waits.
func (s *Stats) Waits() uint64 { return s.waits.Load() }

// Waited returns the total duration of the waits.
func (s *Stats) Waited() time.Duration { return time.Duration(s.waited.Load()) }

func (s *Stats) add(since time.Time) {
	s.waits.Add(1)
	s.waited.Add(int64(time.Since(since)))
}

// RWMutex is a sync.RWMutex that counts into Stats unless Stats is nil. The zero value is
// an unlocked mutex that does not count. Stats must be set before the mutex is used.
type RWMutex struct {
	Stats *Stats

	mu sync.RWMutex
}

// Lock locks for writing.
func (m *RWMutex) Lock() {
	if m.mu.TryLock() {
		return
	}
	if m.Stats == nil {
		m.mu.Lock()
		return
	}
	since := time.Now()
	m.mu.Lock()
	m.Stats.add(since)
}

// RLock locks for reading.
func (m *RWMutex) RLock() {
	if m.mu.TryRLock() {
		return
	}
	if m.Stats == nil {
		m.mu.RLock()
		return
	}
	since := time.Now()
	m.mu.RLock()
	m.Stats.add(since)
}

// Unlock unlocks for writing.
func (m *RWMutex) Unlock() { m.mu.Unlock() }

// RUnlock unlocks for reading.
func (m *RWMutex) RUnlock() { m.mu.RUnlock() }
