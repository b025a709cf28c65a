package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
)

// soak keeps three stacks busy: every call from a to b is put on hold and resumed, every
// fourth is transferred to c, every fifth goes over TCP.
type soak struct {
	a, b, c *dialog.Stack
	offer   dialog.InviteOpts

	calls, transfers, failures atomic.Int64
}

// shown is the number of errors that are printed.
const shown = 5

// failed counts a failure.
func (s *soak) failed(what string, err error) {
	if err != nil && s.failures.Add(1) <= shown {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	}
}

// callTimeout bounds a whole call.
const callTimeout = 2 * time.Minute

// measureSoak runs the calls. It fails if heap, goroutines or descriptors differ from
// those after the first minute, if a call failed, or if a call or goroutine is left at the
// end.
func measureSoak(args []string) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	minutes := flags.Int("minutes", 2, "for how long: two at least")
	rate := flags.Int("rate", 200, "calls a second")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *minutes < 2 {
		return fmt.Errorf("%d minutes are too short: the last minute is compared with the first", *minutes)
	}
	fmt.Printf("soak: %d calls/s for %d minutes, with holds and transfers\n", *rate, *minutes)
	idle := runtime.NumGoroutine()
	s, err := startSoak()
	if err != nil {
		return err
	}
	w := watch(s, time.Duration(*minutes)*time.Minute)
	_ = child.Pace(*rate, *rate**minutes*60, func() error {
		s.failed("call", s.call())
		return nil
	})
	err = errors.Join(w.verdict(), s.end(idle))
	fmt.Printf("  %d calls, %d of them transferred, %d failures\n", s.calls.Load(), s.transfers.Load(), s.failures.Load())
	if n := s.failures.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d failures", n))
	}
	return err
}

func startSoak() (*soak, error) {
	s := &soak{offer: dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(child.Session))}}
	for _, stack := range []**dialog.Stack{&s.a, &s.b, &s.c} {
		made, err := dialog.NewStack(&dialog.StackConfig{
			Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
			Listeners:  []dialog.TransportConfig{{Protocol: "tcp", Address: "127.0.0.1"}},
			MaxDialogs: -1,
		})
		if err != nil {
			return nil, err
		}
		made.OnIncomingDialog(func(call dialog.IDialog) { s.failed("accept", call.Accept(context.Background(), session)) })
		if err := made.Start(context.Background()); err != nil {
			return nil, err
		}
		*stack = made
	}
	s.b.OnIncomingRefer(s.follow)
	return s, nil
}

// follow calls the target of the REFER to b, and hangs up after a while.
func (s *soak) follow(call dialog.IDialog, referTo sip.Uri, _ *dialog.ReplacesInfo) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	made, err := call.(*dialog.Dialog).FollowRefer(ctx, referTo, s.offer)
	if err == nil {
		talk()
		err = made.Bye(ctx, "")
	}
	s.failed("transfer", err)
}

// talk is the pause between two requests of a call.
func talk() { time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond)) }

// call makes one call from a.
func (s *soak) call() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	n := s.calls.Add(1)
	made, err := s.a.NewInvite(ctx, target(s.b, n%5 == 0), s.offer)
	if err != nil {
		return err
	}
	d := made.(*dialog.Dialog)
	steps := []func(context.Context) error{d.WaitAnswer, d.Hold, d.Resume}
	if n%4 == 0 {
		steps = append(steps, func(ctx context.Context) error { return s.transfer(ctx, d) })
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return errors.Join(err, d.Close())
		}
		talk()
	}
	return d.Bye(ctx, "")
}

// transfer refers b to c and waits for the outcome.
func (s *soak) transfer(ctx context.Context, d *dialog.Dialog) error {
	if err := d.SendRefer(ctx, target(s.c, false), nil); err != nil {
		return err
	}
	refer, err := d.WaitRefer(ctx)
	if err != nil {
		return err
	}
	progress, err := refer.Wait(ctx)
	if err != nil {
		return err
	}
	if progress.Status != sip.StatusOK {
		return fmt.Errorf("the transfer ended with %d", progress.Status)
	}
	s.transfers.Add(1)
	return nil
}

// target returns the URI of a stack, over UDP or TCP.
func target(s *dialog.Stack, tcp bool) sip.Uri {
	address := s.Addrs()[0]
	uri := sip.Uri{Scheme: "sip", User: "soak", Host: address.Addr().String(), Port: int(address.Port())}
	if tcp {
		uri.Port, uri.UriParams = int(s.Addrs()[1].Port()), sip.NewParams()
		uri.UriParams.Add("transport", "tcp")
	}
	return uri
}

func (s *soak) stacks() []*dialog.Stack { return []*dialog.Stack{s.a, s.b, s.c} }

// end waits for the end of the transactions, and checks that no dialog is left before
// Shutdown, and no goroutine after it.
func (s *soak) end(idle int) error {
	var errs []error
	for _, stack := range s.stacks() {
		waitIdle(stack)
		if now := stack.Stats(); now.Dialogs+now.Releasing+now.Subscribed > 0 || now.Panics > 0 {
			errs = append(errs, fmt.Errorf("calls left: %+v", now))
		}
	}
	for _, stack := range s.stacks() {
		errs = append(errs, stack.Shutdown(context.Background()))
	}
	if now := runtime.NumGoroutine(); now > idle {
		errs = append(errs, fmt.Errorf("%d goroutines after Shutdown, %d before Start", now, idle))
	}
	return errors.Join(errs...)
}
