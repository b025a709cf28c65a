package redis_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	store "sipdialog.example/dialog/store/redis"
)

// outside is a Store for stacks in a bubble (testing/synctest), on a server that is in none.
// The clock of the bubble stands while the server works, and times are converted.
type outside struct {
	store dialog.Store
	jobs  chan *job // those that are free, made outside
}

type job struct {
	work func()
	todo chan struct{}
	done chan struct{}
}

// serverTime bounds an operation, in the time of the server.
const serverTime = 2 * time.Second

func newOutside(s dialog.Store) *outside {
	o := &outside{store: s, jobs: make(chan *job, 64)}
	for range cap(o.jobs) {
		j := &job{todo: make(chan struct{}), done: make(chan struct{})}
		go func() {
			for range j.todo {
				j.work()
				j.done <- struct{}{}
			}
		}()
		o.jobs <- j
	}
	return o
}

func (o *outside) close() {
	for range cap(o.jobs) {
		close((<-o.jobs).todo)
	}
}

// run runs work outside.
func (o *outside) run(work func()) {
	j := <-o.jobs
	j.work = work
	j.todo <- struct{}{}
	<-j.done
	o.jobs <- j
}

// ask asks the Store. ahead is how far the server's clock is ahead of the bubble's.
func (o *outside) ask(question func(ctx context.Context, ahead time.Duration)) {
	inside := time.Now().UnixNano()
	o.run(func() {
		ctx, cancel := context.WithTimeout(context.Background(), serverTime)
		defer cancel()
		question(ctx, time.Duration(time.Now().UnixNano()-inside))
	})
}

func moved(r dialog.Record, by time.Duration) dialog.Record {
	for _, at := range []*time.Time{&r.Due, &r.Expires} {
		if !at.IsZero() {
			*at = at.Add(by).Round(0)
		}
	}
	return r
}

func (o *outside) Save(_ context.Context, r dialog.Record) (err error) {
	o.ask(func(ctx context.Context, ahead time.Duration) { err = o.store.Save(ctx, moved(r, ahead)) })
	return err
}

func (o *outside) Take(_ context.Context, key dialog.StoreKey, owner string) (r dialog.Record, err error) {
	o.ask(func(ctx context.Context, ahead time.Duration) {
		r, err = o.store.Take(ctx, key, owner)
		r = moved(r, -ahead)
	})
	return r, err
}

func (o *outside) Check(_ context.Context, key dialog.StoreKey, fence uint64) (err error) {
	o.ask(func(ctx context.Context, _ time.Duration) { err = o.store.Check(ctx, key, fence) })
	return err
}

func (o *outside) Drop(_ context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) (err error) {
	o.ask(func(ctx context.Context, _ time.Duration) { err = o.store.Drop(ctx, key, fence, tomb) })
	return err
}

func (o *outside) Due(_ context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	o.ask(func(ctx context.Context, ahead time.Duration) {
		list, err = o.store.Due(ctx, before.Add(ahead).Round(0), owner, n)
		for i := range list {
			list[i] = moved(list[i], -ahead)
		}
	})
	return list, err
}

// kept counts the calls that the server has, tombstones left out.
func (o *outside) kept(t *testing.T, client *redis.Client) (n int) {
	t.Helper()
	o.run(func() {
		ctx := context.Background()
		var keys []string
		eventually(t, func() bool { // the client hears a little later that the server is back
			var err error
			keys, err = client.Keys(ctx, "sipdialog:*").Result()
			return err == nil
		})
		for _, key := range keys {
			if !strings.HasSuffix(key, ":due") && client.HExists(ctx, key, "b").Val() {
				n++
			}
		}
	})
	return n
}

const session = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n"

func sdp() dialog.Body { return dialog.NewBody("application/sdp", []byte(session)) }

// stack starts a stack on a host of its own.
func stack(t *testing.T, network *dialogtest.Network, ip string, kept dialog.Store) *dialog.Stack {
	t.Helper()
	s, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: ip, Port: 5060},
		Network:   network.Host(ip), Store: kept, SessionExpires: 30 * time.Minute,
	})
	must(t, err)
	must(t, s.Start(context.Background()))
	return s
}

// The server is killed in the middle of calls, and comes back empty. Calls go on and end
// meanwhile; those that change are saved when the server is back, the others within five
// minutes.
func TestCallsOutliveTheServersMemory(t *testing.T) {
	const calls = 20
	server := start(t)
	client := server.client(t)
	o := newOutside(store.New(client, nil))
	defer o.close()
	synctest.Test(t, func(t *testing.T) {
		ctx, network := context.Background(), dialogtest.NewNetwork()
		a, b := stack(t, network, "192.0.2.1", nil), stack(t, network, "192.0.2.2", o)
		answered := make(chan *dialog.Dialog, calls)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			must(t, d.Accept(ctx, dialog.WithBody(sdp())))
			answered <- d.(*dialog.Dialog)
		})
		var theirs, ours []*dialog.Dialog
		for range calls {
			d, err := a.NewInvite(ctx, sip.Uri{Scheme: "sip", User: "b", Host: "192.0.2.2", Port: 5060}, dialog.InviteOpts{Body: sdp()})
			must(t, err)
			theirs = append(theirs, d.(*dialog.Dialog))
			must(t, theirs[len(theirs)-1].WaitAnswer(ctx))
			ours = append(ours, <-answered)
		}
		is := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			if n := o.kept(t, client); n != want {
				t.Fatalf("%s: the server has %d calls, not %d", when, n, want)
			}
		}
		is(calls, "before")

		o.run(server.kill)
		must(t, theirs[0].Hold(ctx))
		must(t, ours[1].Hold(ctx))
		must(t, theirs[2].Bye(ctx, ""))
		must(t, ours[3].Bye(ctx, ""))
		o.run(server.run)
		is(0, "at first")
		must(t, ours[4].SetAppData([]byte("changed")))
		time.Sleep(10 * time.Second)
		is(3, "soon")
		time.Sleep(5*time.Minute - 10*time.Second)
		is(calls-2, "after five minutes")
		for i, d := range ours {
			if established := d.State() == dialog.DialogStateEstablished; established == (i == 2 || i == 3) {
				t.Errorf("call %d is %v: %v", i, d.State(), d.Cause())
			}
		}

		for i, d := range theirs {
			if i != 2 && i != 3 {
				must(t, d.Bye(ctx, ""))
			}
		}
		is(0, "in the end")
		must(t, a.Shutdown(ctx))
		must(t, b.Shutdown(ctx))
		network.Close()
	})
}
