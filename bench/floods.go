package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

const (
	mebibyte = 1 << 20
	// forTransactions and forAllElse bound the memory of a stack with default limits.
	forTransactions = 256 * mebibyte
	forAllElse      = 64 * mebibyte
	// calm is the time for which the call in progress is watched before and after a flood.
	calm = time.Second
	// between is the pause between two requests of the call in progress.
	between = 5 * time.Millisecond
)

// measureFloods runs each flood against its own process, one flood after the other, and
// watches a call in progress there. It fails if a process holds more than its limits
// promise, or if the call does not continue.
func measureFloods(args []string) error {
	flags := flag.NewFlagSet("floods", flag.ContinueOnError)
	lasts := flags.Duration("for", 6*time.Second, "how long each flood lasts")
	only := flags.String("only", "", "the name of one flood")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fmt.Printf("floods: %v each; INFOs in a call in progress, p50/p99 before, during and after\n", *lasts)
	var errs []error
	for _, f := range floods() {
		if *only != "" && f.name != *only {
			continue
		}
		if err := f.measure(*lasts); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

// measure prints the line of one flood.
func (f flood) measure(lasts time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	process, err := drive.Start(self, "victim")
	if err != nil {
		return err
	}
	v := &victim{Process: process}
	err = f.against(v, lasts)
	_ = process.Stdin.Close()
	return errors.Join(err, process.Cmd.Wait())
}

func (f flood) against(v *victim, lasts time.Duration) error {
	c, err := newCaller(v.udp())
	if err != nil {
		return err
	}
	defer c.end()
	before := c.watch(calm)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.run(ctx, v) }()
	during := c.watch(lasts)
	peak, reportErr := v.report()
	cancel()
	floodErr := <-done
	after := c.watch(calm)
	fmt.Printf("  %-34s %4d MiB in use (of %d), heap %4d MiB at most, %5d goroutines; %v, %v, %v\n", f.name,
		peak.live>>20, f.bound>>20, peak.heap>>20, peak.goroutines, before, during, after)
	return errors.Join(floodErr, reportErr, f.within(peak), c.verdict())
}

// within compares the memory of a process with its bounds.
func (f flood) within(p peak) error {
	switch {
	case p.live > f.bound:
		return fmt.Errorf("%d bytes in use, above the bound of %d", p.live, f.bound)
	case p.transactions > forTransactions:
		return fmt.Errorf("%d bytes of transactions, above the bound of %d", p.transactions, forTransactions)
	default:
		return nil
	}
}

// callInProgress is the caller's end of a call to the flooded process.
type callInProgress struct {
	stack *dialog.Stack
	call  *dialog.Dialog
	err   error
}

func newCaller(to string) (*callInProgress, error) {
	var uri sip.Uri
	if err := sip.ParseUri("sip:victim@"+to, &uri); err != nil {
		return nil, err
	}
	stack, err := newStack()
	if err != nil {
		return nil, err
	}
	if err := stack.Start(context.Background()); err != nil {
		return nil, err
	}
	c := &callInProgress{stack: stack}
	made, err := stack.NewInvite(context.Background(), uri, dialog.InviteOpts{Body: dialog.NewBody("application/sdp", []byte(child.Session))})
	if err == nil {
		c.call = made.(*dialog.Dialog)
		err = c.call.WaitAnswer(context.Background())
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// watch sends INFOs, one after the other, for a time.
func (c *callInProgress) watch(lasts time.Duration) latency {
	var took latency
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(between) {
		since := time.Now()
		if err := c.call.SendInfo(context.Background(), dialog.NewBody("application/dtmf-relay", []byte("Signal=1\r\n"))); err != nil {
			c.err = errors.Join(c.err, err)
			return took
		}
		took = append(took, time.Since(since))
	}
	return took
}

// verdict returns an error if the call has ended.
func (c *callInProgress) verdict() error {
	if state := c.call.State(); state != dialog.DialogStateEstablished {
		return errors.Join(c.err, fmt.Errorf("the call in progress is %v", state))
	}
	return c.err
}

func (c *callInProgress) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.stack.Shutdown(ctx)
}

// latency has the response times of some requests.
type latency []time.Duration

func (l latency) String() string {
	if len(l) == 0 {
		return "no answer"
	}
	slices.Sort(l)
	return fmt.Sprintf("%.1f/%.1f ms", milliseconds(l[len(l)/2]), milliseconds(l[len(l)*99/100]))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
