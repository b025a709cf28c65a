package storetest

import (
	"context"
	"errors"
	"time"

	"sipdialog.example/dialog"
)

func dropLeavesTombstone(h *harness) {
	r := h.saved("call")
	r.Due = time.Now()
	h.save(r)
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute))
	h.ended(r)
	if list := h.due(time.Now().Add(time.Hour), "b", 10); len(list) != 0 {
		h.Fatalf("%d records are due", len(list))
	}
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute))
	h.ended(r)
}

// ended checks that a tombstone is in the place of a record.
func (h *harness) ended(r dialog.Record) {
	h.Helper()
	h.takeIs(r.Key, dialog.ErrEnded)
	h.is("Check", h.Check(h.ctx, r.Key, r.Fence), dialog.ErrEnded)
	h.is("Save", h.Save(h.ctx, r), dialog.ErrEnded) // one that came late
	h.takeIs(r.Key, dialog.ErrEnded)
}

func dropOfNothing(h *harness) {
	r := record("call")
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute))
	h.ended(r)
}

// tombstoneYields is of a Store that has lost a Take, after which the owner before has
// dropped the call.
func tombstoneYields(h *harness) {
	r := h.saved("call")
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute))
	r.Fence, r.Owner = 2, "b"
	h.save(r)
	if got := h.take(r.Key, "c"); got.Fence != 3 || string(got.Data) != "call" {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
}

func tombstoneGoes(h *harness) {
	r := h.saved("call")
	h.lives(func(life time.Duration) error {
		h.none("Drop", h.Drop(h.ctx, r.Key, 1, life))
		return h.Check(h.ctx, r.Key, 1)
	}, dialog.ErrEnded)
	h.gone(r.Key)
}

func dropWithoutTombstone(h *harness) {
	r := h.saved("call")
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, 0))
	h.takeIs(r.Key, dialog.ErrNotKept)
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, 0))
	h.takeIs(r.Key, dialog.ErrNotKept)
}

func staleDrop(h *harness) {
	r := h.saved("call")
	h.take(r.Key, "b")
	h.is("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute), dialog.ErrMoved)
	h.is("Drop", h.Drop(h.ctx, r.Key, 1, 0), dialog.ErrMoved)
	if got := h.take(r.Key, "c"); got.Fence != 3 || string(got.Data) != "call" {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
	h.none("Drop", h.Drop(h.ctx, r.Key, 3, time.Minute))
	h.none("Drop", h.Drop(h.ctx, r.Key, 1, time.Minute)) // the call has ended, whichever owner drops it
	r.Fence, r.Owner = 3, "c"
	h.ended(r)
}

// dropAll is of a [dialog.PromptStore].
func dropAll(h *harness) {
	s, ok := h.Store.(dialog.PromptStore)
	if !ok {
		h.Skip("no PromptStore")
	}
	if p := s.Prompt(); p != nil && p != h.Store {
		h.Fatal("Prompt is another Store")
	}
	moved, never := h.saved("moved"), record("never saved")
	h.take(moved.Key, "b")
	list := []dialog.Record{h.saved("one"), moved, never, h.saved("two"), h.saved("three")}
	for range 2 {
		errs := s.DropAll(h.ctx, list, time.Minute)
		if len(errs) != len(list) {
			h.Fatalf("%d errors for %d calls", len(errs), len(list))
		}
		for i, err := range errs {
			if list[i].Key == moved.Key {
				h.is("DropAll", err, dialog.ErrMoved)
			} else {
				h.none("DropAll", err)
				h.ended(list[i])
			}
		}
	}
	h.none("DropAll of one", errors.Join(s.DropAll(h.ctx, []dialog.Record{h.saved("four")}, time.Minute)...))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, n := range []int{1, 3} {
		left := []dialog.Record{h.saved("a"), h.saved("b"), h.saved("c")}[:n]
		for i, err := range s.DropAll(ended, left, time.Minute) {
			h.is("DropAll", err, context.Canceled)
			h.none("Check", h.Check(h.ctx, left[i].Key, left[i].Fence))
		}
	}
}

func endedContext(h *harness) {
	r := h.saved("call")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	changed := r
	changed.Data = []byte("changed")
	_, taken := h.Take(ended, r.Key, "b")
	_, due := h.Due(ended, time.Now().Add(48*time.Hour), "b", 10)
	for what, err := range map[string]error{
		"Save": h.Save(ended, changed), "Take": taken, "Check": h.Check(ended, r.Key, 1),
		"Drop": h.Drop(ended, r.Key, 1, time.Minute), "Due": due,
	} {
		h.is(what, err, context.Canceled)
	}
	if got := h.take(r.Key, "b"); got.Fence != 2 || string(got.Data) != "call" {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
}
