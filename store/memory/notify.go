package memory

import "sipdialog.example/dialog"

// watcher is an owner with a callback for calls that were taken from it.
type watcher struct {
	owner string
	moved func(dialog.StoreKey)
}

// NotifyMoved is [dialog.MoveNotifier.NotifyMoved].
func (s *Store) NotifyMoved(owner string, moved func(dialog.StoreKey)) (stop func()) {
	w := &watcher{owner, moved}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

// movedLocked adds the notice for the former owner of a call to tell, which is called once the
// mutex is free.
func (s *Store) movedLocked(tell []func(), key dialog.StoreKey, from, to string) []func() {
	if from == to {
		return tell
	}
	for w := range s.watchers {
		if w.owner == from {
			tell = append(tell, func() { w.moved(key) })
		}
	}
	return tell
}

func run(list []func()) {
	for _, f := range list {
		f()
	}
}
