package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed scenarios/*.xml
var scenarios embed.FS

// The files that sipp writes in its directory.
const (
	scenarioFile = "scenario.xml"
	messageLog   = "messages.log"
	errorLog     = "errors.log"
	screenLog    = "screen.log"
)

// errPortTaken means that another process took sipp's port between freePort and the
// start of sipp.
var errPortTaken = errors.New("the port was taken")

// maxTries bounds how often a case looks for another port.
const maxTries = 3

// child is a running sipp.
type child struct {
	dir    string
	port   int
	stdout *os.File
	stderr bytes.Buffer
	cmd    *exec.Cmd
}

// startSipp runs the scenario of a case in dir. peer is the address to call; empty
// makes sipp wait for calls on its port. The end of ctx kills it.
func startSipp(ctx context.Context, c testCase, dir, peer string) (*child, error) {
	text, err := scenarios.ReadFile("scenarios/" + c.scenario)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, scenarioFile), text, 0o644); err != nil {
		return nil, err
	}
	port, err := freePort(c.protocol)
	if err != nil {
		return nil, err
	}
	return runSipp(ctx, c, dir, port, peer)
}

// runSipp runs the scenario that is in dir.
func runSipp(ctx context.Context, c testCase, dir string, port int, peer string) (*child, error) {
	screen, err := os.Create(filepath.Join(dir, screenLog))
	if err != nil {
		return nil, err
	}
	s := &child{dir: dir, port: port, stdout: screen}
	s.cmd = exec.CommandContext(ctx, "sipp", arguments(c, port, peer)...)
	s.cmd.Dir = dir
	s.cmd.Stdout = screen
	s.cmd.Stderr = &s.stderr
	s.cmd.WaitDelay = time.Second
	if err := s.cmd.Start(); err != nil {
		_ = screen.Close()
		return nil, err
	}
	return s, nil
}

func arguments(c testCase, port int, peer string) []string {
	mode := "u1"
	if c.protocol == "tcp" {
		mode = "t1"
	}
	arguments := []string{
		"-sf", scenarioFile, "-t", mode, "-i", "127.0.0.1", "-p", strconv.Itoa(port),
		"-m", strconv.Itoa(c.calls), "-l", strconv.Itoa(c.calls), "-nostdin",
		"-timeout", strconv.Itoa(int(c.limit().Seconds())), "-timeout_error", "-recv_timeout", "5000",
		"-trace_msg", "-message_file", messageLog, "-trace_err", "-error_file", errorLog,
	}
	if peer != "" {
		arguments = append(arguments, peer)
	}
	return arguments
}

// wait returns nil if every call succeeded for sipp, else sipp's errors.
func (s *child) wait() error {
	err := s.cmd.Wait()
	_ = s.stdout.Close()
	if err == nil {
		return nil
	}
	said, readErr := os.ReadFile(filepath.Join(s.dir, errorLog))
	if readErr != nil {
		said = s.stderr.Bytes()
	}
	if bytes.Contains(said, []byte("Unable to bind main socket")) {
		err = errors.Join(err, errPortTaken)
	}
	return fmt.Errorf("sipp: %w\n%s", err, indent(string(said)))
}

// freePort finds an unused port. sipp gets it as an argument, since sipp does not report
// a port that it chooses.
func freePort(protocol string) (int, error) {
	if protocol == "tcp" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		return listener.Addr().(*net.TCPAddr).Port, listener.Close()
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return conn.LocalAddr().(*net.UDPAddr).Port, conn.Close()
}

// waitListening returns when a process listens on sipp's port.
func (s *child) waitListening(ctx context.Context, protocol string) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	probe := probeUDP
	if protocol == "tcp" {
		probe = probeTCP
	}
	for ctx.Err() == nil {
		if probe(address) {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("sipp does not listen: %w", ctx.Err())
}

// probeUDP sends a keep-alive (RFC 5626 4.4.1), which sipp ignores. If no process
// listens, the kernel refuses it.
func probeUDP(address string) bool {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return false
	}
	defer closeQuietly(conn)
	if _, err := conn.Write([]byte("\r\n\r\n")); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

func probeTCP(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	closeQuietly(conn)
	return true
}

func closeQuietly(conn net.Conn) { _ = conn.Close() }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func indent(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ")
}
