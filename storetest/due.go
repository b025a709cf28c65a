package storetest

import (
	"fmt"
	"sync"
	"time"

	"sipdialog.example/dialog"
)

func dueTakes(h *harness) {
	base := time.Now().Add(time.Hour)
	r := record("call")
	r.Due = base
	h.save(r)
	never := record("never due")
	never.Due = time.Time{}
	h.save(never)
	h.noneDue(base.Add(-10 * time.Second))
	before := base.Add(10 * time.Second)
	want := r
	want.Fence, want.Owner, want.Due = 2, "b", before.Add(dialog.ClaimTime)
	list := h.due(before, "b", 10)
	if len(list) != 1 {
		h.Fatalf("%d records are due", len(list))
	}
	h.same(list[0], want)
	h.noneDue(before)
	h.is("Save", h.Save(h.ctx, r), dialog.ErrMoved)
	want.Fence, want.Owner = 3, "c"
	h.same(h.take(r.Key, "c"), want)
}

func (h *harness) noneDue(before time.Time) {
	h.Helper()
	if list := h.due(before, "nobody", 10); len(list) != 0 {
		h.Fatalf("%d records are due", len(list))
	}
}

func dueTakesNoMore(h *harness) {
	const all, some = 10, 4
	for range all {
		r := record("call")
		r.Due = time.Now().Add(-time.Minute)
		h.save(r)
	}
	h.noneOf(h.due(time.Now(), "b", 0))
	seen := make(map[dialog.StoreKey]bool)
	for len(seen) < all {
		list := h.due(time.Now(), "b", some)
		if len(list) != min(some, all-len(seen)) {
			h.Fatalf("%d records after %d", len(list), len(seen))
		}
		for _, r := range list {
			seen[r.Key] = true
		}
	}
	h.noneOf(h.due(time.Now(), "b", some))
}

func (h *harness) noneOf(list []dialog.Record) {
	h.Helper()
	if len(list) != 0 {
		h.Fatalf("%d records are due", len(list))
	}
}

// dueBySave moves the time at which a record is due, there and back.
func dueBySave(h *harness) {
	soon, late := time.Now().Add(-time.Second), time.Now().Add(3*time.Hour)
	r := record("call")
	r.Due, r.Expires = soon, time.Now().Add(5*time.Hour)
	h.save(r)
	r.Due = late
	h.save(r)
	h.noneDue(late.Add(-time.Minute))
	r.Due = soon
	h.save(r)
	r.Due = time.Time{}
	h.save(r)
	h.noneDue(late.Add(time.Minute))
	r.Due = soon
	h.save(r)
	if list := h.due(time.Now(), "b", 10); len(list) != 1 || list[0].Key != r.Key {
		h.Fatalf("%d records are due", len(list))
	}
	r.Fence, r.Owner, r.Due = 2, "b", late
	h.save(r) // the owner has seen to it
	h.noneDue(late.Add(-time.Minute))
	if got := h.take(r.Key, "c"); got.Fence != 3 {
		h.Fatalf("fence %d", got.Fence)
	}
	if list := h.due(late.Add(time.Minute), "d", 10); len(list) != 1 || list[0].Fence != 4 {
		h.Fatalf("%d records are due", len(list))
	}
}

// claimLapses is of an owner that has died with what it has claimed.
func claimLapses(h *harness) {
	r := record("call")
	r.Due = time.Now().Add(-time.Second)
	h.save(r)
	now := time.Now()
	for i, owner := range []string{"b", "c", "d"} {
		list := h.due(now, owner, 10)
		if len(list) != 1 || list[0].Key != r.Key || list[0].Fence != uint64(i)+2 || list[0].Owner != owner {
			h.Fatalf("%s has claimed %v", owner, list)
		}
		h.noneDue(now.Add(dialog.ClaimTime - 5*time.Second))
		now = now.Add(dialog.ClaimTime + 5*time.Second)
	}
}

func dueByMany(h *harness) {
	const many, claimers = 200, 8
	began := time.Now()
	for i := range many {
		r := record(fmt.Sprint(i))
		r.Due = began.Add(-time.Duration(i+1) * time.Second) // a server's clock is known to some milliseconds
		h.save(r)
	}
	before := time.Now()
	var mu sync.Mutex
	claimed := make(map[dialog.StoreKey]int)
	h.atOnce(claimers, func(i int) error {
		for nothing := 0; nothing < 3; {
			list, err := h.Due(h.ctx, before, fmt.Sprint("claimer ", i), 7)
			if err != nil {
				return err
			}
			nothing++
			mu.Lock()
			for _, r := range list {
				claimed[r.Key]++
				nothing = 0
				if r.Fence != 2 || r.Owner != fmt.Sprint("claimer ", i) {
					err = fmt.Errorf("fence %d of %q", r.Fence, r.Owner)
				}
			}
			mu.Unlock()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if len(claimed) != many {
		h.Fatalf("%d of %d records were claimed", len(claimed), many)
	}
	for key, times := range claimed {
		if times != 1 {
			h.Fatalf("%v was claimed %d times", key, times)
		}
	}
}
