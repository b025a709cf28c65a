package redis_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is a redis-server of the test's own, which keeps nothing on the disk and listens
// on a socket in a folder that goes with the test.
type server struct {
	t       *testing.T
	program string
	socket  string
	process *exec.Cmd
}

// start starts one. It is ended with the test.
func start(t *testing.T) *server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is missing: make test-stores installs it")
	}
	folder, err := os.MkdirTemp("", "redis") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	s := &server{t: t, program: program, socket: filepath.Join(folder, "s")}
	s.run()
	t.Cleanup(s.kill)
	return s
}

// run starts the server, empty, and waits until it answers.
func (s *server) run() {
	s.t.Helper()
	s.process = exec.Command(s.program, "--port", "0", "--unixsocket", s.socket, "--save", "", "--appendonly", "no",
		"--dir", filepath.Dir(s.socket), "--loglevel", "warning")
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := redis.NewClient(options(s.socket))
	defer func() { _ = client.Close() }()
	eventually(s.t, func() bool { return client.Ping(context.Background()).Err() == nil })
}

// kill ends it at once, as kill -9.
func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// stop has it hang, goOn has it go on.
func (s *server) stop() { s.signal(syscall.SIGSTOP) }
func (s *server) goOn() { s.signal(syscall.SIGCONT) }

func (s *server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) client(t *testing.T) *redis.Client {
	o := options(s.socket)
	o.DialTimeout = time.Second
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}
