// Command demo-restart shows a call that outlives its process. Bob, a stack of this
// program, calls a server, which is a process of its own and keeps its calls in a file
// (store/bolt). The server is killed (kill -9) during the call, and restarted at the same
// address with the same file. The new process answers bob's next request inside the
// call, holds and resumes the call, and hangs up. The program prints all messages as a
// ladder, and exits 0 only if all of them were as expected.
//
//	make demo-restart
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// timeout bounds the whole run.
const timeout = 20 * time.Second

func main() {
	if isServer() {
		os.Exit(serverMain())
	}
	os.Exit(demo(context.Background(), true, os.Stdout))
}

// isServer reports whether this process is the server.
func isServer() bool { return len(os.Args) > 1 && os.Args[1] == "server" }

func serverMain() int {
	if err := serve(os.Args[2:], os.Stdin, os.Stdout); err != nil {
		fmt.Println("failed", err)
		return 1
	}
	return 0
}

// demo is the program; its result is the exit status. The server has no store unless stored.
func demo(ctx context.Context, stored bool, out io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	folder, err := os.MkdirTemp("", "demo-restart")
	if err == nil {
		defer func() { _ = os.RemoveAll(folder) }()
		err = run(ctx, folder, stored, out)
	}
	if err != nil {
		_, _ = fmt.Fprintf(out, "\nFAILED: %v\n", err)
		return 1
	}
	return 0
}

// run plays the scene and prints it. The error names the step that failed.
func run(ctx context.Context, folder string, stored bool, out io.Writer) error {
	s := &scene{record: newRecord()}
	if stored {
		s.file = filepath.Join(folder, "calls")
	}
	err := s.play(ctx, out)
	if closeErr := s.close(ctx); err == nil {
		err = closeErr
	}
	if err == nil && stored {
		err = s.checkFile(ctx)
	}
	_, _ = fmt.Fprintf(out, "\n%s", s.record.ladder())
	if err == nil {
		_, _ = fmt.Fprintf(out, "\nOK: %d messages, all as expected; the call has outlived its process\n", s.record.count())
	}
	return err
}
