//go:build interop && linux

package peers

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// process is a program of others, which ends with its test, or with this program.
type process struct {
	name  string
	cmd   *exec.Cmd
	input io.WriteCloser
	out   output
	ended chan struct{}
}

// output is what a process has said so far.
type output struct {
	mu      sync.Mutex // guards the fields below
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(p)
}

// read returns all output, and a channel that is closed at the next.
func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}

// launch starts a program in a folder of its own.
func launch(t *testing.T, dir string, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{name: path, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	p.input, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	started := make(chan error)
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // whose end is taken for that of this program
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	require.NoError(t, <-started)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			said, _ := p.out.read()
			t.Logf("%s:\n%s", strings.Join(p.cmd.Args, " "), tail(said, 6000))
		}
	})
	return p
}

// kill ends the program, and what it has started, at once.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// types gives the program a line of input.
func (p *process) types(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(p.input, line+"\n")
	require.NoError(t, err, "%s has ended", p.name)
}

// says waits until the program has said something, after the first from bytes, and
// returns the number of bytes until then.
func (p *process) says(t *testing.T, from int, text string) int {
	t.Helper()
	found := from
	until(t, p.name+" says "+text, func() (bool, <-chan struct{}) {
		said, changed := p.out.read()
		at := strings.Index(said[min(from, len(said)):], text)
		found = from + at + len(text)
		return at >= 0, changed
	})
	return found
}

func tail(text string, most int) string { return text[max(0, len(text)-most):] }
