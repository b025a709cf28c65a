package storetest

import (
	"bytes"
	"crypto/rand"
	"time"

	"sipdialog.example/dialog"
)

func recordComesBack(h *harness) {
	r := h.saved("call")
	want := r
	want.Fence, want.Owner = 2, "b"
	h.same(h.take(r.Key, "b"), want)

	r = record("without times")
	r.Due, r.Expires = time.Time{}, time.Time{}
	h.save(r)
	want = r
	want.Fence, want.Owner = 2, "b"
	h.same(h.take(r.Key, "b"), want)
}

func nothingIsKept(h *harness) {
	key := newKey()
	h.takeIs(key, dialog.ErrNotKept)
	h.is("Check", h.Check(h.ctx, key, 1), dialog.ErrNotKept)
	if list := h.due(time.Now().Add(time.Hour), "b", 10); len(list) != 0 {
		h.Fatalf("%d records are due", len(list))
	}
}

func anyData(h *harness) {
	random := make([]byte, 64<<10)
	_, _ = rand.Read(random)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, data := range [][]byte{nil, {0}, all, random} {
		r := record("")
		r.Data = bytes.Clone(data)
		h.save(r)
		clear(r.Data) // it is the caller's again
		got := h.take(r.Key, "b")
		if !bytes.Equal(got.Data, data) {
			h.Fatalf("%d bytes have come back as %d others", len(data), len(got.Data))
		}
		clear(got.Data)
		if again := h.take(r.Key, "b"); !bytes.Equal(again.Data, data) {
			h.Fatal("a record that was returned is that of the Store itself")
		}
	}
}

func anyOwner(h *harness) {
	for _, owner := range []string{"node-7.3f9a", "a b:c/d.*>|\"'\\", "nœud\n1", string(bytes.Repeat([]byte("x"), 255))} {
		r := record("call")
		r.Owner = owner
		h.save(r)
		h.save(r) // the fence is still this owner's
		if got := h.take(r.Key, owner); got.Owner != owner {
			h.Fatalf("owner %q, not %q", got.Owner, owner)
		}
	}
}

// callsDoNotMeet has keys that differ in one byte only.
func callsDoNotMeet(h *harness) {
	var keys []dialog.StoreKey
	first := newKey()
	for i := range 256 {
		near, far := first, first
		near[0], far[15] = byte(i), byte(i)
		keys = append(keys, near, far)
	}
	kept := make(map[dialog.StoreKey]bool)
	for _, key := range keys {
		if kept[key] {
			continue // first itself
		}
		kept[key] = true
		r := record(key.String())
		r.Key = key
		h.save(r)
	}
	for key := range kept {
		if got := h.take(key, "b"); string(got.Data) != key.String() || got.Fence != 2 {
			h.Fatalf("%v: fence %d of %q", key, got.Fence, got.Data)
		}
	}
}

func latestSave(h *harness) {
	r := h.saved("one")
	for _, data := range []string{"two", "", "three"} {
		r.Data = []byte(data)
		r.Due = r.Due.Add(time.Hour)
		h.save(r)
	}
	want := r
	want.Fence, want.Owner = 2, "b"
	h.same(h.take(r.Key, "b"), want)
}

func recordExpires(h *harness) {
	r := record("call")
	h.lives(func(life time.Duration) error {
		r.Expires = time.Now().Add(life)
		h.save(r)
		return h.Check(h.ctx, r.Key, 1)
	}, nil)
	h.gone(r.Key)
	if list := h.due(time.Now().Add(48*time.Hour), "b", 10); len(list) != 0 {
		h.Fatalf("%d records are due", len(list))
	}

	r = record("over")
	r.Expires = time.Now().Add(-time.Minute)
	h.save(r)
	h.gone(r.Key)
}

func saveMovesExpiry(h *harness) {
	later, never, marker := record("later"), record("never"), record("marker")
	for _, r := range []*dialog.Record{&later, &never, &marker} {
		r.Expires = time.Now().Add(1500 * time.Millisecond)
		h.save(*r)
	}
	later.Expires = time.Now().Add(time.Hour)
	h.save(later)
	never.Expires = time.Time{}
	h.save(never)
	h.gone(marker.Key)
	for _, r := range []dialog.Record{later, never} {
		want := r
		want.Fence, want.Owner = 2, "b"
		h.same(h.take(r.Key, "b"), want)
	}
}
