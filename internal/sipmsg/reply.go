package sipmsg

import (
	"bytes"
	"strconv"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// Field is one header field to be written.
type Field struct{ Name, Value string }

// Reply is a response to be written.
type Reply struct {
	Code   int
	Reason string
	// Tag is put into a To that has none; but never in a 100.
	Tag string
	// Fields follow those that are repeated.
	Fields []Field
	Body   []byte
}

// maxPooled keeps one large message from pinning its buffer for ever.
const maxPooled = 16 << 10

// buffer is the memory that a message is written into.
type buffer struct{ b []byte }

// WriteString is how sipgo's headers write themselves.
func (w *buffer) WriteString(s string) (int, error) {
	w.b = append(w.b, s...)
	return len(s), nil
}

// buffers hold scratch space only; nothing in them outlives a call.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// exact returns a copy of the written bytes, in a slice of that length: it may be
// kept for repetitions. The buffer goes back to the others.
func (w *buffer) exact() []byte {
	out := bytes.Clone(w.b)
	Lent{w}.Return()
	return out
}

// Lent is a message in a buffer that is given back once it was sent.
type Lent struct{ *buffer }

// Bytes are the message, until Return.
func (l Lent) Bytes() []byte { return l.b }

// Return gives the buffer to the others.
func (l Lent) Return() {
	if l.b = l.b[:0]; cap(l.b) <= maxPooled {
		buffers.Put(l.buffer)
	}
}

// Lend is Reply for a response that is not kept.
func (m *Message) Lend(r *Reply) Lent {
	w := buffers.Get().(*buffer)
	w.b = m.AppendReply(w.b, r)
	return Lent{w}
}

// Reply returns a response to the request m: see [Message.AppendReply].
func (m *Message) Reply(r *Reply) []byte {
	w := buffers.Get().(*buffer)
	w.b = m.AppendReply(w.b, r)
	return w.exact()
}

// AppendReply appends a response to the request m: what it repeats (RFC 3261
// 8.2.6, 12.1.1) is as it came, whatever m has of it.
func (m *Message) AppendReply(dst []byte, r *Reply) []byte {
	dst = appendStatus(dst, r.Code, r.Reason)
	for i := range m.lines {
		if l := &m.lines[i]; m.repeats(l, r.Code) {
			dst = m.appendRepeated(dst, l, r)
		}
	}
	for _, f := range r.Fields {
		dst = appendField(dst, f.Name, f.Value)
	}
	return appendBody(dst, r.Body)
}

func appendStatus(dst []byte, code int, reason string) []byte {
	dst = append(dst, "SIP/2.0 "...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	return append(dst, crlf...)
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, crlf...)
}

func appendBody(dst, body []byte) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, crlf+crlf...)
	return append(dst, body...)
}

// repeats reports whether a response repeats a field of the request.
func (m *Message) repeats(l *line, code int) bool {
	if l.id == idOther {
		return code == sip.StatusTrying && m.is(l, idOther, timestamp)
	}
	return m.repeatsKnown(l.id, code)
}

// timestamp is repeated in a 100 (RFC 3261 8.2.6.1).
const timestamp = "Timestamp"

func (m *Message) repeatsKnown(known id, code int) bool {
	switch known {
	case idVia, idFrom, idTo, idCallID, idCSeq:
		return true
	case idRecordRoute:
		return m.repeatsRoute(code)
	}
	return false
}

// repeatsRoute: in responses that make a dialog or refresh it (RFC 3261 12.1.1,
// table 2).
func (m *Message) repeatsRoute(code int) bool {
	return m.Method != sip.REGISTER && code > 100 && code < 300
}

func (m *Message) appendRepeated(dst []byte, l *line, r *Reply) []byte {
	dst = append(dst, m.name(l)...)
	dst = append(dst, ": "...)
	switch value := m.value(l); {
	case l.id == idVia && l == m.first(idVia):
		top, _, _ := Cut(value, ',')
		dst = append(m.appendTop(dst, top), value[len(top):]...)
	case l.id == idTo && r.Code != sip.StatusTrying:
		dst = m.appendTo(dst, value, r.Tag)
	default:
		dst = append(dst, value...)
	}
	return append(dst, crlf...)
}

// appendTop appends the value of the top Via.
func (m *Message) appendTop(dst []byte, value string) []byte {
	if !m.Source.IsValid() || !m.HasVia() {
		return append(dst, value...)
	}
	return appendMarked(dst, value, m.Source, m.received)
}

// appendTo appends the value of To. One that cannot be read is not added to.
func (m *Message) appendTo(dst []byte, value, tag string) []byte {
	dst = append(dst, value...)
	if m.ToTag != "" || !m.HasTo || tag == "" {
		return dst
	}
	if value[len(value)-1] != ';' {
		dst = append(dst, ';')
	}
	return append(append(dst, "tag="...), tag...)
}
