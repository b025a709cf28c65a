package nats_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/nats"
	"sipdialog.example/dialog/storetest"
)

// start starts a server in this process, without a port, whose files are in a folder. It
// ends with the test.
func start(t *testing.T, folder string) (js jetstream.JetStream, stop func()) {
	t.Helper()
	s := run(t, &server.Options{StoreDir: folder, DontListen: true})
	js = connect(t, "", nats.InProcessServer(s))
	stop = func() {
		js.Conn().Close()
		s.Shutdown()
		s.WaitForShutdown()
	}
	t.Cleanup(stop)
	return js, stop
}

// run runs a server.
func run(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()
	opts.JetStream, opts.NoSigs = true, true
	s, err := server.NewServer(opts)
	must(t, err)
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url, opts...)
	must(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	must(t, err)
	return js
}

func open(t *testing.T, js jetstream.JetStream, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), js, opts)
	must(t, err)
	return s
}

func TestConformance(t *testing.T) {
	js, _ := start(t, t.TempDir())
	var opened atomic.Int32
	storetest.Run(t, func(t *testing.T) dialog.Store {
		return open(t, js, store.Options{Bucket: fmt.Sprint("test", opened.Add(1)), Memory: true})
	})
}

// Calls outlive the server, which has them in files.
func TestCallsOutliveTheServer(t *testing.T) {
	folder, ctx := t.TempDir(), context.Background()
	js, stop := start(t, folder)
	r := record("call", time.Now().Add(-time.Second))
	must(t, open(t, js, store.Options{}).Save(ctx, r))
	stop()
	js, _ = start(t, folder)
	list, err := open(t, js, store.Options{}).Due(ctx, time.Now(), "b", 10)
	must(t, err)
	if len(list) != 1 || list[0].Key != r.Key || list[0].Fence != 2 || string(list[0].Data) != "call" {
		t.Fatalf("due: %v", list)
	}
}

// A process that begins later finds what became due before it, however long ago; and so
// does another whose clock, and sweep, are ahead.
func TestDueOfLongAgo(t *testing.T) {
	js, _ := start(t, t.TempDir())
	s, ctx := open(t, js, store.Options{Memory: true}), context.Background()
	day := time.Now().Add(24 * time.Hour)
	for _, at := range []time.Duration{0, 3 * time.Minute, 7 * time.Hour} {
		must(t, s.Save(ctx, record(at.String(), day.Add(at))))
	}
	other := open(t, js, store.Options{})
	for _, late := range []time.Duration{time.Minute, time.Hour, 8 * time.Hour} {
		list, err := other.Due(ctx, day.Add(late), "b", 1)
		must(t, err)
		if len(list) != 1 {
			t.Fatalf("%d are due at %v", len(list), late)
		}
		r := list[0]
		r.Due = time.Time{}
		must(t, other.Save(ctx, r))
	}
	if subjects := stored(t, js, "due.>"); len(subjects) != 0 {
		t.Fatalf("left: %v", subjects)
	}
}

// A key by minute without a call is removed, once no process can be about to write the call.
func TestKeysThatLeadToNothingGo(t *testing.T) {
	js, _ := start(t, t.TempDir())
	s, ctx := open(t, js, store.Options{Memory: true}), context.Background()
	_, err := js.Publish(ctx, fmt.Sprint("$KV.sipdialog.due.", time.Now().Unix()/60, ".", dialog.NewStoreKey("none", "")), nil)
	must(t, err)
	for _, c := range []struct {
		late time.Duration
		left int
	}{{time.Minute, 1}, {20 * time.Minute, 0}} {
		list, err := s.Due(ctx, time.Now().Add(c.late), "b", 10)
		must(t, err)
		if left := stored(t, js, "due.>"); len(list) != 0 || len(left) != c.left {
			t.Fatalf("%d are due, %d keys are left at %v", len(list), len(left), c.late)
		}
	}
}

// Dropped and expired records leave nothing in the bucket.
func TestNothingIsLeft(t *testing.T) {
	js, _ := start(t, t.TempDir())
	s, ctx := open(t, js, store.Options{Memory: true}), context.Background()
	for i := range 10 {
		r := record(fmt.Sprint(i), time.Now().Add(time.Hour))
		must(t, s.Save(ctx, r))
		taken, err := s.Take(ctx, r.Key, "b")
		must(t, err)
		taken.Due = taken.Due.Add(time.Hour)
		must(t, s.Save(ctx, taken))
		must(t, s.Drop(ctx, r.Key, 2, time.Second))
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); len(stored(t, js, ">")) > 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", stored(t, js, ">"))
		}
	}
}

// A bucket whose keys cannot expire one by one is refused.
func TestBucketOfAnother(t *testing.T) {
	js, _ := start(t, t.TempDir())
	_, err := js.CreateKeyValue(context.Background(), jetstream.KeyValueConfig{Bucket: "other"})
	must(t, err)
	if _, err := store.Open(context.Background(), js, store.Options{Bucket: "other"}); err == nil {
		t.Fatal("opened")
	}
}

// A server that is down delays no longer than the context, and loses no call.
func TestServerThatIsGone(t *testing.T) {
	js, stop := start(t, t.TempDir())
	s := open(t, js, store.Options{})
	r := record("call", time.Time{})
	must(t, s.Save(context.Background(), r))
	stop()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	err := s.Save(ctx, r)
	if err == nil || errors.Is(err, dialog.ErrMoved) || errors.Is(err, dialog.ErrEnded) {
		t.Fatal(err)
	}
	if _, err = s.Take(ctx, r.Key, "b"); err == nil || errors.Is(err, dialog.ErrNotKept) {
		t.Fatal(err)
	}
}

// stored are the subjects of the bucket that match.
func stored(t *testing.T, js jetstream.JetStream, filter string) map[string]uint64 {
	t.Helper()
	ctx := context.Background()
	stream, err := js.Stream(ctx, "KV_sipdialog")
	must(t, err)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("$KV.sipdialog."+filter))
	must(t, err)
	return info.State.Subjects
}

func record(id string, due time.Time) dialog.Record {
	return dialog.Record{
		Key: dialog.NewStoreKey(id, "tag"), Fence: 1, Owner: "a", Data: []byte("call"),
		Due: due, Expires: time.Now().Add(72 * time.Hour),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
