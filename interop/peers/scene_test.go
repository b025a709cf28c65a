//go:build interop && linux

package peers

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/testcert"
	"sipdialog.example/dialog/ladder"
)

// soon bounds the waits; a machine of CI may be slow.
const soon = 90 * time.Second

// scenes counts the scenes, each of which has addresses of its own.
var scenes atomic.Uint32

// scene is what takes part in one test, and all messages of our stacks in it.
type scene struct {
	t      *testing.T
	number uint32

	mu       sync.Mutex // guards the fields below
	names    []ladder.Participant
	messages []message
	notes    []note
	changed  chan struct{}
	signs    *testcert.Authority
	stations []*station
}

// message is a message that a stack of ours has sent or received.
type message struct {
	at       time.Time
	from, to netip.AddrPort
	data     []byte
	sent     bool
	station  string
}

type note struct {
	at        time.Time
	who, text string
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, number: scenes.Add(1)}
	require.Less(t, s.number, uint32(500), "there are no more addresses")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the call:\n%s\n%s", s.ladder(), s.texts())
		}
	})
	return s
}

// address returns the address of a participant of this scene. Programs that run at the same
// time have other addresses.
func (s *scene) address(host int, name string) string {
	network := 2*os.Getpid() + int(s.number)/250
	addr := netip.AddrFrom4([4]byte{127, byte(2 + network%250), byte(s.number % 250), byte(host)})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, ladder.Participant{Name: name, Addr: netip.AddrPortFrom(addr, 0)})
	return addr.String()
}

func (s *scene) trace(station string) func(dialog.TraceEvent) {
	return func(e dialog.TraceEvent) {
		m := message{at: e.Time, from: e.Remote, to: e.Local, data: slices.Clone(e.Data), sent: e.Outbound, station: station}
		if e.Outbound {
			m.from, m.to = e.Local, e.Remote
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.messages = append(s.messages, m)
		s.wakeLocked()
	}
}

func (s *scene) note(who, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, note{time.Now(), who, text})
	s.wakeLocked()
}

func (s *scene) wakeLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// ladder draws all messages, those between two stacks of ours once.
func (s *scene) ladder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := ladder.New(s.names...)
	for _, m := range s.messages {
		if m.sent || !s.oursLocked(m.from) {
			l.Message(m.at, m.from, m.to, m.data)
		}
	}
	for _, n := range s.notes {
		l.Note(n.at, n.who, n.text)
	}
	return l.String()
}

// oursLocked reports whether a stack of ours has sent from this address.
func (s *scene) oursLocked(addr netip.AddrPort) bool {
	return slices.ContainsFunc(s.messages, func(m message) bool { return m.sent && m.from == addr })
}

// texts returns the messages in full.
func (s *scene) texts() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	seen := make(map[string]bool)
	for _, m := range s.messages {
		if text := string(m.data); len(text) > 4 && !seen[text] {
			seen[text] = true
			fmt.Fprintf(&b, "--- %s %s: %s to %s\n%s\n", m.at.Format("05.000"), m.station, m.from, m.to, m.data)
		}
	}
	return b.String()
}

// wants says which messages are looked for: a request by its method, a response as in
// "200 INVITE".
func wants(data []byte, what string) (sip.Message, bool) {
	read, err := sipmsg.Parse(data)
	if err != nil {
		return nil, false
	}
	msg := read.SIP()
	name := ""
	switch m := msg.(type) {
	case *sip.Request:
		name = string(m.Method)
	case *sip.Response:
		name = fmt.Sprint(m.StatusCode, " ", m.CSeq().MethodName)
	}
	return msg, name == what
}

// got waits for a message that the peers have sent, and for which all of the conditions
// hold.
func (s *scene) got(what string, conditions ...func(sip.Message) bool) (msg sip.Message, data []byte) {
	s.t.Helper()
	s.until("a message of the peer: "+what, func() bool {
		msg, data = s.findLocked(false, what, conditions...)
		return msg != nil
	})
	return msg, data
}

// has returns a message that the peers have sent already; nil if there is none.
func (s *scene) has(what string, conditions ...func(sip.Message) bool) (sip.Message, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findLocked(false, what, conditions...)
}

// sent waits for a message of ours.
func (s *scene) sent(what string, conditions ...func(sip.Message) bool) (msg sip.Message) {
	s.t.Helper()
	s.until("a message of ours: "+what, func() bool {
		msg, _ = s.findLocked(true, what, conditions...)
		return msg != nil
	})
	return msg
}

func (s *scene) findLocked(sent bool, what string, conditions ...func(sip.Message) bool) (sip.Message, []byte) {
	for _, m := range s.messages {
		if m.sent != sent {
			continue
		}
		msg, is := wants(m.data, what)
		for _, holds := range conditions {
			is = is && holds(msg)
		}
		if is {
			return msg, m.data
		}
	}
	return nil, nil
}

// countLocked counts the messages that are looked for.
func (s *scene) countLocked(what string, holds func(message) bool) (n int) {
	for _, m := range s.messages {
		if _, is := wants(m.data, what); is && holds(m) {
			n++
		}
	}
	return n
}

// until waits for a condition of the scene; it runs with the mutex held.
func (s *scene) until(what string, holds func() bool) {
	s.t.Helper()
	until(s.t, what, func() (bool, <-chan struct{}) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		return holds(), s.changed
	})
}

// until waits until a condition holds, and looks anew when the channel is closed.
func until(t *testing.T, what string, look func() (bool, <-chan struct{})) {
	t.Helper()
	limit := time.NewTimer(soon)
	defer limit.Stop()
	for {
		holds, changed := look()
		if holds {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			require.FailNow(t, "this has not happened: "+what)
		}
	}
}

// try runs something that takes a context, which must not fail.
func (s *scene) try(what string, f func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	require.NoError(s.t, f(ctx), what)
}

// value returns the lines of a header of a message, joined.
func value(msg sip.Message, name string) string {
	var values []string
	for _, h := range msg.GetHeaders(name) {
		values = append(values, h.Value())
	}
	return strings.Join(values, ", ")
}

// lists reports whether a header lists a token.
func lists(msg sip.Message, name, token string) bool {
	for _, one := range dialog.HeaderList(value(msg, name)) {
		if strings.EqualFold(strings.TrimSpace(one), token) {
			return true
		}
	}
	return false
}

// body returns a condition: the body has a text.
func body(text string) func(sip.Message) bool {
	return func(msg sip.Message) bool { return strings.Contains(string(msg.Body()), text) }
}
