package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sipdialog.example/dialog"
)

// peeker is the Store, if it shows records.
func (h *harness) peeker() dialog.Peeker {
	h.Helper()
	peeker, ok := h.Store.(dialog.Peeker)
	if !ok {
		h.Skip("the Store does not show records")
	}
	return peeker
}

func (h *harness) shows(want dialog.Record) {
	h.Helper()
	got, err := h.peeker().Peek(h.ctx, want.Key)
	h.none("Peek", err)
	h.same(got, want)
}

func (h *harness) peekIs(key dialog.StoreKey, want error) {
	h.Helper()
	_, err := h.peeker().Peek(h.ctx, key)
	h.is("Peek", err, want)
}

func peekTakesNothing(h *harness) {
	h.peekIs(newKey(), dialog.ErrNotKept)
	r := h.saved("call")
	h.shows(r)
	h.shows(r)
	h.none("Check", h.Check(h.ctx, r.Key, 1))
	h.save(r)
	r.Fence, r.Owner = 2, "b"
	h.same(h.take(r.Key, "b"), r)
	h.shows(r)
	h.none("Drop", h.Drop(h.ctx, r.Key, 2, time.Minute))
	h.peekIs(r.Key, dialog.ErrEnded)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := h.peeker().Peek(ended, r.Key)
	h.is("Peek", err, context.Canceled)
}

func isMine(r dialog.Record) bool { return string(r.Data) == "mine" }

// dueIf takes those of the due records whose data is "mine".
func (h *harness) dueIf(before time.Time, owner string, n int) []dialog.Record {
	h.Helper()
	list, err := h.peeker().DueIf(h.ctx, before, owner, n, isMine)
	h.none("DueIf", err)
	return list
}

// dueIfLeavesOthers has more records that are not wanted than are asked for at once.
func dueIfLeavesOthers(h *harness) {
	var theirs []dialog.Record
	began := time.Now()
	for i := range 20 {
		r := record("theirs")
		r.Due = began.Add(-time.Duration(i+2) * time.Minute)
		h.save(r)
		theirs = append(theirs, r)
	}
	mine := record("mine")
	mine.Due = began.Add(-time.Minute)
	h.save(mine)
	before := time.Now()
	h.noneOf(h.dueIf(mine.Due.Add(-10*time.Second), "b", 5))
	h.noneOf(h.dueIf(before, "b", 0))
	mine.Fence, mine.Owner, mine.Due = 2, "b", before.Add(dialog.ClaimTime)
	list := h.dueIf(before, "b", 5)
	if len(list) != 1 {
		h.Fatalf("%d records are due", len(list))
	}
	h.same(list[0], mine)
	h.noneOf(h.dueIf(before, "b", 5))
	for _, r := range theirs {
		h.shows(r)
		h.save(r) // its owner still has it
	}
	if list := h.due(before, "c", 30); len(list) != len(theirs) {
		h.Fatalf("%d records are due", len(list))
	}
}

func dueIfByMany(h *harness) {
	const many, claimers = 100, 8
	peeker := h.peeker()
	began := time.Now()
	for i := range many {
		r := record("mine")
		r.Due = began.Add(-time.Duration(i+1) * time.Second)
		h.save(r)
	}
	before := time.Now()
	var mu sync.Mutex
	claimed := make(map[dialog.StoreKey]int)
	h.atOnce(claimers, func(i int) error {
		for {
			list, err := peeker.DueIf(h.ctx, before, fmt.Sprint("claimer ", i), 7, isMine)
			if len(list) == 0 || err != nil {
				return err
			}
			mu.Lock()
			for _, r := range list {
				claimed[r.Key]++
				if r.Fence != 2 {
					h.Errorf("fence %d", r.Fence)
				}
			}
			mu.Unlock()
		}
	})
	for key, times := range claimed {
		if times != 1 {
			h.Fatalf("%v was claimed %d times", key, times)
		}
	}
	rest := len(h.due(before, "last", many))
	if len(claimed)+rest != many {
		h.Fatalf("%d of %d records were claimed, %d are left", len(claimed), many, rest)
	}
}
