package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/ladder"
)

// record holds the messages that bob has sent and received, and notes. The server's own
// record would die with it.
type record struct {
	mu     sync.Mutex // guards the fields below
	bob    netip.AddrPort
	server netip.AddrPort
	events []event
	// flow has the messages as lines like "bob INVITE" and "server 200 INVITE", without
	// repetitions. read counts those that earlier steps have expected.
	flow []string
	read int
	seen map[string]bool
	// changed is closed and replaced at each addition.
	changed chan struct{}
}

// event is a line of the ladder: a message, or a note if data is nil.
type event struct {
	at        time.Time
	from, to  netip.AddrPort
	data      []byte
	who, text string
}

func newRecord() *record { return &record{seen: make(map[string]bool), changed: make(chan struct{})} }

// meet records the addresses.
func (r *record) meet(bob, server netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bob, r.server = bob, server
}

// trace records a message of bob's stack.
func (r *record) trace(e dialog.TraceEvent) {
	data, who, from, to := bytes.Clone(e.Data), "server", e.Remote, e.Local
	if e.Outbound {
		who, from, to = "bob", e.Local, e.Remote
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{at: e.Time, from: from, to: to, data: data})
	if !r.seen[string(data)] {
		r.seen[string(data)] = true
		r.flow = append(r.flow, who+" "+describe(data))
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// note adds a remark at a participant's column.
func (r *record) note(who, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{at: time.Now(), who: who, text: text})
}

// expect waits until there are as many new messages as given, and compares them. A wrong
// one ends the wait.
func (r *record) expect(ctx context.Context, want []string) error {
	for ctx.Err() == nil {
		r.mu.Lock()
		changed, flow := r.changed, r.flow[r.read:]
		r.mu.Unlock()
		if len(flow) >= len(want) || !slices.Equal(flow, want[:len(flow)]) {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	flow := r.flow[r.read:]
	r.read = len(r.flow)
	if !slices.Equal(flow, want) {
		return fmt.Errorf("the messages should be [%s], but are [%s]", strings.Join(want, "; "), strings.Join(flow, "; "))
	}
	return nil
}

func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flow)
}

// ladder draws all messages and notes.
func (r *record) ladder() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := ladder.New(ladder.Participant{Name: "bob", Addr: r.bob}, ladder.Participant{Name: "server", Addr: r.server})
	for _, e := range r.events {
		if e.data == nil {
			l.Note(e.at, e.who, e.text)
		} else {
			l.Message(e.at, e.from, e.to, e.data)
		}
	}
	return l.String()
}

// describe names a message as the steps do: "INVITE sendonly", "200 INVITE recvonly", "BYE".
func describe(data []byte) string {
	m, err := sipmsg.Parse(data)
	if err != nil {
		return "unreadable"
	}
	name := string(m.Method)
	if m.Status != 0 {
		name = fmt.Sprint(m.Status, " ", m.CSeqMethod)
	}
	for _, line := range strings.Fields(string(m.Body())) {
		switch line {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
			name += " " + strings.TrimPrefix(line, "a=")
		}
	}
	return name
}
