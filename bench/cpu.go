package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sipdialog.example/dialog/bench/internal/child"
)

// load is what sipp does to a server.
type load struct {
	rate, seconds int
	linger        time.Duration
}

func (l load) calls() int { return l.rate * l.seconds }

// compareCPU runs the two servers in turn, each under the same load of sipp's
// built-in caller, and prints the ratio of their CPU for each pair.
func compareCPU(args []string) error {
	flags := flag.NewFlagSet("cpu", flag.ContinueOnError)
	pairs := flags.Int("pairs", 5, "how many pairs")
	rate := flags.Int("rate", 1500, "calls a second")
	seconds := flags.Int("seconds", 5, "length of a run")
	linger := flags.Duration("linger", 0, "how long a server goes on after the last call: with 33s its transactions end too")
	trying := flags.Bool("trying", false, "have bare sipgo send a 100 too")
	profile := flags.String("cpuprofile", "", "file for a CPU profile of the library's server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, name := range []string{"server", "barsipgo"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "sipdialog.example/dialog/bench/"+name)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	l := load{rate: *rate, seconds: *seconds, linger: *linger}
	fmt.Printf("cpu: %d calls/s for %d s, sipp -sn uac\n", l.rate, l.seconds)
	var serverArgs, bareArgs []string
	if *profile != "" {
		serverArgs = []string{"-cpuprofile", *profile}
	}
	if *trying {
		bareArgs = []string{"-trying"}
	}
	var ratios []float64
	for pair := range *pairs {
		ours, err := serveLoad(filepath.Join(dir, "server"), l, serverArgs...)
		if err != nil {
			return err
		}
		theirs, err := serveLoad(filepath.Join(dir, "barsipgo"), l, bareArgs...)
		if err != nil {
			return err
		}
		ratio := float64(ours.CPU()) / float64(theirs.CPU())
		ratios = append(ratios, ratio)
		fmt.Printf("  pair %d: server %s, bare sipgo %s, ratio %.2f\n", pair+1, perCall(ours, l), perCall(theirs, l), ratio)
	}
	fmt.Printf("  ratio: median %.2f, min %.2f, max %.2f\n", median(ratios), slices.Min(ratios), slices.Max(ratios))
	return nil
}

func perCall(u child.Usage, l load) string {
	n := time.Duration(l.calls())
	return fmt.Sprintf("%d us a call (%d user, %d system; peak %d MiB)", (u.CPU() / n).Microseconds(),
		(u.User / n).Microseconds(), (u.System / n).Microseconds(), u.PeakRSS>>10)
}

// tries is how often a run is made anew. Where nobody repeats a 2xx, one that is
// lost on the way leaves sipp waiting for ever.
const tries = 5

// serveLoad is serveOnce until all calls have succeeded.
func serveLoad(binary string, l load, args ...string) (usage child.Usage, err error) {
	for range tries {
		if usage, err = serveOnce(binary, l, args...); err == nil {
			return usage, nil
		}
		fmt.Printf("  %s: once more: %v\n", filepath.Base(binary), err)
	}
	return usage, fmt.Errorf("%s: %w", filepath.Base(binary), err)
}

// serveOnce starts a server, has sipp call it, and returns what that cost the
// server.
func serveOnce(binary string, l load, args ...string) (child.Usage, error) {
	p, err := startProcess(binary, args...)
	if err != nil {
		return child.Usage{}, err
	}
	loadErr := callServer(p.address, l)
	time.Sleep(l.linger)
	usage, err := p.stop()
	if loadErr != nil {
		return usage, loadErr
	}
	return usage, err
}

// callServer has sipp make the calls, and fails when one of them did.
func callServer(address string, l load) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	sipp := exec.Command("sipp", "-sn", "uac", "-i", "127.0.0.1", "-p", strconv.Itoa(port),
		"-r", strconv.Itoa(l.rate), "-m", strconv.Itoa(l.calls()), "-nostdin", "-buff_size", "4194304",
		"-timeout", strconv.Itoa(l.seconds+5), "-timeout_error", address)
	sipp.Stdout, sipp.Stderr = io.Discard, &out
	if err := sipp.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Errorf("sipp: %w: %s", err, lines[len(lines)-1])
	}
	return nil
}

func freePort() (int, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return conn.LocalAddr().(*net.UDPAddr).Port, conn.Close()
}

// process is a child that serves until its standard input ends.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	out     *bufio.Reader
	address string
}

// startProcess returns once the child listens.
func startProcess(binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...)}
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdin, p.out = stdin, bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanf(p.out, "ready %s\n", &p.address); err != nil {
		_, _ = p.stop()
		return nil, fmt.Errorf("%s does not listen: %w", binary, err)
	}
	return p, nil
}

// stop ends the child and returns what it has used.
func (p *process) stop() (child.Usage, error) {
	_ = p.stdin.Close()
	var usage child.Usage
	_, err := fmt.Fscanf(p.out, "usage %d %d %d\n", (*int64)(&usage.User), (*int64)(&usage.System), &usage.PeakRSS)
	if waitErr := p.cmd.Wait(); err == nil {
		err = waitErr
	}
	return usage, err
}
