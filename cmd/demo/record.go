package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/ladder"
)

// record holds every message once, as its sender wrote it, and every note.
type record struct {
	mu           sync.Mutex // guards the fields below
	participants []ladder.Participant
	events       []event
	seen         map[string]bool
	// flow has the messages as lines like "alice>bob INVITE sendrecv", without
	// retransmissions, and flowEvents the messages themselves.
	flow       []string
	flowEvents []event
	// notes are lines like "alice outgoing: Ringing".
	notes []string
	// flowRead and notesRead count the entries that earlier steps have expected.
	flowRead, notesRead int
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

func newRecord() *record {
	return &record{seen: make(map[string]bool), changed: make(chan struct{})}
}

// meet records the name of an address.
func (r *record) meet(name string, addr netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.participants = append(r.participants, ladder.Participant{Name: name, Addr: addr})
}

// trace records the messages that the stack with that name sends. It ignores those that
// the stack receives, since their sender's trace has recorded them.
func (r *record) trace(name string) func(dialog.TraceEvent) {
	return func(e dialog.TraceEvent) {
		if e.Outbound {
			r.message(name, e)
		}
	}
}

func (r *record) message(name string, e dialog.TraceEvent) {
	data := slices.Clone(e.Data)
	label := describe(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := event{at: e.Time, from: e.Local, to: e.Remote, data: data}
	r.events = append(r.events, sent)
	line := name + ">" + r.nameLocked(e.Remote) + " " + label
	if key := line + "\n" + string(data); !r.seen[key] {
		r.seen[key] = true
		r.flow, r.flowEvents = append(r.flow, line), append(r.flowEvents, sent)
	}
	r.wakeLocked()
}

// note adds a remark at a participant's column.
func (r *record) note(who, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{at: time.Now(), who: who, text: text})
	r.notes = append(r.notes, who+" "+text)
	r.wakeLocked()
}

func (r *record) nameLocked(addr netip.AddrPort) string {
	for _, p := range r.participants {
		if p.Addr == addr {
			return p.Name
		}
	}
	return addr.String()
}

func (r *record) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// expect waits until there are as many new messages and notes as given, and compares
// them: the messages in their order, the notes in any order, since the notes of two
// stacks have no common order. A wrong message ends the wait.
func (r *record) expect(ctx context.Context, flow, notes []string) error {
	for {
		r.mu.Lock()
		changed := r.changed
		newFlow, newNotes := r.flow[r.flowRead:], r.notes[r.notesRead:]
		wrong := !slices.Equal(newFlow, flow[:min(len(flow), len(newFlow))])
		if wrong || len(newFlow) >= len(flow) && len(newNotes) >= len(notes) {
			r.flowRead, r.notesRead = len(r.flow), len(r.notes)
			r.mu.Unlock()
			return compare(flow, newFlow, notes, newNotes)
		}
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", ctx.Err(), compare(flow, newFlow, notes, newNotes))
		}
	}
}

func compare(wantFlow, flow, wantNotes, notes []string) error {
	if !slices.Equal(wantFlow, flow) {
		return fmt.Errorf("the messages should be %s, but are %s", list(wantFlow), list(flow))
	}
	if !slices.Equal(slices.Sorted(slices.Values(wantNotes)), slices.Sorted(slices.Values(notes))) {
		return fmt.Errorf("the notes should be %s, but are %s", list(wantNotes), list(notes))
	}
	return nil
}

func list(lines []string) string { return "[" + strings.Join(lines, "; ") + "]" }

// nothingMore fails if there is a message or note that no step expected.
func (r *record) nothingMore() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := compare(nil, r.flow[r.flowRead:], nil, r.notes[r.notesRead:]); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return nil
}

// ladder draws all messages and notes.
func (r *record) ladder() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := ladder.New(r.participants...)
	for _, e := range r.events {
		if e.data == nil {
			l.Note(e.at, e.who, e.text)
		} else {
			l.Message(e.at, e.from, e.to, e.data)
		}
	}
	return l.String()
}

func (r *record) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d messages and %d notes, all as expected", len(r.flow), len(r.notes))
}

// describe names a message as the steps do: "INVITE sendonly", "200 INVITE",
// "NOTIFY 180", "183 INVITE sendrecv reliable", "UPDATE 90;refresher=uac".
func describe(data []byte) string {
	read, err := sipmsg.Parse(data)
	if err != nil {
		return "unreadable"
	}
	msg := read.SIP()
	var parts []string
	switch m := msg.(type) {
	case *sip.Request:
		parts = append(parts, string(m.Method))
	case *sip.Response:
		parts = append(parts, fmt.Sprint(m.StatusCode), string(m.CSeq().MethodName))
	}
	if body := content(string(msg.Body())); body != "" {
		parts = append(parts, body)
	}
	if len(msg.GetHeaders("RSeq")) > 0 { // RFC 3262 7.1
		parts = append(parts, "reliable")
	}
	for _, expires := range msg.GetHeaders("Session-Expires") {
		parts = append(parts, expires.Value())
	}
	return strings.Join(parts, " ")
}

// content returns the part of a body that the steps check: the status that it reports,
// or the direction of the media.
func content(body string) string {
	// RFC 3515 2.4.5: the body of a NOTIFY is the status line of the new call.
	if words := strings.Fields(body); strings.HasPrefix(body, "SIP/2.0 ") && len(words) > 1 {
		return words[1]
	}
	return direction(body)
}
