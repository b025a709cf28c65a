package memory_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
	"sipdialog.example/dialog/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) dialog.Store { return memory.New() })
}

// Expired records are forgotten with later changes, without a look-up.
func TestExpiredRecordsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := memory.New(), context.Background()
		for i := range 1000 {
			err := s.Save(ctx, dialog.Record{Key: key(i), Fence: 1, Owner: "a", Expires: time.Now().Add(time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
		}
		if s.Len() != 1000 {
			t.Fatalf("%d calls", s.Len())
		}
		time.Sleep(time.Minute)
		if s.Len() != 0 {
			t.Fatalf("%d calls are left", s.Len())
		}
		lasting := dialog.Record{Key: key(-1), Fence: 1, Owner: "a"}
		for range 10_000 {
			if err := s.Save(ctx, lasting); err != nil {
				t.Fatal(err)
			}
		}
		if held := s.Held(); held > 10 {
			t.Fatalf("%d entries are held", held)
		}
	})
}

// Of many tombstones the oldest go early.
func TestTombstonesAreBounded(t *testing.T) {
	s, ctx := memory.New(), context.Background()
	for i := range memory.MaxTombstones + 10 {
		if err := s.Drop(ctx, key(i), 1, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if held := s.Held(); held != memory.MaxTombstones {
		t.Fatalf("%d entries are held", held)
	}
	for i, want := range map[int]error{0: dialog.ErrNotKept, 9: dialog.ErrNotKept, 10: dialog.ErrEnded} {
		if _, err := s.Take(ctx, key(i), "b"); !errors.Is(err, want) {
			t.Fatalf("tombstone %d: %v", i, err)
		}
	}
}

func key(i int) dialog.StoreKey { return dialog.NewStoreKey("call", strconv.Itoa(i)) }
