package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog/internal/kamailio"
	"sipdialog.example/dialog/internal/program"
)

//go:embed kamailio.cfg
var kamailioConfig string

// front is the proxy before the nodes, and what it has said of them.
type front struct {
	process *program.Program

	mu     sync.Mutex // guards the field below
	events []event
}

// event is something that the front has said of a node.
type event struct {
	at   time.Time
	kind eventKind
	node string // its address
}

type eventKind string

const (
	down   eventKind = "DOWN"   // it does not answer OPTIONS
	up     eventKind = "UP"     // it does so again
	silent eventKind = "SILENT" // a request got no response within 1.5 s
)

func (e event) String() string { return fmt.Sprint(e.at.Format("05.000 "), e.kind, " ", e.node) }

func startFront(ctx context.Context, folder string) (*front, error) {
	list := filepath.Join(folder, "dispatcher.list")
	text := ""
	for _, address := range nodeAddresses {
		text += fmt.Sprintf("1 sip:%s:%d\n", address, sipPort)
	}
	config := strings.NewReplacer("{{front}}", fmt.Sprintf("%s:%d", frontAddress, sipPort), "{{list}}", list).Replace(kamailioConfig)
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		return nil, err
	}
	f := &front{}
	server, err := kamailio.Start(ctx, kamailio.Config{Text: config, Dir: folder, Command: program.Command{Line: f.hear}, Answers: answers()})
	if err != nil {
		return nil, err
	}
	f.process = server.Program
	return f, nil
}

// hear reads what the configuration says of nodes.
func (f *front) hear(line string) {
	_, said, found := strings.Cut(line, "HA-")
	if !found {
		return
	}
	kind, _, _ := strings.Cut(said, " ")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, address := range nodeAddresses {
		if strings.Contains(said, address+":") {
			f.events = append(f.events, event{time.Now(), eventKind(kind), address})
		}
	}
}

// said is what it has said so far.
func (f *front) said() []event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

func (f *front) isDown(address string) (isDown bool) {
	for _, e := range f.said() {
		if e.node == address && e.kind != silent {
			isDown = e.kind == down
		}
	}
	return isDown
}

// suspects returns what the front has said, of one kind, of nodes that were well.
func (f *front) suspects(kind eventKind, isWell func(node string, at time.Time) bool) (wrong []string) {
	for _, e := range f.said() {
		if e.kind == kind && isWell(e.node, e.at) {
			wrong = append(wrong, e.String())
		}
	}
	return wrong
}

// lostSight says that a run is void, for what the front has said; nil for nothing.
func lostSight(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w: the proxy marked running nodes as down: %s", errVoid, few(wrong))
}

// few is the beginning of a list.
func few(list []string) string {
	const most = 6
	if more := len(list) - most; more > 0 {
		list = append(slices.Clone(list[:most]), fmt.Sprint(more, " more"))
	}
	return strings.Join(list, "; ")
}

// answers returns a function that sends OPTIONS to the front, which a node answers 200.
func answers() func(context.Context) error {
	number := 0
	return func(context.Context) error {
		number++
		return probe(number)
	}
}

// probe sends one of them.
func probe(number int) error {
	conn, err := net.Dial("udp", net.JoinHostPort(frontAddress, strconv.Itoa(sipPort)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "OPTIONS sip:%[1]s:%[2]d SIP/2.0\r\nVia: SIP/2.0/UDP %[3]s;branch=z9hG4bKprobe%[4]d;rport\r\n"+
		"From: <sip:probe@%[3]s>;tag=probe%[4]d\r\nTo: <sip:%[1]s:%[2]d>\r\nCall-ID: probe%[4]d@%[3]s\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
		frontAddress, sipPort, conn.LocalAddr(), number)
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		return err
	}
	if line, _, _ := strings.Cut(string(buffer[:n]), "\r"); !strings.HasPrefix(line, "SIP/2.0 200") {
		return errors.New(line)
	}
	return nil
}
