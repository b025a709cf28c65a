package redis_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/redis"
	"sipdialog.example/dialog/storetest"
)

func TestConformance(t *testing.T) {
	client := start(t).client(t)
	var opened atomic.Int32
	storetest.Run(t, func(*testing.T) dialog.Store {
		return store.New(client, &store.Options{Prefix: fmt.Sprintf("test%d:", opened.Add(1))})
	})
}

// Dropped, expired and taken records leave no key behind.
func TestNoKeyIsLeft(t *testing.T) {
	client := start(t).client(t)
	s, ctx := store.New(client, nil), context.Background()
	for i := range 20 {
		r := record(fmt.Sprint(i))
		r.Due, r.Expires = time.Now().Add(-time.Second), time.Now().Add(time.Second)
		must(t, s.Save(ctx, r))
		if i%2 == 0 {
			must(t, s.Drop(ctx, r.Key, 1, 500*time.Millisecond))
		}
	}
	if _, err := s.Due(ctx, time.Now(), "b", 5); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(client.Keys(ctx, "sipdialog:*:????????*").Val()) == 0 })
	if list, err := s.Due(ctx, time.Now().Add(time.Hour), "b", 100); err != nil || len(list) != 0 {
		t.Fatalf("%d are due, %v", len(list), err)
	}
	if keys := client.Keys(ctx, "*").Val(); len(keys) != 0 {
		t.Fatalf("left: %q", keys)
	}
}

// A server that is killed and comes back empty: the owner saves its call again, with the
// fence that it has, and is found by others.
func TestServerThatComesBackEmpty(t *testing.T) {
	server := start(t)
	s, ctx := store.New(server.client(t), nil), context.Background()
	r := record("call")
	must(t, s.Save(ctx, r))
	taken, err := s.Take(ctx, r.Key, "b")
	must(t, err)

	server.kill()
	short, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = s.Check(short, r.Key, taken.Fence)
	if err == nil || errors.Is(err, dialog.ErrNotKept) || errors.Is(err, dialog.ErrMoved) {
		t.Fatalf("a server that is down: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("%v for an operation of 250 ms", took)
	}

	server.run()
	if err := s.Check(ctx, r.Key, taken.Fence); !errors.Is(err, dialog.ErrNotKept) {
		t.Fatal(err)
	}
	must(t, s.Save(ctx, taken))
	again, err := s.Take(ctx, r.Key, "c")
	must(t, err)
	if again.Fence != 3 || string(again.Data) != "call" {
		t.Fatalf("fence %d of %q", again.Fence, again.Data)
	}
	if err := s.Save(ctx, taken); !errors.Is(err, dialog.ErrMoved) {
		t.Fatal(err)
	}
}

// A server that does not answer costs no more than the context allows.
func TestServerThatHangs(t *testing.T) {
	server := start(t)
	client := server.client(t)
	s := store.New(client, nil)
	must(t, s.Save(context.Background(), record("call")))
	server.stop()
	defer server.goOn()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := s.Save(ctx, record("other")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("%v for an operation of 200 ms", took)
	}
}

// A server that holds no scripts yet, as one that was started anew, is given them.
func TestScriptsAreLoaded(t *testing.T) {
	client := start(t).client(t)
	s, ctx := store.New(client, nil), context.Background()
	r := record("call")
	must(t, s.Save(ctx, r))
	must(t, client.ScriptFlush(ctx).Err())
	must(t, s.Save(ctx, r))
	must(t, s.Check(ctx, r.Key, 1))
	must(t, client.ScriptFlush(ctx).Err())
	list := []dialog.Record{r, record("other"), record("third")}
	must(t, errors.Join(s.DropAll(ctx, list, time.Minute)...))
	for _, r := range list {
		if err := s.Check(ctx, r.Key, 1); !errors.Is(err, dialog.ErrEnded) {
			t.Fatal(err)
		}
	}
}

// A Store whose client heeds contexts is prompt, with a server that hangs and one that is
// gone, and no other is.
func TestPrompt(t *testing.T) {
	server := start(t)
	client := server.client(t)
	s := store.New(client, nil)
	if s.Prompt() != dialog.Store(s) {
		t.Fatal("it is not prompt")
	}
	o := options(server.socket)
	o.ContextTimeoutEnabled = false
	heedless := redis.NewClient(o)
	defer func() { _ = heedless.Close() }()
	if store.New(heedless, nil).Prompt() != nil {
		t.Fatal("a client that does not heed contexts is not prompt")
	}
	must(t, s.Save(context.Background(), record("call")))
	const wait, most = 200 * time.Millisecond, 1500 * time.Millisecond
	fails := func() {
		t.Helper()
		list := []dialog.Record{record("call"), record("other")}
		for _, ask := range []func(context.Context) error{
			func(ctx context.Context) error { return s.Save(ctx, record("other")) },
			func(ctx context.Context) error { return s.DropAll(ctx, list[:1], time.Minute)[0] },
			func(ctx context.Context) error { return s.DropAll(ctx, list, time.Minute)[1] },
		} {
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			began := time.Now()
			err := ask(ctx)
			cancel()
			if took := time.Since(began); err == nil || took > most {
				t.Fatalf("%v after %v", err, took)
			}
		}
	}
	server.stop()
	fails()
	server.goOn()
	server.kill()
	fails()
}

// All keys of a call are in one slot of a cluster, those of all calls in 256.
func TestKeysShareASlot(t *testing.T) {
	client := start(t).client(t)
	s, ctx := store.New(client, nil), context.Background()
	r := record("call")
	must(t, s.Save(ctx, r))
	keys, err := client.Keys(ctx, "*").Result()
	must(t, err)
	tag := fmt.Sprintf("sipdialog:{%02x}:", r.Key[0])
	want := map[string]bool{tag + r.Key.String(): true, tag + "due": true}
	if len(keys) != len(want) || !want[keys[0]] || !want[keys[1]] {
		t.Fatalf("keys %q", keys)
	}
}

func record(id string) dialog.Record {
	return dialog.Record{
		Key: dialog.NewStoreKey(id, "tag"), Fence: 1, Owner: "a", Data: []byte("call"),
		Due: time.Now().Add(time.Hour), Expires: time.Now().Add(2 * time.Hour),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s")
		}
	}
}

// options are those that Store's documentation asks for.
func options(socket string) *redis.Options {
	return &redis.Options{Network: "unix", Addr: socket, ContextTimeoutEnabled: true}
}
