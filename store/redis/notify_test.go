package redis_test

import (
	"context"
	"crypto/rand"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/redis"
)

// passes saves a call of "a", and has "b" take it.
func passes(t *testing.T, s *store.Store, id string) {
	t.Helper()
	r := record(id)
	must(t, s.Save(context.Background(), r))
	_, err := s.Take(context.Background(), r.Key, "b")
	must(t, err)
}

// isTold has calls taken until "a" is told of one.
func isTold(t *testing.T, s *store.Store, told <-chan dialog.StoreKey) {
	t.Helper()
	for len(told) > 0 {
		<-told
	}
	eventually(t, func() bool {
		passes(t, s, rand.Text())
		return len(told) > 0
	})
}

// A listener outlives its connection: a server that was killed and comes back empty, one
// whose connections are cut, and one that is not there when it begins. Nothing is left of it
// when it has stopped.
func TestListenerOutlivesTheServer(t *testing.T) {
	server := start(t)
	client := server.client(t)
	s := store.New(client, nil)
	told := make(chan dialog.StoreKey, 10_000)
	server.kill()
	began := time.Now()
	stop := s.NotifyMoved("a", func(key dialog.StoreKey) { told <- key })
	if took := time.Since(began); took > time.Second {
		t.Fatalf("it has waited %v for a server that is not there", took)
	}
	server.run()
	isTold(t, s, told)
	server.kill()
	server.run()
	isTold(t, s, told)
	must(t, client.ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err())
	isTold(t, s, told)
	stop()
	eventually(t, func() bool { return !listens() })
	eventually(t, func() bool {
		return !strings.Contains(client.ClientList(context.Background()).Val(), "sub=1")
	})
}

// A listener whose server hangs ends all the same, and so does one whose client is closed.
func TestListenerEnds(t *testing.T) {
	server := start(t)
	client := server.client(t)
	s := store.New(client, nil)
	server.stop()
	stop := s.NotifyMoved("a", func(dialog.StoreKey) {})
	stop()
	server.goOn()
	eventually(t, func() bool { return !listens() })

	told := make(chan dialog.StoreKey, 10_000)
	s.NotifyMoved("a", func(key dialog.StoreKey) { told <- key })
	isTold(t, s, told)
	must(t, client.Close())
	eventually(t, func() bool { return !listens() })
}

// listens reports whether a goroutine listens.
func listens() bool {
	dump := make([]byte, 4<<20)
	return strings.Contains(string(dump[:runtime.Stack(dump, true)]), "redis.(*Store).listen")
}

// A user who may not use the channels has no notices, and takes calls all the same.
func TestTakeWithoutTheRightToPublish(t *testing.T) {
	server := start(t)
	ctx := context.Background()
	must(t, server.client(t).Do(ctx, "ACL", "SETUSER", "sip", "on", ">secret", "resetchannels", "~sipdialog:*", "+@all").Err())
	o := options(server.socket)
	o.Username, o.Password = "sip", "secret"
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	passes(t, store.New(client, nil), "call")
}
