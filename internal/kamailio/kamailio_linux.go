package kamailio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sipdialog.example/dialog/internal/program"
)

// Packages are Debian's packages of it.
const Packages = "kamailio, kamailio-tls-modules, kamailio-websocket-modules"

// patience is how long one that has been started may take until it answers.
const patience = 30 * time.Second

// Installed reports whether there is a Kamailio.
func Installed() bool {
	_, err := exec.LookPath("kamailio")
	return err == nil
}

// Config is what a Kamailio is started with.
type Config struct {
	// Text is its configuration; see Registrar.
	Text string
	// Dir is a folder of its own, for the configuration and its sockets.
	Dir string
	// Command may have more about how it is started: Line, Thread, Apart.
	Command program.Command
	// Answers tries once whether it answers: nil says that it does.
	Answers func(ctx context.Context) error
}

// Server is a Kamailio.
type Server struct {
	*program.Program // the one that runs
	config           Config
}

// Start writes the configuration, starts a Kamailio, and waits until it answers.
func Start(ctx context.Context, c Config) (*Server, error) {
	file := filepath.Join(c.Dir, "kamailio.cfg")
	if err := os.WriteFile(file, []byte(c.Text), 0o600); err != nil {
		return nil, err
	}
	c.Command.Path, c.Command.Dir = "kamailio", c.Dir
	c.Command.Args = []string{"-f", file, "-Y", c.Dir, "-P", filepath.Join(c.Dir, "pid"), "-DD", "-E", "-m", "128", "-M", "8"}
	s := &Server{config: c}
	return s, s.Restart(ctx)
}

// Restart kills the Kamailio that runs, if there is one, and starts another, which knows
// nothing of what the first has been told. It waits until it answers. Now and then one hangs
// in its first handshake, with OpenSSL 3, and never serves another: a new one is started in
// its place.
func (s *Server) Restart(ctx context.Context) (err error) {
	for range 3 {
		s.Kill()
		if s.Program, err = program.Start(s.config.Command); err != nil {
			return err
		}
		if err = s.answers(ctx); err == nil {
			return nil
		}
	}
	s.Kill()
	return err
}

// EndsWith ends the Kamailio that runs then with a test. What it has said is logged if the
// test has failed.
func (s *Server) EndsWith(t testing.TB) {
	t.Cleanup(func() { s.Kill() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", s, s.Said())
		}
	})
}

// answers waits until it answers.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := s.config.Answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.Done():
			return fmt.Errorf("kamailio has ended:\n%s", s.Said())
		case <-ctx.Done():
			return fmt.Errorf("kamailio does not answer: %w:\n%s", errors.Join(ctx.Err(), err), s.Said())
		}
	}
}
