//go:build interop && linux

package peers

import (
	"slices"
	"sync"
	"testing"
)

// heard has the events that a phone has told, and that no test has waited for yet.
type heard[T any] struct {
	mu      sync.Mutex // guards the fields below
	events  []T
	changed chan struct{}
}

func (h *heard[T]) add(e T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// next waits for the first event that is one of these, and takes it.
func (h *heard[T]) next(t *testing.T, what string, is func(T) bool) (found T) {
	t.Helper()
	until(t, what, func() (bool, <-chan struct{}) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if at := slices.IndexFunc(h.events, is); at >= 0 {
			found = h.events[at]
			h.events = slices.Delete(h.events, at, at+1)
			return true, nil
		}
		if h.changed == nil {
			h.changed = make(chan struct{})
		}
		return false, h.changed
	})
	return found
}

// forget passes over all events so far.
func (h *heard[T]) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = nil
}
