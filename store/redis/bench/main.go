// Command bench measures what a Store in Redis costs a process, and how fast calls are taken
// over. It starts a redis-server of its own, which keeps nothing on the disk.
//
//	go run ./bench calls      CPU and memory of a call at a server, without a store and with one
//	go run ./bench restore    the size of a snapshot, and of a restored call; restores a second
//	go run ./bench overdue    all sessions of many calls are overdue when a process starts
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	what := ""
	if len(args) > 0 {
		what, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	switch what {
	case "calls":
		pairs, calls := flags.Int("pairs", 5, "how many pairs"), flags.Int("n", 3000, "calls in a run")
		rate := flags.Int("rate", 300, "calls a second")
		return parsed(flags, args, func(ctx context.Context, r *server) error { return measureCalls(ctx, r, *pairs, *calls, *rate) })
	case "restore":
		n := flags.Int("n", 20_000, "how many calls")
		return parsed(flags, args, func(ctx context.Context, _ *server) error { return measureRestores(ctx, *n) })
	case "overdue":
		n := flags.Int("n", 20_000, "how many calls")
		return parsed(flags, args, func(ctx context.Context, r *server) error { return measureOverdue(ctx, r, *n) })
	case "answer": // the process that is measured by calls
		return beServer(args)
	}
	return errors.New("usage: bench calls|restore|overdue")
}

// parsed reads the flags, and runs a measurement beside a server.
func parsed(flags *flag.FlagSet, args []string, measure func(context.Context, *server) error) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := startServer()
	if err != nil {
		return err
	}
	defer r.stop()
	return measure(context.Background(), r)
}

// server is a redis-server.
type server struct {
	folder, socket string
	process        *exec.Cmd
}

func startServer() (*server, error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	r := &server{folder: folder, socket: filepath.Join(folder, "redis")}
	r.process = exec.Command("redis-server", "--port", "0", "--unixsocket", r.socket, "--save", "", "--appendonly", "no", "--dir", folder)
	if err := r.process.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	client := r.client()
	defer func() { _ = client.Close() }()
	for range 100 {
		if err = client.Ping(context.Background()).Err(); err == nil {
			return r, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.stop()
	return nil, err
}

func (r *server) client() *redis.Client { return connect(r.socket) }

func connect(socket string) *redis.Client {
	return redis.NewClient(&redis.Options{Network: "unix", Addr: socket, ContextTimeoutEnabled: true})
}

func (r *server) stop() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
	_ = os.RemoveAll(r.folder)
}
