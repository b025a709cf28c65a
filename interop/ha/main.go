// Command ha kills one of three processes under load, and counts the calls that are lost.
//
// The processes answer calls; Kamailio in front of them sends each call to one of them by
// its Call-ID, and sipp places 200 calls a second that last eight seconds. Four runs:
//
//   - kill: with a store in Redis one process is killed (kill -9) after ten seconds; no confirmed
//     call may be lost, and no key may be left afterwards;
//   - restart: each process is killed and restarted, and the calls last longer than 64*T1,
//     after which a call without an ACK would end; no confirmed call may be lost;
//   - deploy: each process hands its calls over (Stack.HandOver) and is restarted; no call
//     may be lost, not even one that rings;
//   - control: as kill, but without a store; the calls of that process are lost.
//
// A run counts only if the proxy never marked a living process as down, and sipp placed its
// calls in time; otherwise the machine is too busy, and the run is repeated. A failed run is
// repeated too if a living process did not respond within 1.5 s, or the store not within its
// timeout. All sockets are on 127.0.0.0/8. The command ends within five minutes, and its exit
// code is 0 only if all of this holds.
//
//	make ha
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	frontAddress  = "127.20.0.1"
	callerAddress = "127.20.0.2"
	sipPort       = 5060
	callRate      = 200
	talkTime      = 8 * time.Second
	// longTalk is more than 64*T1, after which a call without an ACK ends.
	longTalk = 36 * time.Second
	// timeLimit is the time for all runs.
	timeLimit = 5 * time.Minute
)

// nodeAddresses are those of the processes.
var nodeAddresses = [...]string{"127.20.0.11", "127.20.0.12", "127.20.0.13"}

// errVoid says that a run does not count, and is repeated.
var errVoid = errors.New("void")

func main() {
	if len(os.Args) > 1 && os.Args[1] == "node" {
		if err := beNode(os.Args[2:]); err != nil {
			fmt.Println("node:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "ha:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("ha", flag.ContinueOnError)
	only := flags.String("only", "", "the one run to make: kill, restart, deploy, control")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit-5*time.Second)
	defer cancel()
	b, err := newBench()
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Printf("%d calls/s of %v, three processes behind Kamailio\n", callRate, talkTime)
	fmt.Print(titles())
	var failed error
	for _, p := range plans() {
		if *only == "" || *only == p.name {
			failed = errors.Join(failed, b.make(ctx, p))
		}
	}
	return errors.Join(failed, b.checkKeys(ctx))
}

// make makes a run, repeats it until it counts, and prints its row.
func (b *bench) make(ctx context.Context, p plan) error {
	for {
		r, err := b.try(ctx, p)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: not finished: %w", p.name, ctx.Err())
		case errors.Is(err, errVoid):
			fmt.Printf("%-8s made anew: %v\n", p.name, err)
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Print(r.row(p.name))
		switch err := p.judge(r); {
		case err == nil:
			return nil
		case r.doubt == nil:
			return fmt.Errorf("%s: %w\n%s", p.name, err, r.story())
		default:
			fmt.Printf("%-8s made anew: %v: %v\n", p.name, r.doubt, err)
		}
	}
}

func titles() string {
	return fmt.Sprintf("%-8s %7s %9s %9s %5s %5s %6s %8s %8s %7s %7s\n", "run", "calls", "confirmed", "completed", "lost", "481", "other", "not set up", "taken", "moved", "unsaved")
}

func (r *result) row(name string) string {
	o := r.outcome
	return fmt.Sprintf("%-8s %7d %9d %9d %5d %5d %6d %10d %8d %7d %7d\n",
		name, o.calls, o.confirmed, o.completed, o.lost(), o.gone, o.otherwise, o.calls-o.confirmed, r.restored(), r.moved(), r.unsaved)
}

// story is what helps to understand a run that went wrong.
func (r *result) story() string {
	var events []string
	for _, e := range r.events {
		if e.kind != silent {
			events = append(events, e.String())
		}
	}
	lines := append([]string{"  front: " + strings.Join(events, "; "), "sipp: " + few(r.errors)}, r.farewells...)
	return strings.Join(lines, "\n  ")
}
