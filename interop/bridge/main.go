// Command bridge tests programs of examples/ between two sipps: the bridge of
// examples/b2bua, examples/ivr and both flows of examples/clicktodial. Each case runs the
// program as a process, and a sipp on each side of it with the steps in cases.go. It exits
// 0 if all cases passed.
//
//	go run ./interop/bridge [-run REGEXP] [-keep]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// caseLimit bounds one case.
const caseLimit = 40 * time.Second

func main() {
	only := flag.String("run", "", "run only the cases whose name matches this regular expression")
	keep := flag.Bool("keep", false, "keep the logs")
	flag.Parse()
	if err := run(*only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "interop/bridge:", err)
		os.Exit(1)
	}
}

func run(only string, keep bool) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	dir, err := os.MkdirTemp("", "interop-bridge-")
	if err != nil {
		return err
	}
	for _, name := range []string{"b2bua", "ivr", "clicktodial"} {
		if said, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "./examples/"+name).CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", name, err, said)
		}
	}
	passed, failed := 0, 0
	for _, c := range cases() {
		if !wanted.MatchString(c.name) {
			continue
		}
		began := time.Now()
		if err := c.run(dir); err != nil {
			failed++
			fmt.Printf("FAIL  %-30s %v\n", c.name, err)
			continue
		}
		passed++
		fmt.Printf("ok    %-30s %5.1fs\n", c.name, time.Since(began).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || keep {
		fmt.Println("logs are in", dir)
	} else if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if failed > 0 || passed == 0 {
		return fmt.Errorf("%d cases failed, %d passed", failed, passed)
	}
	return nil
}

// run plays a case: the side that is called first, the program, and the side that calls.
func (c testCase) run(root string) error {
	ctx, cancel := context.WithTimeout(context.Background(), caseLimit)
	defer cancel()
	dir := filepath.Join(root, c.name+".logs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	listen, caller, callee := ports[0], ports[1], ports[2]
	var sides []*side
	begin := func(name, other string, port, peer string, listens bool, steps []string) error {
		if steps == nil {
			return nil
		}
		s, err := startSide(ctx, dir, name, port, peer, newScript(name, other, listens, steps))
		sides = append(sides, s)
		return err
	}
	if err := begin("callee", "caller", callee, "", true, c.callee); err != nil {
		return err
	}
	if c.callerListens {
		if err := begin("caller", "callee", caller, "", true, c.caller); err != nil {
			return err
		}
	}
	p, err := startProgram(ctx, c, root, strings.NewReplacer("LISTEN", "127.0.0.1:"+listen, "CALLER", "127.0.0.1:"+caller, "CALLEE", "127.0.0.1:"+callee))
	if err != nil {
		return err
	}
	if !c.callerListens {
		err = begin("caller", "callee", caller, "127.0.0.1:"+listen, false, c.caller)
	}
	for _, s := range sides {
		err = errors.Join(err, s.wait())
	}
	return errors.Join(err, p.end(c.says))
}

// freePorts finds unused ports.
func freePorts(n int) (ports []string, err error) {
	for range n {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		_, port, err := net.SplitHostPort(conn.LocalAddr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// side is a running sipp.
type side struct {
	name, dir string
	cmd       *exec.Cmd
	out       bytes.Buffer
}

func startSide(ctx context.Context, dir, name, port, peer, text string) (*side, error) {
	if err := os.WriteFile(filepath.Join(dir, name+".xml"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	args := []string{"-sf", name + ".xml", "-t", "u1", "-i", "127.0.0.1", "-p", port, "-m", "1", "-nostdin", "-timeout", "30", "-timeout_error",
		"-recv_timeout", "10000", "-trace_msg", "-message_file", name + ".messages", "-trace_err", "-error_file", name + ".errors"}
	if peer != "" {
		args = append(args, peer)
	}
	s := &side{name: name, dir: dir, cmd: exec.CommandContext(ctx, "sipp", args...)}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr, s.cmd.WaitDelay = dir, &s.out, &s.out, time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if peer == "" {
		return s, s.listening(ctx, port)
	}
	return s, nil
}

// listening waits until sipp has bound its port.
func (s *side) listening(ctx context.Context, port string) error {
	for ctx.Err() == nil {
		conn, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		if err != nil {
			return nil // it is taken
		}
		_ = conn.Close()
		time.Sleep(50 * time.Millisecond)
	}
	return ctx.Err()
}

func (s *side) wait() error {
	if s == nil {
		return nil
	}
	err := s.cmd.Wait()
	if err == nil {
		return nil
	}
	said, _ := os.ReadFile(filepath.Join(s.dir, s.name+".errors"))
	return fmt.Errorf("%s: %w\n%s", s.name, err, said)
}

// program is a running example.
type program struct {
	cmd *exec.Cmd

	mu    sync.Mutex // guards said
	said  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func startProgram(ctx context.Context, c testCase, root string, addresses *strings.Replacer) (*program, error) {
	name, args := "b2bua", append([]string{"-listen", "LISTEN", "-trunk", "sip:CALLEE"}, c.args...)
	if c.program != "" {
		name, args = c.program, c.args
	}
	for i := range args {
		args[i] = addresses.Replace(args[i])
	}
	p := &program{cmd: exec.CommandContext(ctx, filepath.Join(root, name), args...), ready: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = p, p, time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if name == "clicktodial" {
		return p, nil
	}
	select {
	case <-p.ready:
		return p, nil
	case <-ctx.Done():
		return p, errors.New("the program does not listen")
	}
}

// Write takes what the program prints.
func (p *program) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said.Write(text)
	if bytes.Contains(p.said.Bytes(), []byte("listening")) {
		p.once.Do(func() { close(p.ready) })
	}
	return len(text), nil
}

func (p *program) contains(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.said.String(), text)
}

// end interrupts the program, once it has said its text, and waits for it.
func (p *program) end(says string) error {
	for tries := 0; !p.contains(says) && tries < 40; tries++ {
		time.Sleep(50 * time.Millisecond)
	}
	err := p.cmd.Process.Signal(os.Interrupt)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	err = errors.Join(err, p.cmd.Wait())
	if !p.contains(says) {
		err = errors.Join(err, fmt.Errorf("the program does not say %q", says))
	}
	if err != nil {
		return fmt.Errorf("the program: %w\n%s", err, p.said.String())
	}
	return nil
}
