package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Command is what is started.
type Command struct {
	Path string
	Args []string
	// Dir is the folder that it runs in; empty means ours. Env is added to our environment.
	Dir string
	Env []string
	// Line gets each line of its output, in order; it may be nil.
	Line func(string)
	// Thread runs a function on a thread, such as one of another network, until the function
	// returns; nil means a thread of its own.
	Thread func(func() error) error
	// Apart numbers its processes apart (as root): what it starts ends with it even if we crash.
	Apart bool
}

// Program is a program that runs, or has run.
type Program struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	out   output
	ended chan struct{}
}

// Start starts a program, which ends with this one, or before.
func Start(c Command) (*Program, error) {
	p := &Program{cmd: exec.Command(c.Path, c.Args...), ended: make(chan struct{}), out: output{line: c.Line}}
	p.cmd.Dir, p.cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.Apart {
		p.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	var err error
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.Thread == nil {
		c.Thread = ownThread
	}
	if err := p.start(c.Thread); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	return p, nil
}

// start runs the program on a thread that lives as long, whose end is taken for ours.
func (p *Program) start(thread func(func() error) error) error {
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		running := false
		err := thread(func() error {
			err := p.cmd.Start()
			if running = err == nil; running {
				started <- nil
				_ = p.cmd.Wait()
			}
			return err
		})
		if !running {
			started <- err
		}
	}()
	return <-started
}

func ownThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.ended }

// Kill ends the program and what it has started, at once. Nothing happens to a nil Program.
func (p *Program) Kill() {
	if p == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *Program) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// Stop asks the program to end, and kills it if ctx ends before.
func (p *Program) Stop(ctx context.Context) error {
	p.signal(syscall.SIGTERM)
	return p.Wait(ctx)
}

// Wait waits until the program has ended; it is killed if ctx ends before.
func (p *Program) Wait(ctx context.Context) error {
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s: did not end: %w:\n%s", p, ctx.Err(), p.Said())
	}
}

// String is the command line.
func (p *Program) String() string { return strings.Join(p.cmd.Args, " ") }

// Type gives the program a line of input.
func (p *Program) Type(line string) error {
	if _, err := io.WriteString(p.input, line+"\n"); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// Said is the last part of the output.
func (p *Program) Said() string {
	const most = 6000
	said, _ := p.out.read()
	return said[max(0, len(said)-most):]
}

// Length is the number of bytes of the output.
func (p *Program) Length() int {
	said, _ := p.out.read()
	return len(said)
}

// Says waits until the output has a text, after the first from bytes, and returns the
// number of bytes until the end of it.
func (p *Program) Says(ctx context.Context, from int, text string) (int, error) {
	for ended := false; ; {
		said, changed := p.out.read()
		if at := strings.Index(said[min(from, len(said)):], text); at >= 0 {
			return from + at + len(text), nil
		}
		if ended {
			return from, fmt.Errorf("%s: ended before it said %q:\n%s", p, text, p.Said())
		}
		select {
		case <-changed:
		case <-p.ended:
			ended = true
		case <-ctx.Done():
			return from, fmt.Errorf("%s: does not say %q: %w:\n%s", p, text, ctx.Err(), p.Said())
		}
	}
}
