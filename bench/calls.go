package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

// t1 is RFC 3261's T1 in these runs. A shorter T1 would shorten the 64*T1 after which
// transactions end, but Shutdown would then repeat requests that are not lost.
const t1 = 500 * time.Millisecond

// atOnce is the number of calls that are set up at the same time.
const atOnce = 100

// measureCalls establishes calls between two processes. Each process reports the memory
// that it holds; then Shutdown of the caller ends the calls.
func measureCalls(args []string) error {
	flags := flag.NewFlagSet("calls", flag.ContinueOnError)
	n := flags.Int("n", 10000, "how many calls")
	heap := flags.String("memprofile", "", "beginning of the names of heap profiles")
	if err := flags.Parse(args); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("calls: %d established, INVITE and 200 with a session of %d bytes\n", *n, len(child.Session))
	server, err := drive.Start(self, "callee", "-n", fmt.Sprint(*n), "-memprofile", named(*heap, "callee"))
	if err != nil {
		return err
	}
	callerErr := runCaller(self, server, "-n", fmt.Sprint(*n), "-to", server.Address, "-memprofile", named(*heap, "caller"))
	if _, err := server.Out.WriteTo(os.Stdout); err != nil {
		return err
	}
	if err := server.Cmd.Wait(); err != nil {
		return fmt.Errorf("callee: %w", err)
	}
	return callerErr
}

// runCaller runs the caller. The caller may shut down after the callee has measured too,
// which the callee's first line reports.
func runCaller(self string, server *drive.Process, args ...string) error {
	cmd := exec.Command(self, append([]string{"caller"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	goOn, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		line, _ := server.Out.ReadString('\n')
		fmt.Print(line)
		_ = goOn.Close()
	}()
	err = cmd.Wait()
	_ = server.Stdin.Close() // ends the callee, and so the wait for its report
	<-measured
	return err
}

// passOn runs a program and passes on its output.
func passOn(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// named returns the file name of a profile, empty if no profile is wanted.
func named(prefix, who string) string {
	if prefix == "" {
		return ""
	}
	return prefix + "." + who
}

// caller places the calls, measures, and shuts down.
func caller(args []string) error {
	flags := flag.NewFlagSet("caller", flag.ContinueOnError)
	n := flags.Int("n", 0, "how many calls")
	to := flags.String("to", "", "whom to call")
	heap := flags.String("memprofile", "", "file for a heap profile")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var target sip.Uri
	if err := sip.ParseUri("sip:callee@"+*to, &target); err != nil {
		return err
	}
	stack, err := newStack()
	if err != nil {
		return err
	}
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	before := holding()
	if err := place(stack, target, *n); err != nil {
		return err
	}
	waitIdle(stack)
	report("caller", before, holding(), len(stack.Dialogs()))
	if err := child.WriteProfile("heap", *heap); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the callee has measured
	return shutdown("caller", stack, *n)
}

// place makes n calls, some at a time, and returns when all are answered.
func place(stack *dialog.Stack, target sip.Uri, n int) error {
	var group sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, atOnce)
	for range atOnce {
		group.Add(1)
		go func() {
			defer group.Done()
			for next.Add(1) <= int64(n) {
				if err := call(stack, target); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(failed)
	return <-failed
}

func call(stack *dialog.Stack, target sip.Uri) error {
	offer := dialog.NewBody("application/sdp", []byte(child.Session))
	d, err := stack.NewInvite(context.Background(), target, dialog.InviteOpts{Body: offer})
	if err != nil {
		return err
	}
	return d.(*dialog.Dialog).WaitAnswer(context.Background())
}

// callee answers calls until its standard input ends. It measures when the expected
// number of calls is established, and their transactions have ended.
func callee(args []string) error {
	flags := flag.NewFlagSet("callee", flag.ContinueOnError)
	n := flags.Int("n", 0, "how many calls will come")
	heap := flags.String("memprofile", "", "file for a heap profile")
	if err := flags.Parse(args); err != nil {
		return err
	}
	stack, err := newStack()
	if err != nil {
		return err
	}
	var answered atomic.Int64
	all := make(chan struct{})
	stack.OnIncomingDialog(func(call dialog.IDialog) {
		if err := call.Accept(context.Background(), session); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "callee:", err)
			return
		}
		if answered.Add(1) == int64(*n) {
			close(all)
		}
	})
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the caller has ended
		close(ended)
	}()
	before := holding()
	fmt.Println("ready", stack.Addr())
	select {
	case <-all:
	case <-ended:
		return fmt.Errorf("callee: %d calls of %d", answered.Load(), *n)
	}
	waitIdle(stack)
	report("callee", before, holding(), len(stack.Dialogs()))
	if err := child.WriteProfile("heap", *heap); err != nil {
		return err
	}
	<-ended
	return stack.Shutdown(context.Background())
}

func newStack() (*dialog.Stack, error) {
	return dialog.NewStack(&dialog.StackConfig{
		Transport:  &dialog.TransportConfig{Protocol: "udp", Address: "127.0.0.1"},
		MaxDialogs: -1,
		Timers:     dialog.Timers{T1: t1},
	})
}

func session(answer *sip.Response) {
	answer.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	answer.SetBody([]byte(child.Session))
}

// held has the memory and goroutines of a process.
type held struct {
	heap, stacks uint64
	goroutines   int
}

// holding measures after two garbage collections: memory that finalizers free needs the
// second.
func holding() held {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return held{heap: m.HeapAlloc, stacks: m.StackInuse, goroutines: runtime.NumGoroutine()}
}

// waitIdle waits until all transactions have ended, and their last timers too.
func waitIdle(stack *dialog.Stack) {
	for working(stack) {
		time.Sleep(t1)
	}
	time.Sleep(t1)
}

func working(stack *dialog.Stack) bool {
	now := stack.Stats()
	return now.ClientTransactions+now.ServerTransactions+now.Queues+now.Callbacks > 0
}

func report(who string, before, after held, dialogs int) {
	fmt.Printf("  %s: %d dialogs, %d B of heap each, %d more goroutines\n", who, dialogs,
		(int64(after.heap)-int64(before.heap))/int64(max(dialogs, 1)), after.goroutines-before.goroutines)
}

// shutdown ends all calls and reports the cost in this process.
func shutdown(who string, stack *dialog.Stack, n int) error {
	before, err := child.Now()
	if err != nil {
		return err
	}
	repeated := stack.Stats().Retransmissions
	since := time.Now()
	if err := stack.Shutdown(context.Background()); err != nil {
		return err
	}
	wall := time.Since(since)
	after, err := child.Now()
	if err != nil {
		return err
	}
	cpu := after.CPU() - before.CPU()
	repeated = stack.Stats().Retransmissions - repeated
	fmt.Printf("  %s: Shutdown of %d calls: %.2f s of CPU, %v each, %.2f s by the clock, %d messages repeated, peak RSS %d MiB\n",
		who, n, cpu.Seconds(), (cpu / time.Duration(n)).Round(time.Microsecond), wall.Seconds(), repeated, after.PeakRSS>>10)
	return nil
}
