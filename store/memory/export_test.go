package memory

// MaxTombstones is maxTombstones.
const MaxTombstones = maxTombstones

// Held counts what the Store holds, expired or not.
func (s *Store) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}
