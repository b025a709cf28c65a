package sipmsg

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// Fault is an error in a message: the response it gets if it is a
// request.
type Fault struct {
	Code   int
	Reason string
}

func bad(reason string) *Fault { return &Fault{Code: sip.StatusBadRequest, Reason: reason} }

// line is where the value of a header field is in the text, without the white
// space around it.
type line struct {
	from   uint32
	length uint16
	id     id
}

// maxValue bounds the value of a header field: its place is stored in 16 bits, which keeps
// the table in each message small.
const maxValue = 1<<16 - 1

// Message is one message as it was received. Once [Message.Arrived],
// [Message.SetBody] and [Message.Fail] have been called it does not change any
// more, and all other methods may be called from any goroutine.
type Message struct {
	startLine
	text  string // start line and header fields
	lines []line
	few   [16]line // the memory of lines, if they are few
	seen  uint32   // bits of the ids in lines
	body  []byte

	// Fault is the first thing wrong; nil when all is well.
	Fault *Fault
	// Length is the Content-Length, -1 when there is none. LengthFault is why it
	// cannot be trusted.
	Length      int
	LengthFault *Fault

	// Of the header fields without which there is no transaction: empty, or
	// zero, when they are missing or malformed. Via is the top one.
	CallID         string
	FromTag        string
	ToTag          string
	CSeq           uint32
	CSeqMethod     sip.RequestMethod
	Via            SentBy
	Vias           int // how many there are
	HasFrom, HasTo bool

	// Transport and Source say how it came.
	Transport string
	Source    netip.AddrPort
	received  bool // the top Via has to say so

	once sync.Once
	made sip.Message
}

// IsRequest reports whether the message is a request.
func (m *Message) IsRequest() bool { return m.Method != "" }

// IsProvisional, IsSuccess and IsRedirection tell responses by their status.
func (m *Message) IsProvisional() bool { return m.Status >= 100 && m.Status < 200 }
func (m *Message) IsSuccess() bool     { return m.Status >= 200 && m.Status < 300 }
func (m *Message) IsRedirection() bool { return m.Status >= 300 && m.Status < 400 }

// Scheme returns the scheme of the Request-URI, in lower case; empty for one that is
// malformed, and in a response.
func (m *Message) Scheme() string {
	scheme, _, _ := strings.Cut(m.RequestURI, ":")
	return toLower(scheme)
}

// HasVia reports whether there is a top Via, and it could be read.
func (m *Message) HasVia() bool { return m.Via.Host != "" }

// Body returns the body; nil without one. It may be written to, by one who
// knows to be alone with it.
func (m *Message) Body() []byte { return m.body }

// SetBody gives the message its body, which it takes over. A message without
// Content-Length has all that it is given.
func (m *Message) SetBody(body []byte) {
	if len(body) > 0 {
		m.body = body[:len(body):len(body)]
	}
}

// Arrived notes where the message came from.
func (m *Message) Arrived(transport string, source netip.AddrPort) {
	m.Transport, m.Source = transport, source
	if !m.IsRequest() || !m.HasVia() {
		return
	}
	// RFC 3261 18.2.1, RFC 3581 4.
	_, rport := m.Via.Params.Get("rport")
	m.received = rport || !m.Via.names(source.Addr())
}

func (m *Message) value(l *line) string { return m.text[l.from : l.from+uint32(l.length)] }

// name is how the field is called: a short name is said in full.
func (m *Message) name(l *line) string {
	if l.id != idOther {
		return longNames[l.id]
	}
	start := strings.LastIndexByte(m.text[:l.from], '\n') + 1
	return trimRight(m.text[start : start+colon(m.text[start:])])
}

// colon returns the index of the first colon, or the length without one.
func colon(s string) int {
	if i := strings.IndexByte(s, ':'); i >= 0 {
		return i
	}
	return len(s)
}

func trimRight(s string) string {
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// is reports whether a field has that name.
func (m *Message) is(l *line, known id, name string) bool {
	if l.id != known {
		return false
	}
	return known != idOther || EqualFold(m.name(l), name)
}

// Values returns the field values of that name, one a line, as they came but
// for folds (RFC 3261 7.3.1).
func (m *Message) Values(name string) []string {
	var values []string
	known := idOf(name)
	for i := range m.lines {
		if l := &m.lines[i]; m.is(l, known, name) {
			values = append(values, m.value(l))
		}
	}
	return values
}

// Value returns the first field value of that name, and whether there is one.
func (m *Message) Value(name string) (string, bool) {
	known := idOf(name)
	for i := range m.lines {
		if l := &m.lines[i]; m.is(l, known, name) {
			return m.value(l), true
		}
	}
	return "", false
}

// Each calls f with each value of the fields of that name, which are lists; with those
// that are empty, too.
func (m *Message) Each(name string, f func(value string)) {
	known := idOf(name)
	for i := range m.lines {
		l := &m.lines[i]
		if !m.is(l, known, name) {
			continue
		}
		for list, more := m.value(l), true; more; {
			var value string
			value, list, more = Cut(list, ',')
			f(value)
		}
	}
}

// TopVia returns the value of the top Via, as it came; empty without one.
func (m *Message) TopVia() string {
	l := m.first(idVia)
	if l == nil {
		return ""
	}
	value, _, _ := Cut(m.value(l), ',')
	return value
}

// first returns the first line of a field, or nil.
func (m *Message) first(known id) *line {
	for i := range m.lines {
		if m.lines[i].id == known {
			return &m.lines[i]
		}
	}
	return nil
}

// Excerpt is a copy of the start line and some of the header fields, which shares no
// text with the message.
func (m *Message) Excerpt(names ...string) *Message {
	var b strings.Builder
	first, _ := cutLine(m.text)
	b.WriteString(first + crlf)
	for i := range m.lines {
		l := &m.lines[i]
		name := m.name(l)
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			b.WriteString(name + ": " + m.value(l) + crlf)
		}
	}
	b.WriteString(crlf)
	e := decodeText(b.String(), b.Len())
	e.Arrived(m.Transport, m.Source)
	return e
}

// Kept is a message that is put aside: its bytes, without the table and the
// structs.
type Kept struct {
	text      string
	body      []byte
	transport string
	source    netip.AddrPort
}

// Keep puts the message aside.
func (m *Message) Keep() *Kept {
	return &Kept{text: m.text, body: m.body, transport: m.Transport, source: m.Source}
}

// Size is how many bytes it has; zero of nil.
func (k *Kept) Size() int {
	if k == nil {
		return 0
	}
	return len(k.text) + len(k.body)
}

// Holds reports whether bytes are a part of its body, and not a copy; false for nil.
func (k *Kept) Holds(data []byte) bool {
	if k == nil || cap(data) == 0 || cap(k.body) == 0 {
		return false
	}
	return &data[:cap(data)][cap(data)-1] == &k.body[:cap(k.body)][cap(k.body)-1] // slices of one array
}

// HeadSize is how many bytes it has without its body.
func (k *Kept) HeadSize() int {
	if k == nil {
		return 0
	}
	return len(k.text)
}

// WithoutBody is the message without its body.
func (k *Kept) WithoutBody() *Kept {
	short := *k
	short.body = nil
	return &short
}

// Source is the address that the message came from, an IPv4 address as such; invalid
// if there is none.
func (k *Kept) Source() netip.Addr {
	if k == nil {
		return netip.Addr{}
	}
	return k.source.Addr().Unmap()
}

// Message reads the text again; nil if there is none.
func (k *Kept) Message() *Message {
	if k == nil {
		return nil
	}
	m := decodeText(k.text, len(k.text))
	m.body = k.body
	m.Arrived(k.transport, k.source)
	return m
}

// Text returns the start line and the header fields, each line with its end, and
// the empty line: as they came, but for folds.
func (m *Message) Text() string { return m.text }
