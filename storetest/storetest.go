// Package storetest tests whether an implementation of [dialog.Store] follows the
// documentation of the interface. The author of an implementation calls it like this:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) dialog.Store { return open(t) })
//	}
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"sipdialog.example/dialog"
)

// patience is the time for which a test waits for an event.
const patience = 20 * time.Second

// inexact bounds the error of a stored time: engines round to milliseconds, and may use
// their own clock, so that the time of a slow operation is an error.
const inexact = 10 * time.Second

// Run tests the Stores that open returns. open is called once for each of the tests, which
// run at the same time: each Store must be empty, and must not see the records of another.
// open closes its resources with t.Cleanup. Run takes some seconds, since records must
// expire. Use the race detector.
func Run(t *testing.T, open func(t *testing.T) dialog.Store) {
	for _, c := range []struct {
		name string
		test func(h *harness)
	}{
		{"a record comes back as it was saved", recordComesBack},
		{"what was never saved is not kept", nothingIsKept},
		{"data of any bytes and of any length", anyData},
		{"owners of any letters", anyOwner},
		{"calls do not meet", callsDoNotMeet},
		{"the latest Save counts", latestSave},
		{"a fence is never lowered", fenceIsNeverLowered},
		{"a fence has one owner", fenceHasOneOwner},
		{"a Store that has lost a record takes it back", lostRecord},
		{"Take raises the fence", takeRaisesFence},
		{"each of many Takes has a fence of its own", takeByMany},
		{"Check says who has moved", check},
		{"Drop leaves a tombstone", dropLeavesTombstone},
		{"Drop of nothing leaves a tombstone", dropOfNothing},
		{"a tombstone yields to a higher fence", tombstoneYields},
		{"a tombstone goes", tombstoneGoes},
		{"Drop without a tombstone", dropWithoutTombstone},
		{"Drop by a stale owner is refused", staleDrop},
		{"DropAll is Drop of each", dropAll},
		{"a record expires", recordExpires},
		{"a Save moves the end of a record", saveMovesExpiry},
		{"Due takes what is due", dueTakes},
		{"Due takes no more than asked", dueTakesNoMore},
		{"Due by a Save", dueBySave},
		{"a claim lapses", claimLapses},
		{"many claim each record once", dueByMany},
		{"Peek takes nothing", peekTakesNothing},
		{"DueIf leaves what is not wanted", dueIfLeavesOthers},
		{"many claim some records once", dueIfByMany},
		{"Saves at once", savesAtOnce},
		{"an acknowledgement that was lost", lostAcknowledgement},
		{"a context that has ended", endedContext},
		{"many owners at random", manyOwners},
		{"a former owner is told", formerOwnerIsTold},
		{"only the former owner is told, until it stops", onlyFormerOwnerIsTold},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			c.test(&harness{T: t, Store: open(t), ctx: ctx})
		})
	}
}

// harness is one test.
type harness struct {
	*testing.T
	dialog.Store
	ctx context.Context
}

// newKey is the key of a call that was never seen.
func newKey() dialog.StoreKey { return dialog.NewStoreKey(rand.Text(), rand.Text()) }

// record returns a record that "a" may save first.
func record(data string) dialog.Record {
	return dialog.Record{
		Key: newKey(), Fence: 1, Owner: "a", Data: []byte(data),
		Due: time.Now().Add(time.Hour), Expires: time.Now().Add(2 * time.Hour),
	}
}

func (h *harness) save(r dialog.Record) {
	h.Helper()
	h.none("Save", h.Save(h.ctx, r))
}

// saved saves a record of "a".
func (h *harness) saved(data string) dialog.Record {
	h.Helper()
	r := record(data)
	h.save(r)
	return r
}

func (h *harness) take(key dialog.StoreKey, owner string) dialog.Record {
	h.Helper()
	r, err := h.Take(h.ctx, key, owner)
	h.none("Take", err)
	return r
}

func (h *harness) due(before time.Time, owner string, n int) []dialog.Record {
	h.Helper()
	list, err := h.Due(h.ctx, before, owner, n)
	h.none("Due", err)
	return list
}

func (h *harness) none(what string, err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("%s: %v", what, err)
	}
}

func (h *harness) is(what string, err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.Fatalf("%s: %v, not %v", what, err, want)
	}
}

func (h *harness) takeIs(key dialog.StoreKey, want error) {
	h.Helper()
	_, err := h.Take(h.ctx, key, "other")
	h.is("Take", err, want)
}

// same compares a record with the one that was saved.
func (h *harness) same(got, want dialog.Record) {
	h.Helper()
	if got.Key != want.Key || got.Fence != want.Fence || got.Owner != want.Owner {
		h.Fatalf("record %v fence %d of %q, not %v fence %d of %q", got.Key, got.Fence, got.Owner, want.Key, want.Fence, want.Owner)
	}
	if string(got.Data) != string(want.Data) {
		h.Fatalf("%d bytes of data, not those %d that were saved", len(got.Data), len(want.Data))
	}
	h.sameTime("Due", got.Due, want.Due)
	h.sameTime("Expires", got.Expires, want.Expires)
}

func (h *harness) sameTime(what string, got, want time.Time) {
	h.Helper()
	off := got.Sub(want)
	if got.IsZero() != want.IsZero() || !want.IsZero() && (off > inexact || off < -inexact) {
		h.Fatalf("%s: %v, not %v", what, got, want)
	}
}

// comes waits for a condition, and reports whether it became true.
func comes(condition func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// lives writes something that lasts for a short time, and checks what is said of it. If that
// took longer, the machine is slow, and the time is doubled.
func (h *harness) lives(write func(life time.Duration) error, want error) {
	h.Helper()
	for life := 1500 * time.Millisecond; ; life *= 2 {
		began := time.Now()
		err := write(life)
		if time.Since(began) < life {
			h.is("while it lasts", err, want)
			return
		}
	}
}

// gone waits until a key has neither a record nor a tombstone.
func (h *harness) gone(key dialog.StoreKey) {
	h.Helper()
	if !comes(func() bool { return errors.Is(h.Check(h.ctx, key, 1), dialog.ErrNotKept) }) {
		h.Fatalf("still kept after %v", patience)
	}
	h.takeIs(key, dialog.ErrNotKept)
}
