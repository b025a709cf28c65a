package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"sipdialog.example/dialog"
)

func fenceIsNeverLowered(h *harness) {
	r := h.saved("old")
	r.Fence, r.Owner, r.Data = 3, "c", []byte("new")
	h.save(r)
	stale := r
	for fence, owner := range map[uint64]string{1: "a", 2: "b"} {
		stale.Fence, stale.Owner, stale.Data = fence, owner, []byte("stale")
		h.is("Save", h.Save(h.ctx, stale), dialog.ErrMoved)
	}
	if got := h.take(r.Key, "d"); got.Fence != 4 || string(got.Data) != "new" {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
}

// fenceHasOneOwner is of a Store that has lost a Take: its fence is given once more.
func fenceHasOneOwner(h *harness) {
	r := h.saved("call")
	h.take(r.Key, "b")
	r.Fence, r.Owner = 2, "c"
	h.is("Save", h.Save(h.ctx, r), dialog.ErrMoved)
	r.Owner = "b"
	h.save(r)
}

// lostRecord is of a Store that has lost all, or the latest changes.
func lostRecord(h *harness) {
	r := record("call")
	r.Fence, r.Owner = 7, "g"
	h.save(r)
	if got := h.take(r.Key, "h"); got.Fence != 8 {
		h.Fatalf("fence %d", got.Fence)
	}
	r = h.saved("before")
	h.none("Check", h.Check(h.ctx, r.Key, 5))
	r.Fence, r.Owner, r.Data = 5, "e", []byte("after")
	h.save(r)
	if got := h.take(r.Key, "f"); got.Fence != 6 || string(got.Data) != "after" {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
}

func takeRaisesFence(h *harness) {
	r := h.saved("call")
	for i, owner := range []string{"b", "c", "a"} {
		want := r
		want.Fence, want.Owner = uint64(i)+2, owner
		h.same(h.take(r.Key, owner), want)
	}
	h.is("Save", h.Save(h.ctx, r), dialog.ErrMoved)
	r.Fence = 4
	h.save(r)

	r = record("large fence")
	r.Fence = 1<<53 - 3
	h.save(r)
	if got := h.take(r.Key, "b"); got.Fence != 1<<53-2 {
		h.Fatalf("fence %d", got.Fence)
	}
	h.is("Save", h.Save(h.ctx, r), dialog.ErrMoved)
}

func takeByMany(h *harness) {
	const many = 16
	r := h.saved("call")
	taken := make([]dialog.Record, many)
	h.atOnce(many, func(i int) error {
		var err error
		taken[i], err = h.Take(h.ctx, r.Key, fmt.Sprint("owner ", i))
		return err
	})
	var fences []uint64
	for _, r := range taken {
		fences = append(fences, r.Fence)
	}
	slices.Sort(fences)
	for i, fence := range fences {
		if fence != uint64(i)+2 {
			h.Fatalf("fences %v", fences)
		}
	}
	for i, r := range taken {
		if r.Owner != fmt.Sprint("owner ", i) {
			h.Fatalf("owner %q of %d", r.Owner, i)
		}
		if r.Fence == many+1 {
			h.save(r)
			continue
		}
		h.is("Save", h.Save(h.ctx, r), dialog.ErrMoved)
	}
}

func check(h *harness) {
	r := h.saved("call")
	h.none("Check", h.Check(h.ctx, r.Key, 1))
	h.take(r.Key, "b")
	h.is("Check", h.Check(h.ctx, r.Key, 1), dialog.ErrMoved)
	h.none("Check", h.Check(h.ctx, r.Key, 2))
	h.none("Check", h.Check(h.ctx, r.Key, 3))
	h.none("Drop", h.Drop(h.ctx, r.Key, 2, time.Minute))
	h.is("Check", h.Check(h.ctx, r.Key, 1), dialog.ErrEnded)
	h.is("Check", h.Check(h.ctx, r.Key, 2), dialog.ErrEnded)
	h.none("Check", h.Check(h.ctx, r.Key, 3))
}

func savesAtOnce(h *harness) {
	const many = 16
	r := h.saved("before")
	h.atOnce(many, func(i int) error {
		r := r
		r.Data = []byte(fmt.Sprint("data ", i))
		r.Due = r.Due.Add(time.Duration(i) * time.Hour)
		return h.Save(h.ctx, r)
	})
	got := h.take(r.Key, "b")
	var last int
	if _, err := fmt.Sscanf(string(got.Data), "data %d", &last); err != nil {
		h.Fatalf("data %q", got.Data)
	}
	h.sameTime("Due", got.Due, r.Due.Add(time.Duration(last)*time.Hour))
	got.Data = []byte("after")
	h.save(got)
	if got := h.take(r.Key, "c"); string(got.Data) != "after" || got.Fence != 3 {
		h.Fatalf("fence %d of %q", got.Fence, got.Data)
	}
}

// lostAcknowledgement does everything twice, as one does whose first try was carried
// out and not answered.
func lostAcknowledgement(h *harness) {
	r := h.saved("call")
	h.save(r)
	first := h.take(r.Key, "b")
	second := h.take(r.Key, "b")
	if second.Fence != first.Fence+1 || second.Owner != "b" || string(second.Data) != "call" {
		h.Fatalf("fence %d of %q after %d", second.Fence, second.Owner, first.Fence)
	}
	h.save(second)
	h.save(second)
	h.none("Drop", h.Drop(h.ctx, r.Key, second.Fence, time.Minute))
	h.none("Drop", h.Drop(h.ctx, r.Key, second.Fence, time.Minute))
	h.takeIs(r.Key, dialog.ErrEnded)
	h.is("Save", h.Save(h.ctx, second), dialog.ErrEnded)
}

// atOnce calls a function many times at once; no error is expected.
func (h *harness) atOnce(many int, f func(i int) error) {
	h.Helper()
	errs := make([]error, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for _, err := range errs {
		h.none("at once", err)
	}
}
