package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a program that was started, with the programs that it has started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended

	mu    sync.Mutex // guards the field below
	lines []string
}

// start starts a program in a folder. It gets each line of both outputs.
func start(folder string, line func(string), name string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Dir = folder
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = in, in
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		_ = in.Close()
	}()
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.keep(lines.Text())
			line(lines.Text())
		}
	}()
	return p, nil
}

// kept is how many lines of output are kept for messages about failures.
const kept = 20

func (p *process) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
	p.lines = p.lines[max(0, len(p.lines)-kept):]
}

// said is the end of the output.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ""
	for _, line := range p.lines {
		text += "\n    " + line
	}
	return text
}

func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// kill ends the program and its children at once, as kill -9.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop asks the program to end, and kills it if it has not within that time.
func (p *process) stop(patience time.Duration) error {
	p.signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.wait(ctx)
}

// wait waits until the program has ended; it kills the program if ctx ends first.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s: did not end: %w%s", p.name, ctx.Err(), p.said())
	}
}
