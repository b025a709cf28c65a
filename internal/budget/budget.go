// Package budget counts the bytes that many calls hold, against one bound.
package budget

import (
	"sync"
	"sync/atomic"
)

// Budget has a bound and the number of bytes held. The zero value has no bound. It is safe
// for concurrent use.
type Budget struct {
	most int64
	now  atomic.Int64
}

// New returns a budget of most bytes; zero or less means no bound.
func New(most int) *Budget { return &Budget{most: max(0, int64(most))} }

// Held returns the number of bytes held; zero for a nil budget.
func (b *Budget) Held() int {
	if b == nil {
		return 0
	}
	return int(b.now.Load())
}

// take counts bytes if they stay within the bound. A negative number always does.
func (b *Budget) take(bytes int) bool {
	if now := b.now.Add(int64(bytes)); bytes <= 0 || b.most == 0 || now <= b.most {
		return true
	}
	b.now.Add(-int64(bytes))
	return false
}

// Share is one call's part of a budget. The zero value belongs to no budget, and has no
// bound. After End nothing is counted.
type Share struct {
	of *Budget // set at construction

	mu    sync.Mutex // is taken last; guards the fields below
	bytes int
	over  bool
}

// Belong makes an unused share part of a budget.
func (s *Share) Belong(to *Budget) { s.of = to }

// Take counts bytes, and reports whether they are within the bound.
func (s *Share) Take(bytes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || s.over {
		return true
	}
	if !s.of.take(bytes) {
		return false
	}
	s.bytes += bytes
	return true
}

// Give gives bytes back.
func (s *Share) Give(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != nil && !s.over {
		s.of.now.Add(-int64(bytes))
		s.bytes -= bytes
	}
}

// Replace counts after bytes instead of before, if the difference stays within the
// bound, and reports whether it does. Otherwise it counts less bytes: those that the caller
// then keeps.
func (s *Share) Replace(before, after, less int) bool {
	if s.Take(after - before) {
		return true
	}
	s.Give(before - less)
	return false
}

// End gives all bytes back.
func (s *Share) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != nil && !s.over {
		s.over = true
		s.of.now.Add(-int64(s.bytes))
	}
}
