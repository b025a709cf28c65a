package storetest

import (
	"time"

	"sipdialog.example/dialog"
)

// listener is an owner that listens for calls which were taken from it.
type listener struct {
	*harness
	told chan dialog.StoreKey
	stop func()
	// taken are the calls that were taken from it.
	taken map[dialog.StoreKey]bool
}

// listens has an owner listen. It skips the test if the Store is not a
// [dialog.MoveNotifier].
func (h *harness) listens(owner string) *listener {
	h.Helper()
	notifier, ok := h.Store.(dialog.MoveNotifier)
	if !ok {
		h.Skip("the Store notifies nobody")
	}
	l := &listener{harness: h, told: make(chan dialog.StoreKey, 10_000), taken: make(map[dialog.StoreKey]bool)}
	l.stop = notifier.NotifyMoved(owner, func(key dialog.StoreKey) { l.told <- key })
	h.Cleanup(l.stop)
	return l
}

// hears takes calls from the owner until it gets a notice of one of them: notices may be lost,
// for example while a Store begins to listen. It must not get notices of other calls.
func (l *listener) hears(take func() dialog.StoreKey) {
	l.Helper()
	now := make(map[dialog.StoreKey]bool)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		key := take()
		now[key], l.taken[key] = true, true
		for isOver := false; !isOver; {
			select {
			case key := <-l.told:
				l.mayHear(key)
				if now[key] {
					return
				}
			case <-again.C:
				isOver = true
			}
		}
	}
	l.Fatal("the former owner was not told")
}

func (l *listener) mayHear(key dialog.StoreKey) {
	l.Helper()
	if !l.taken[key] {
		l.Fatalf("told of %v, which was not taken from it", key)
	}
}

// passes returns a function that saves a call of an owner, and has another one take it.
func (h *harness) passes(from, to string) func() dialog.StoreKey {
	return func() dialog.StoreKey {
		r := record("call")
		r.Owner = from
		h.save(r)
		h.take(r.Key, to)
		return r.Key
	}
}

func formerOwnerIsTold(h *harness) {
	a := h.listens("a")
	a.hears(h.passes("a", "b"))
	a.hears(func() dialog.StoreKey {
		r := record("overdue")
		r.Due = time.Now().Add(-time.Minute)
		h.save(r)
		h.due(time.Now(), "b", 1000)
		return r.Key
	})
	const strange = "a b:c/d.*>|\"'\\ œ\n"
	h.listens(strange).hears(h.passes(strange, "b"))
}

// onlyFormerOwnerIsTold takes calls of which a listener must not hear, each before one of
// which it must.
func onlyFormerOwnerIsTold(h *harness) {
	a, b := h.listens("a"), h.listens("b")
	a.hears(h.passes("a", "b"))
	b.hears(h.passes("b", "a"))
	h.passes("a", "a")()
	h.passes("ab", "a")()
	h.passes("*", "b")()
	a.hears(h.passes("a", "b"))
	b.hears(h.passes("b", "a"))

	a.stop()
	a.stop() // once more does no harm
	h.listens("a").hears(h.passes("a", "b"))
	for len(a.told) > 0 {
		a.mayHear(<-a.told) // that of a call before may be late
	}
}
