package registry

import "slices"

// Wait is a wait until few dialogs are left.
type Wait struct {
	most int
	few  chan struct{}
}

// Few is closed when at most so many are left.
func (w *Wait) Few() <-chan struct{} { return w.few }

// Await begins to wait until at most most dialogs are left.
func (r *Of[K, D]) Await(most int) *Wait {
	w := &Wait{most: most, few: make(chan struct{})}
	r.waits = append(r.waits, w)
	r.Announce()
	return w
}

// Announce ends the waits for the number of dialogs that is reached. The owner calls it
// once a dialog is gone, and all that belongs to it.
func (r *Of[K, D]) Announce() {
	left := r.CountOpen()
	r.waits = slices.DeleteFunc(r.waits, func(w *Wait) bool {
		if left > w.most {
			return false
		}
		close(w.few)
		return true
	})
}

// GiveUp ends a wait, and reports whether the number was reached before.
func (r *Of[K, D]) GiveUp(w *Wait) (reached bool) {
	waiting := slices.Index(r.waits, w)
	if waiting < 0 {
		return true
	}
	r.waits = slices.Delete(r.waits, waiting, waiting+1)
	return false
}
