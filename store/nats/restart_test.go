package nats_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/nats"
)

// restarted is a server with a port, that is stopped and comes back empty.
type restarted struct {
	t *testing.T
	*server.Server
	port int
}

func (r *restarted) run() {
	r.Server = run(r.t, &server.Options{Host: "127.0.0.1", Port: r.port, StoreDir: r.t.TempDir()})
	r.port = r.Addr().(*net.TCPAddr).Port
}

func (r *restarted) stop() {
	r.Shutdown()
	r.WaitForShutdown()
}

// startListening starts one, and opens a Store in it whose connection is made anew soon.
func startListening(t *testing.T) (*restarted, *store.Store) {
	r := &restarted{t: t, port: -1}
	r.run()
	js := connect(t, r.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	return r, open(t, js, store.Options{})
}

// A server that comes back empty: the bucket is created anew, the owner saves its call again,
// with the fence that it has, and is found by others.
func TestServerThatComesBackEmpty(t *testing.T) {
	r, s := startListening(t)
	ctx := context.Background()
	call, other := record("call", time.Now().Add(-time.Second)), record("other", time.Time{})
	must(t, s.Save(ctx, call))
	taken, err := s.Take(ctx, call.Key, "b")
	must(t, err)
	r.stop()
	r.run()

	eventually(t, func() bool {
		err := s.Check(ctx, call.Key, taken.Fence)
		if errors.Is(err, dialog.ErrMoved) || errors.Is(err, dialog.ErrEnded) {
			t.Fatal(err)
		}
		return errors.Is(err, dialog.ErrNotKept)
	})
	must(t, s.Save(ctx, taken))
	list, err := s.Due(ctx, time.Now(), "c", 10)
	must(t, err)
	if len(list) != 1 || list[0].Fence != 3 || string(list[0].Data) != "call" {
		t.Fatalf("due: %v", list)
	}
	must(t, s.Drop(ctx, other.Key, 1, time.Minute))
}

// Due, too, goes on with a server that has lost everything.
func TestDueOfServerThatComesBackEmpty(t *testing.T) {
	r, s := startListening(t)
	r.stop()
	r.run()
	eventually(t, func() bool {
		list, err := s.Due(context.Background(), time.Now(), "b", 10)
		return err == nil && len(list) == 0
	})
}

// A listener outlives its connection.
func TestListenerOutlivesTheServer(t *testing.T) {
	r, s := startListening(t)
	told := make(chan dialog.StoreKey, 10_000)
	stop := s.NotifyMoved("a", func(key dialog.StoreKey) { told <- key })
	for range 2 {
		for len(told) > 0 {
			<-told
		}
		eventually(t, func() bool {
			call := record(time.Now().String(), time.Time{})
			if s.Save(context.Background(), call) == nil {
				_, _ = s.Take(context.Background(), call.Key, "b")
			}
			return len(told) > 0
		})
		r.stop()
		r.run()
	}
	stop()
	stop()
}

// A connection that is closed has no notices, and NotifyMoved does not wait for it.
func TestListenerOfClosedConnection(t *testing.T) {
	js, _ := start(t, t.TempDir())
	s := open(t, js, store.Options{})
	js.Conn().Close()
	s.NotifyMoved("a", func(dialog.StoreKey) {})()
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
