// Package ladder draws SIP messages as a call flow: a column for each participant and an
// arrow for each message.
//
// A [Ladder] collects messages and notes. [Ladder.WriteTo] draws them in plain text, with
// the time down the left side, and [Ladder.WriteSVG] as a picture. It keeps a line of text
// for each message, so use one for a single call or test.
package ladder

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Participant names an address. Port 0 stands for every port of the address
// that no other participant names. Participants with the same name share one
// column.
type Participant struct {
	Name string
	Addr netip.AddrPort
}

// Ladder collects the messages and notes of a drawing. It is made by [New]. Its methods
// may be called from any goroutine, and block only while another of them runs.
type Ladder struct {
	names map[netip.AddrPort]string

	mu      sync.Mutex // guards the fields below
	columns []string
	events  []event
	// seen counts the messages by their digest, to find repeats.
	seen map[[sha256.Size]byte]int
}

// event is one line of the drawing: an arrow between two columns, a note at one, or a
// heading across all.
type event struct {
	at       time.Time
	from, to int
	label    string
	heading  bool
}

// New returns an empty ladder with the participants' columns in this order. Any other
// address gets a column when it first appears, named by the address.
func New(participants ...Participant) *Ladder {
	l := &Ladder{
		names: make(map[netip.AddrPort]string),
		seen:  make(map[[sha256.Size]byte]int),
	}
	// No other goroutine has l yet, so the mutex is not needed.
	for _, p := range participants {
		l.names[unmapped(p.Addr)] = p.Name
		l.columnLocked(p.Name)
	}
	return l
}

// Message adds one message, sent at t. A request is shown by its method and CSeq
// number, a response by its status and its CSeq. If the body is SDP, the direction of
// each media stream is added; for a NOTIFY about a REFER, the status that it reports. A
// message with the same bytes, source and destination as an earlier one is marked as its
// repeat. Data that is not SIP is shown by its size, and a message from a participant to
// itself as a note. Data is one message, as in a datagram or a framed stream, and is not
// kept.
func (l *Ladder) Message(t time.Time, from, to netip.AddrPort, data []byte) {
	from, to = unmapped(from), unmapped(to)
	text := describe(data)
	digest := digestOf(from, to, data)

	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.seen[digest]; n > 0 && text != keepAlive {
		text += fmt.Sprintf(", repeat %d", n)
	}
	l.seen[digest]++
	l.events = append(l.events, event{
		at: t, from: l.columnLocked(l.name(from)), to: l.columnLocked(l.name(to)), label: text,
	})
}

// Note adds a remark at the column of the participant with this name, such as
// a change of state.
func (l *Ladder) Note(t time.Time, who, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	column := l.columnLocked(who)
	l.events = append(l.events, event{at: t, from: column, to: column, label: printable(text)})
}

// Heading adds a line across all columns, such as the step of a test that follows.
func (l *Ladder) Heading(t time.Time, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event{at: t, label: printable(text), heading: true})
}

// WriteTo draws all messages and notes so far, in the order of their times. Those with
// the same time keep the order in which they were added. Times are seconds since the
// first. WriteTo writes to w with no lock held, and returns the error of w.
func (l *Ladder) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, l.String())
	return int64(n), err
}

// String returns the drawing of WriteTo; an empty string for a ladder without events.
func (l *Ladder) String() string {
	if d := l.drawing(); d != nil {
		return d.text()
	}
	return ""
}

// drawing lays out what there is so far; nil if there are no columns or events.
func (l *Ladder) drawing() *drawing {
	l.mu.Lock()
	columns, events := slices.Clone(l.columns), slices.Clone(l.events)
	l.mu.Unlock()
	if len(events) == 0 || len(columns) == 0 {
		return nil
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	return newDrawing(columns, events)
}

// name returns the name of an address.
func (l *Ladder) name(addr netip.AddrPort) string {
	if name, ok := l.names[addr]; ok {
		return name
	}
	if name, ok := l.names[netip.AddrPortFrom(addr.Addr(), 0)]; ok {
		return name
	}
	return addr.String()
}

// columnLocked returns the column of a name, and adds one if there is none.
func (l *Ladder) columnLocked(name string) int {
	name = printable(name)
	if i := slices.Index(l.columns, name); i >= 0 {
		return i
	}
	l.columns = append(l.columns, name)
	return len(l.columns) - 1
}

func digestOf(from, to netip.AddrPort, data []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(from.String()+" "+to.String()+" "), data...))
}

// unmapped turns an IPv4 address in IPv6 form, as sockets for both families
// report it, into a plain one.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
