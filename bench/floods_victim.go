package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

// victim is the flooded process.
type victim struct{ *drive.Process }

// udp and tcp return the addresses that it listens on.
func (v *victim) udp() string { return strings.Split(v.Address, ",")[0] }
func (v *victim) tcp() string { return strings.Split(v.Address, ",")[1] }

// report returns the peak of the memory that it held.
func (v *victim) report() (p peak, err error) {
	if _, err := fmt.Fprintln(v.Stdin, "report"); err != nil {
		return p, err
	}
	_, err = fmt.Fscanf(v.Out, "%d %d %d %d\n", &p.live, &p.heap, &p.transactions, &p.goroutines)
	return p, err
}

// places lets it place a call.
func (v *victim) places(address string) error {
	_, err := fmt.Fprintln(v.Stdin, address)
	return err
}

// peak is the largest amount that a process held. live is the memory that the collector
// found alive, with the stacks of goroutines; heap includes the garbage.
type peak struct {
	live, heap, transactions uint64
	goroutines               int
}

// beVictim runs the flooded process: a stack with default limits that accepts every call.
// Each line of its input makes it report, or place a call.
func beVictim() error {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		Listeners: []dialog.TransportConfig{{Protocol: "tcp", Address: "127.0.0.1"}},
	})
	if err != nil {
		return err
	}
	stack.OnIncomingDialog(func(call dialog.IDialog) { _ = call.Accept(context.Background(), session) })
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	w := &peaks{stack: stack}
	go w.watch()
	fmt.Printf("ready %v,%v\n", stack.Addrs()[0], stack.Addrs()[1])
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() != "report" {
			go callStranger(stack, lines.Text())
			continue
		}
		p := w.now()
		fmt.Println(p.live, p.heap, p.transactions, p.goroutines)
	}
	return nil // without Shutdown, since no peer would answer its BYEs
}

// callStranger places a call and ignores its outcome.
func callStranger(stack *dialog.Stack, address string) {
	var to sip.Uri
	if err := sip.ParseUri("sip:stranger@"+address, &to); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "victim:", err)
		return
	}
	_, _ = stack.NewInvite(context.Background(), to, dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(child.Session))})
}

// peaks measures its own process.
type peaks struct {
	stack *dialog.Stack

	mutex sync.Mutex
	most  peak
}

// watch measures repeatedly, until the process ends.
func (w *peaks) watch() {
	for range time.Tick(20 * time.Millisecond) {
		w.look()
	}
}

// now collects garbage and then measures, so that the live memory is known.
func (w *peaks) now() peak {
	runtime.GC()
	w.look()
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.most
}

func (w *peaks) look() {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(samples)
	transactions := w.stack.Stats().TransactionBytes
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.most.live = max(w.most.live, samples[0].Value.Uint64()+samples[1].Value.Uint64())
	w.most.heap = max(w.most.heap, samples[2].Value.Uint64())
	w.most.goroutines = max(w.most.goroutines, int(samples[3].Value.Uint64()))
	w.most.transactions = max(w.most.transactions, uint64(transactions))
}
