package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed kamailio.cfg
var kamailioConfig string

// front is the proxy before the nodes, and what it has said of them.
type front struct {
	process *process

	mu     sync.Mutex // guards the fields below
	down   map[string]bool
	silent map[string]int // requests that were not answered, by node
	events []string
}

func startFront(folder string) (*front, error) {
	list := filepath.Join(folder, "dispatcher.list")
	text := ""
	for _, address := range nodeAddresses {
		text += fmt.Sprintf("1 sip:%s:%d\n", address, sipPort)
	}
	config := strings.NewReplacer("{{front}}", fmt.Sprintf("%s:%d", frontAddress, sipPort), "{{list}}", list).Replace(kamailioConfig)
	file := filepath.Join(folder, "kamailio.cfg")
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	f := &front{down: make(map[string]bool), silent: make(map[string]int)}
	var err error
	f.process, err = start(folder, f.hear, "kamailio", "-f", file, "-Y", folder, "-P", filepath.Join(folder, "pid"), "-DD", "-E", "-m", "128", "-M", "8")
	if err != nil {
		return nil, err
	}
	return f, f.ready()
}

// hear reads what the configuration says of nodes.
func (f *front) hear(line string) {
	_, said, found := strings.Cut(line, "HA-")
	if !found {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasPrefix(said, "SILENT") {
		f.events = append(f.events, time.Now().Format("05.000")+" "+said)
	}
	for _, address := range nodeAddresses {
		if !strings.Contains(said, address+":") {
			continue
		}
		switch {
		case strings.HasPrefix(said, "DOWN"):
			f.down[address] = true
		case strings.HasPrefix(said, "UP"):
			f.down[address] = false
		case strings.HasPrefix(said, "SILENT"):
			f.silent[address]++
		}
	}
}

func (f *front) isDown(address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down[address]
}

// suspects returns what the front has said of a node that was well: then the run says
// nothing about the library.
func (f *front) suspects(address string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[address] || f.silent[address] > 0 {
		return fmt.Errorf("%w: the front lost sight of %s, which was well: %d requests without response; %s",
			errVoid, address, f.silent[address], strings.Join(f.events, "; "))
	}
	return nil
}

// ready waits until a request gets through to a node and back.
func (f *front) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for try := 1; ctx.Err() == nil; try++ {
		if probe(try) {
			return nil
		}
		select {
		case <-f.process.done:
			return fmt.Errorf("kamailio has ended:%s", f.process.said())
		default:
		}
	}
	return fmt.Errorf("kamailio does not answer:%s", f.process.said())
}

// probe sends OPTIONS to the front, and reports whether that is answered 200 soon.
func probe(number int) bool {
	conn, err := net.Dial("udp", net.JoinHostPort(frontAddress, strconv.Itoa(sipPort)))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "OPTIONS sip:%[1]s:%[2]d SIP/2.0\r\nVia: SIP/2.0/UDP %[3]s;branch=z9hG4bKprobe%[4]d;rport\r\n"+
		"From: <sip:probe@%[3]s>;tag=probe%[4]d\r\nTo: <sip:%[1]s:%[2]d>\r\nCall-ID: probe%[4]d@%[3]s\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
		frontAddress, sipPort, conn.LocalAddr(), number)
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		time.Sleep(100 * time.Millisecond)
		return false
	}
	return strings.HasPrefix(string(buffer[:n]), "SIP/2.0 200")
}
