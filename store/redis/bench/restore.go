package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// measureRestores measures snapshots, and restores many calls.
func measureRestores(ctx context.Context, n int) error {
	one, two, err := sampleSnapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range []*dialog.Snapshot{one, two} {
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		sessions := 1
		if len(s.SessionWanted) > 0 {
			sessions = 2
		}
		fmt.Printf("snapshot with %d session descriptions of eight lines and more: %d bytes\n", sessions, len(text))
	}
	texts, err := copies(one, n)
	if err != nil {
		return err
	}
	stack, err := newStack(nil)
	if err != nil {
		return err
	}
	if err := stack.Start(ctx); err != nil {
		return err
	}
	before := heap()
	began, cpu := time.Now(), used(stack).CPU
	if err := restoreAll(ctx, stack, texts); err != nil {
		return err
	}
	took := time.Since(began)
	cpu = used(stack).CPU - cpu
	fmt.Printf("%d restores on %d processors: %.2f s, and %.2f s of CPU\n", n, runtime.GOMAXPROCS(0), took.Seconds(), cpu.Seconds())
	fmt.Printf("a restored call holds %.0f bytes\n", float64(heap()-before)/float64(n))
	runtime.KeepAlive(texts)
	ended, cancel := context.WithCancel(ctx)
	cancel() // no BYE to peers that do not exist
	_ = stack.Shutdown(ended)
	return nil
}

// restoreAll restores calls, on all processors.
func restoreAll(ctx context.Context, stack *dialog.Stack, texts [][]byte) error {
	var all sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(texts) && errs[w] == nil; i += workers {
				snapshot := new(dialog.Snapshot)
				if errs[w] = json.Unmarshal(texts[i], snapshot); errs[w] == nil {
					_, errs[w] = stack.Restore(ctx, snapshot)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// copies are snapshots that differ in their Call-ID and tags.
func copies(s *dialog.Snapshot, n int) (texts [][]byte, err error) {
	for i := range n {
		rename(s, i)
		text, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func rename(s *dialog.Snapshot, i int) {
	id := strconv.Itoa(i)
	s.CallID, s.LocalTag, s.RemoteTag = "0123456789abcdef0123456789abcdef-"+id, "01234567-"+id, "89abcdef-"+id
}

// sampleSnapshots makes a call, and returns what the server has of it: before, and after it
// was put on hold by the caller, when the server's description differs from what it wants.
func sampleSnapshots(ctx context.Context) (one, two *dialog.Snapshot, err error) {
	caller, err := newStack(nil)
	if err != nil {
		return nil, nil, err
	}
	callee, err := newStack(nil)
	if err != nil {
		return nil, nil, err
	}
	answered := make(chan *dialog.Dialog, 1)
	callee.OnIncomingDialog(func(d dialog.IDialog) {
		if d.Accept(ctx, dialog.WithBody(session("server"))) == nil {
			answered <- d.(*dialog.Dialog)
		}
	})
	if err := errors.Join(caller.Start(ctx), callee.Start(ctx)); err != nil {
		return nil, nil, err
	}
	to := callee.Addr()
	d, err := caller.NewInvite(ctx, sip.Uri{Scheme: "sip", User: "server", Host: to.Addr().String(), Port: int(to.Port())}, dialog.InviteOpts{Body: session("caller")})
	if err != nil {
		return nil, nil, err
	}
	call := d.(*dialog.Dialog)
	if err := call.WaitAnswer(ctx); err != nil {
		return nil, nil, err
	}
	ours := <-answered
	if one, err = ours.Snapshot(); err != nil {
		return nil, nil, err
	}
	if err := call.Hold(ctx); err != nil {
		return nil, nil, err
	}
	if two, err = ours.Snapshot(); err != nil {
		return nil, nil, err
	}
	one.AwaitsACK, two.AwaitsACK = false, false // it may have been on its way
	return one, two, errors.Join(call.Bye(ctx, ""), caller.Shutdown(ctx), callee.Shutdown(ctx))
}
