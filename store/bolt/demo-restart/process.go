package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is the server, as this program sees it.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines chan string // its output; closed when it has ended
}

// start starts the server. It ends by itself if this program dies, since its input ends.
func start(address, file string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, "server", address, file), lines: make(chan string, 100)}
	p.cmd.Stderr = os.Stderr
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	return p, nil
}

// says waits for a line that begins with a word, and returns the rest of it. Any other line
// is an error.
func (p *process) says(ctx context.Context, word string) (rest string, err error) {
	select {
	case line, running := <-p.lines:
		if !running {
			return "", fmt.Errorf("the server has ended, and should have said %q", word)
		}
		said, rest, _ := strings.Cut(line, " ")
		if said != word {
			return "", fmt.Errorf("the server says %q, not %q", line, word)
		}
		return rest, nil
	case <-ctx.Done():
		return "", fmt.Errorf("the server does not say %q: %w", word, ctx.Err())
	}
}

// tell gives the server a task, and waits until it is done.
func (p *process) tell(ctx context.Context, task string) error {
	if _, err := fmt.Fprintln(p.input, task); err != nil {
		return err
	}
	_, err := p.says(ctx, "done")
	return err
}

// kill ends the server at once, as kill -9.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	p.awaitEnd()
	_ = p.cmd.Wait() // it was killed
	return err
}

func (p *process) awaitEnd() {
	for range p.lines { // its output ends with it
	}
}

// stop has the server end by itself.
func (p *process) stop(ctx context.Context) error {
	_ = p.input.Close()
	unhook := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer unhook()
	p.awaitEnd()
	return p.cmd.Wait()
}
