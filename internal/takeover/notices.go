package takeover

import "sync"

// mostNotices bounds the keys that wait.
const mostNotices = 10_000

// Notices collects the keys of calls that another process has taken, until they are looked
// at together. It is safe for concurrent use. The zero value is ready to use.
type Notices[K comparable] struct {
	mu   sync.Mutex // guards the field below
	keys map[K]struct{}
}

// Add notes a key. It reports whether it is the first one: then the caller arranges that the
// notices are read soon. Beyond a bound keys are dropped.
func (n *Notices[K]) Add(key K) (first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.keys) >= mostNotices {
		return false
	}
	if first = n.keys == nil; first {
		n.keys = make(map[K]struct{})
	}
	n.keys[key] = struct{}{}
	return first
}

// Take returns the keys, and forgets them.
func (n *Notices[K]) Take() map[K]struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := n.keys
	n.keys = nil
	return keys
}
