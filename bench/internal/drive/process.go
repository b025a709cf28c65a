// Package drive runs the processes of a benchmark: servers and clients of package child,
// and sipp at their other end.
package drive

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"sipdialog.example/dialog/bench/internal/child"
)

// Build builds commands of the module in a directory by their import paths, into
// dir.
func Build(module, dir string, paths ...string) error {
	for _, path := range paths {
		build := exec.Command("go", "build", "-C", module, "-o", filepath.Join(dir, filepath.Base(path)), path)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build %s: %w", path, err)
		}
	}
	return nil
}

// Process is a child process that runs until its standard input or its work ends.
type Process struct {
	Cmd   *exec.Cmd
	Stdin io.WriteCloser
	Out   *bufio.Reader
	// Address is the address that it listens on.
	Address string
}

// Start starts a child and returns when it listens.
func Start(binary string, args ...string) (*Process, error) {
	p := &Process{Cmd: exec.Command(binary, args...)}
	p.Cmd.Stderr = os.Stderr
	stdin, err := p.Cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.Cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.Stdin, p.Out = stdin, bufio.NewReader(stdout)
	if err := p.Cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanf(p.Out, "ready %s\n", &p.Address); err != nil {
		_, _ = p.Stop()
		return nil, fmt.Errorf("%s does not listen: %w", binary, err)
	}
	return p, nil
}

// Stop ends the child and returns its usage.
func (p *Process) Stop() (child.Usage, error) {
	_ = p.Stdin.Close()
	return p.Wait()
}

// Wait returns the usage of the child after the end of its work.
func (p *Process) Wait() (child.Usage, error) {
	var usage child.Usage
	_, err := fmt.Fscanf(p.Out, "usage %d %d %d\n", (*int64)(&usage.User), (*int64)(&usage.System), &usage.PeakRSS)
	if waitErr := p.Cmd.Wait(); err == nil {
		err = waitErr
	}
	return usage, err
}

// FreePort returns an unused UDP port of the loopback interface.
func FreePort() (int, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return conn.LocalAddr().(*net.UDPAddr).Port, conn.Close()
}
