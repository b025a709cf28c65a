package dialog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
)

// A process writes its calls down, and is killed. The one that is started in its place goes
// on with them.
func ExampleStack_Restore() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2")

	host := network.Host("10.0.0.1")
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:   host, // left out: the operating system's
	}
	alice, err := dialog.NewStack(config)
	must(err)
	must(alice.Start(ctx))
	call, err := alice.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	must(call.SetAppData([]byte("account 7")))
	snapshot, err := call.Snapshot()
	must(err)
	text, err := json.Marshal(snapshot) // into a file, a database, a Store
	must(err)

	host.Unreachable(true) // kill -9
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = alice.Shutdown(ended)
	host.Unreachable(false)

	again, err := dialog.NewStack(config)
	must(err)
	must(again.Start(ctx))
	defer func() { must(again.Shutdown(ctx)) }()
	snapshot = new(dialog.Snapshot)
	must(json.Unmarshal(text, snapshot))
	call, err = again.Restore(ctx, snapshot)
	must(err)
	fmt.Println(call.State(), "with", string(call.AppData()))
	must(call.Hold(ctx))
	must(call.Bye(ctx, "done"))
	fmt.Println(call.State())
	// Output:
	// Established with account 7
	// Terminated
}

// A stack keeps its calls in a Store: here in memory, elsewhere in one that other processes
// reach, too.
func ExampleStore() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2")

	store := memory.New()
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:   network.Host("10.0.0.1"), // left out: the operating system's
		Store:     store, Node: "alice", SessionExpires: 30 * time.Minute,
	})
	must(err)
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()
	call, err := stack.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err) // it was saved before the ACK left
	fmt.Println(store.Len(), "call in the store")
	must(call.Bye(ctx, ""))
	must(stack.Shutdown(ctx)) // the end of each call is written
	fmt.Println(store.Len(), "calls in the store")
	// Output:
	// 1 call in the store
	// 0 calls in the store
}

// A server that is to be stopped for maintenance takes no new calls, and waits for those
// that it has.
func ExampleStack_Drain() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	network.answering("10.0.0.2")

	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:   network.Host("10.0.0.1"), // left out: the operating system's
	})
	must(err)
	must(stack.Start(ctx))
	defer func() { must(stack.Shutdown(ctx)) }()
	call, err := stack.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)

	patience, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	fmt.Println(stack.Drain(patience))
	must(call.Bye(ctx, ""))
	fmt.Println(stack.Drain(ctx))
	// Output:
	// dialog: Drain: not drained: 1 calls left
	// <nil>
}

// Two processes share a Store. One dies; the next request of the peer is served by the other,
// which goes on with the call.
func ExampleStack_OnRestored() {
	ctx, network := context.Background(), newExampleNetwork()
	defer network.close()
	bob := network.stack("10.0.0.2")
	calls := make(chan *dialog.Dialog, 1)
	bob.OnCall(func(d *dialog.Dialog) {
		must(d.Accept(ctx, answer))
		calls <- d
	})

	host, store := network.Host("10.0.0.1"), &mortal{Store: memory.New()} // store/redis for several machines
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "10.0.0.1", Port: 5060},
		Network:   host, // left out: the operating system's
		Store:     store, SessionExpires: 30 * time.Minute,
	}
	first, err := dialog.NewStack(config)
	must(err)
	must(first.Start(ctx))
	call, err := first.Call(ctx, sip.Uri{Scheme: "sip", User: "bob", Host: "10.0.0.2"}, dialog.InviteOpts{Body: audio("sendrecv")})
	must(err)
	must(call.SetAppData([]byte("account 7")))
	for first.Stats().Unwritten > 0 {
		time.Sleep(time.Millisecond)
	}

	store.killed.Store(true) // kill -9
	host.Unreachable(true)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = first.Shutdown(ended)
	host.Unreachable(false)

	config.Store = store.Store
	second, err := dialog.NewStack(config)
	must(err)
	second.OnRestored(func(d *dialog.Dialog, why dialog.Takeover) {
		fmt.Println("taken over because of", why.Method, "with", string(d.AppData()))
	})
	must(second.Start(ctx))
	defer func() { must(second.Shutdown(ctx)) }()
	must((<-calls).Bye(ctx, ""))
	// Output:
	// taken over because of BYE with account 7
}

// mortal is a Store that a process which was killed tells nothing.
type mortal struct {
	dialog.Store
	killed atomic.Bool
}

func (m *mortal) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	if m.killed.Load() {
		return ctx.Err()
	}
	return m.Store.Drop(ctx, key, fence, tomb)
}
