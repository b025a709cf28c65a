package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
	store "sipdialog.example/dialog/store/redis"
)

// usage is what a process has used so far.
type usage struct {
	Address string // that it listens on
	CPU     time.Duration
	Bytes   uint64
	Allocs  uint64
	Unsaved uint64
}

// measureCalls runs servers without a store, with one in memory, and with one in Redis, in
// turn, under the same calls.
func measureCalls(ctx context.Context, r *server, pairs, calls, rate int) error {
	kinds := []string{"none", "memory", "redis"}
	fmt.Printf("%d calls, %d a second: INVITE, 200, ACK, BYE; of the server's process, a call\n", calls, rate)
	fmt.Printf("%-7s %8s %8s %8s %8s\n", "store", "CPU ms", "allocs", "bytes", "unsaved")
	costs := make(map[string][]usage)
	for range pairs {
		for _, kind := range kinds {
			u, err := serveCalls(ctx, kind, r.socket, calls, rate)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			costs[kind] = append(costs[kind], u)
			printUsage(kind, u, calls)
		}
	}
	base := median(costs["none"])
	for _, kind := range kinds[1:] {
		u := median(costs[kind])
		fmt.Printf("%s, median of %d: %+.3f ms of CPU (a factor of %.2f), %+.0f allocations, %+.0f bytes (%.2f) a call\n", kind, pairs,
			(u.CPU-base.CPU).Seconds()*1e3/float64(calls), float64(u.CPU)/float64(base.CPU),
			(float64(u.Allocs)-float64(base.Allocs))/float64(calls), (float64(u.Bytes)-float64(base.Bytes))/float64(calls), float64(u.Bytes)/float64(base.Bytes))
	}
	return nil
}

func printUsage(kind string, u usage, calls int) {
	n := float64(calls)
	fmt.Printf("%-7s %8.3f %8.0f %8.0f %8d\n", kind, u.CPU.Seconds()*1e3/n, float64(u.Allocs)/n, float64(u.Bytes)/n, u.Unsaved)
}

// median is that of each number.
func median(list []usage) usage {
	return usage{
		CPU:    middle(list, func(u usage) time.Duration { return u.CPU }),
		Bytes:  middle(list, func(u usage) uint64 { return u.Bytes }),
		Allocs: middle(list, func(u usage) uint64 { return u.Allocs }),
	}
}

func middle[T time.Duration | uint64](list []usage, of func(usage) T) T {
	var values []T
	for _, u := range list {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// serveCalls runs a server, places calls at it, and returns what it has used for them.
func serveCalls(ctx context.Context, kind, socket string, calls, rate int) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	child := exec.Command(self, "answer", "-store", kind, "-socket", socket)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		return usage{}, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return usage{}, err
	}
	if err := child.Start(); err != nil {
		return usage{}, err
	}
	defer func() {
		_ = in.Close()
		_ = child.Wait()
	}()
	lines := bufio.NewScanner(out)
	ask := func() (u usage, err error) {
		if _, err := fmt.Fprintln(in, "usage"); err != nil {
			return u, err
		}
		if !lines.Scan() {
			return u, errors.New("the server has ended")
		}
		return u, json.Unmarshal(lines.Bytes(), &u)
	}
	before, err := ask()
	if err != nil {
		return usage{}, err
	}
	if err := place(ctx, before.Address, 300, rate); err != nil { // first of all, to warm up
		return usage{}, err
	}
	if before, err = ask(); err != nil {
		return usage{}, err
	}
	if err := place(ctx, before.Address, calls, rate); err != nil {
		return usage{}, err
	}
	u, err := ask()
	u.CPU, u.Bytes, u.Allocs = u.CPU-before.CPU, u.Bytes-before.Bytes, u.Allocs-before.Allocs
	return u, err
}

// place places calls at a server.
func place(ctx context.Context, server string, calls, rate int) error {
	caller, err := newStack(nil)
	if err != nil {
		return err
	}
	if err := caller.Start(ctx); err != nil {
		return err
	}
	var to sip.Uri
	if err := sip.ParseUri("sip:server@"+server, &to); err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, calls)
	next := time.NewTicker(time.Second / time.Duration(rate))
	defer next.Stop()
	for i := range calls {
		<-next.C
		all.Go(func() { errs[i] = call(ctx, caller, to) })
	}
	all.Wait()
	return errors.Join(errors.Join(errs...), caller.Shutdown(ctx))
}

func call(ctx context.Context, caller *dialog.Stack, to sip.Uri) error {
	d, err := caller.NewInvite(ctx, to, dialog.InviteOpts{Body: session("caller")})
	if err != nil {
		return err
	}
	if err := d.(*dialog.Dialog).WaitAnswer(ctx); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	return d.(*dialog.Dialog).Bye(ctx, "")
}

// newStack makes a stack on loopback.
func newStack(kept dialog.Store) (*dialog.Stack, error) {
	return dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		MaxDialogs: -1, SessionExpires: 30 * time.Minute, Store: kept,
		Limits: dialog.Limits{Transactions: 1 << 20, TransactionBytes: 4 << 30},
	})
}

// session is a session description of eight lines.
func session(name string) dialog.Body {
	return dialog.NewBody("application/sdp", fmt.Appendf(nil, "v=0\r\no=%s 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"+
		"m=audio 4000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n", name))
}

// beServer answers calls, and says what it has used for each line of its input.
func beServer(args []string) error {
	flags := flag.NewFlagSet("answer", flag.ContinueOnError)
	kind := flags.String("store", "none", "none, memory or redis")
	socket := flags.String("socket", "", "of the redis-server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var kept dialog.Store
	switch *kind {
	case "memory":
		kept = memory.New()
	case "redis":
		client := connect(*socket)
		defer func() { _ = client.Close() }()
		kept = store.New(client, nil)
	}
	stack, err := newStack(kept)
	if err != nil {
		return err
	}
	ctx := context.Background()
	stack.OnIncomingDialog(func(d dialog.IDialog) {
		if err := d.Accept(ctx, dialog.WithBody(session("server"))); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		}
	})
	if err := stack.Start(ctx); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		text, err := json.Marshal(used(stack))
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return stack.Shutdown(ctx)
}

func used(stack *dialog.Stack) usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // it fails for bad arguments only
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		Address: stack.Addr().String(), CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Bytes: m.TotalAlloc, Allocs: m.Mallocs, Unsaved: stack.Stats().Unsaved,
	}
}
