package storetest

import (
	"time"

	"sipdialog.example/dialog"
)

// formerOwnerIsTold tests a Store that is a [dialog.MoveNotifier].
func formerOwnerIsTold(h *harness) {
	notifier, ok := h.Store.(dialog.MoveNotifier)
	if !ok {
		h.Skip("the Store notifies nobody")
	}
	told := make(chan dialog.StoreKey, 100)
	stop := notifier.NotifyMoved("a", func(key dialog.StoreKey) { told <- key })
	h.awaitNotice(told, func() dialog.StoreKey {
		r := h.saved("call")
		h.take(r.Key, "b")
		return r.Key
	})
	h.awaitNotice(told, func() dialog.StoreKey {
		r := record("overdue")
		r.Due = time.Now().Add(-time.Minute)
		h.save(r)
		h.due(time.Now(), "b", 1000)
		return r.Key
	})
	own := h.saved("its own")
	h.take(own.Key, "a")
	stop()
	stop() // once more does no harm
	h.take(h.saved("another").Key, "b")
	select {
	case key := <-told:
		if key == own.Key {
			h.Fatal("an owner was told of its own Take")
		}
	case <-time.After(100 * time.Millisecond):
	}
}

// awaitNotice moves calls until a notice comes: one may be lost, while a Store begins to
// listen for example.
func (h *harness) awaitNotice(told <-chan dialog.StoreKey, move func() dialog.StoreKey) {
	h.Helper()
	moved := make(map[dialog.StoreKey]bool)
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		moved[move()] = true
		select {
		case key := <-told:
			if !moved[key] {
				h.Fatalf("told of %v, which has not moved", key)
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	h.Fatal("the former owner was not told")
}
