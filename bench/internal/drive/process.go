// Package drive runs the processes of a benchmark: servers and clients, which
// are package child's, and sipp at their other end.
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

// Process is a child that runs until its standard input ends, or its work is
// done.
type Process struct {
	Cmd   *exec.Cmd
	Stdin io.WriteCloser
	Out   *bufio.Reader
	// Address is where it listens.
	Address string
}

// Start returns once the child listens.
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

// Stop ends the child and returns what it has used.
func (p *Process) Stop() (child.Usage, error) {
	_ = p.Stdin.Close()
	return p.Wait()
}

// Wait returns what the child has used when its work is done.
func (p *Process) Wait() (child.Usage, error) {
	var usage child.Usage
	_, err := fmt.Fscanf(p.Out, "usage %d %d %d\n", (*int64)(&usage.User), (*int64)(&usage.System), &usage.PeakRSS)
	if waitErr := p.Cmd.Wait(); err == nil {
		err = waitErr
	}
	return usage, err
}

// FreePort is a UDP port of the loopback interface that nobody has.
func FreePort() (int, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return conn.LocalAddr().(*net.UDPAddr).Port, conn.Close()
}
