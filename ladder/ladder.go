// Package ladder draws SIP messages as a call flow in plain text: a column for
// each participant, an arrow for each message, the time down the left side.
//
// A [Ladder] collects messages and notes and is drawn with [Ladder.WriteTo]. It
// keeps a line of text for each message, so one call or one test is a good
// span for it.
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

// Ladder collects what is to be drawn. It is made by [New]; its methods may be
// called from any goroutine and block on nothing but each other.
type Ladder struct {
	names map[netip.AddrPort]string

	mu      sync.Mutex // guards the fields below
	columns []string
	events  []event
	// seen counts the messages by their digest, to find repetitions.
	seen map[[sha256.Size]byte]int
}

// event is one line of the drawing: an arrow between two columns, or a note at
// one.
type event struct {
	at       time.Time
	from, to int
	label    string
}

// New returns an empty ladder with the participants' columns in this order.
// Others get a column when they first appear, named by their address.
func New(participants ...Participant) *Ladder {
	l := &Ladder{
		names: make(map[netip.AddrPort]string),
		seen:  make(map[[sha256.Size]byte]int),
	}
	// Nobody else has l yet: the mutex is not needed.
	for _, p := range participants {
		l.names[unmapped(p.Addr)] = p.Name
		l.columnLocked(p.Name)
	}
	return l
}

// Message adds one message, sent at t. Requests are shown as method and CSeq
// number, responses as status and what they answer, both with the direction of
// each media stream when the body is SDP, and the status of a NOTIFY that reports
// on a REFER. A message with the same bytes, source and destination as an earlier
// one is marked as its repeat. What is not SIP is shown by its size, and a
// message from a participant to itself as a note. Data is one message, as a
// datagram or a framed stream holds it, and is not kept.
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

// WriteTo draws what has been added so far, in the order of time; what has the
// same time stays in the order in which it was added. Times are seconds since
// the first. No lock is held while w is written to; the error is w's.
func (l *Ladder) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, l.String())
	return int64(n), err
}

// String returns what WriteTo writes; nothing for a ladder without events.
func (l *Ladder) String() string {
	l.mu.Lock()
	columns, events := slices.Clone(l.columns), slices.Clone(l.events)
	l.mu.Unlock()
	if len(events) == 0 {
		return ""
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	return newDrawing(columns, events).text()
}

// name returns what an address is called.
func (l *Ladder) name(addr netip.AddrPort) string {
	if name, ok := l.names[addr]; ok {
		return name
	}
	if name, ok := l.names[netip.AddrPortFrom(addr.Addr(), 0)]; ok {
		return name
	}
	return addr.String()
}

// columnLocked returns the column of a name, a new one when it has none.
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
