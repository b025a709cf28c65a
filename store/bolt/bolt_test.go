package bolt_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	bberrors "go.etcd.io/bbolt/errors"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/bolt"
	"sipdialog.example/dialog/storetest"
)

func open(t *testing.T, path string, opts *bolt.Options) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	for name, opts := range map[string]*bolt.Options{"written to the disk": nil, "left to the operating system": {NoSync: true}} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) dialog.Store {
				return open(t, filepath.Join(t.TempDir(), "calls"), opts)
			})
		})
	}
}

// A process that is started anew finds its calls again, and what is due, and the
// tombstones.
func TestCallsOutliveTheProcess(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "calls")
	s := open(t, path, nil)
	call := dialog.Record{Key: dialog.NewStoreKey("call", "tag"), Fence: 1, Owner: "a", Due: time.Now().Add(-time.Second), Data: []byte("call")}
	ended := dialog.Record{Key: dialog.NewStoreKey("ended", "tag"), Fence: 1, Owner: "a"}
	for _, r := range []dialog.Record{call, ended} {
		if err := s.Save(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drop(ctx, ended.Key, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	list, err := s.Due(ctx, time.Now(), "b", 10)
	if err != nil || len(list) != 1 || list[0].Key != call.Key || string(list[0].Data) != "call" || list[0].Fence != 2 {
		t.Fatalf("due: %v, %v", list, err)
	}
	if _, err := s.Take(ctx, ended.Key, "b"); !errors.Is(err, dialog.ErrEnded) {
		t.Fatal(err)
	}
}

// One process has the file at a time; the next waits for it.
func TestFileOfAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls")
	first := open(t, path, nil)
	if _, err := bolt.Open(path, &bolt.Options{LockTimeout: time.Millisecond}); !errors.Is(err, bberrors.ErrTimeout) {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		second, err := bolt.Open(path, &bolt.Options{LockTimeout: -1})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "calls"), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := s.Save(context.Background(), dialog.Record{Fence: 1})
	if !errors.Is(err, bberrors.ErrDatabaseNotOpen) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Expired records leave the file with later changes.
func TestExpiredRecordsLeaveTheFile(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "calls"), &bolt.Options{NoSync: true})
	for _, id := range []string{"1", "2", "3"} {
		err := s.Save(ctx, dialog.Record{Key: dialog.NewStoreKey(id, ""), Fence: 1, Due: time.Now().Add(time.Hour), Expires: time.Now().Add(-time.Second)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drop(ctx, dialog.NewStoreKey("4", ""), 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if calls, due, expires := s.Sizes(); calls != 1 || due != 0 || expires != 1 {
		t.Fatalf("%d calls, %d due, %d expire", calls, due, expires)
	}
}
