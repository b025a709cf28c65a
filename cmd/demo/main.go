// Command demo makes calls between three stacks on loopback UDP: alice calls
// bob, who sends early media reliably before he answers; she holds and resumes
// the call, refreshes its session, and transfers bob to carol. It prints every
// message and every change of state as a ladder, and exits 0 only if all of them
// were as expected.
//
//	go run ./cmd/demo [-v] [-svg FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// timeout bounds the whole run.
const timeout = 10 * time.Second

func main() {
	os.Exit(demo(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// demo is the program; its result is the exit status.
func demo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	verbose := flags.Bool("v", false, "show what the stacks log")
	picture := flags.String("svg", "", "draw the run into this file")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var logger *slog.Logger
	if *verbose {
		logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := run(ctx, stdout, logger, *picture); err != nil {
		_, _ = fmt.Fprintf(stdout, "\nFAILED: %v\n", err)
		return 1
	}
	return 0
}

// run plays the scene, prints it, and draws it into the file picture unless that is empty.
// The error names the step that failed.
func run(ctx context.Context, out io.Writer, logger *slog.Logger, picture string) error {
	s, err := openScene(ctx, logger)
	if err != nil {
		return err
	}
	err = s.play(ctx, s.steps(), out)
	if closeErr := s.close(ctx); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.record.nothingMore()
	}
	_, _ = fmt.Fprintf(out, "\n%s", s.record.ladder())
	if err == nil && picture != "" {
		err = s.draw(picture)
	}
	if err == nil {
		_, _ = fmt.Fprintf(out, "\nOK: %s\n", s.record.summary())
	}
	return err
}
