package sipmsg

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Decode reads a start line and header fields: head ends before the empty line,
// and is the message's from then on. It continues after a malformed field, so that a
// response can repeat the others; fields is the expected number of values. It returns nil for
// data that is not SIP.
//
// A malformed value is a fault of the message only in a field that each transaction needs (RFC
// 3261 8.2.2, 13.2.2.4): Via, From, To, Call-ID, CSeq; a fault of Content-Length is kept apart.
// All other fields are checked by their readers. A response is accepted as long as its
// transaction and its To tag can be read.
func Decode(head []byte, fields int) *Message { return decodeText(text(plain(head)), fields) }

func decodeText(text string, fields int) *Message {
	m := &Message{Length: -1, text: text}
	m.lines = m.few[:0]
	first, _ := cutLine(m.text)
	fault, ok := m.startLine.read(first)
	if !ok {
		return nil
	}
	m.Fault = fault
	m.readLines(len(first)+len(crlf), fields)
	return m
}

// Parse reads a whole message. It makes a copy of it. The error is a fault of the
// message's, or that it is none.
func Parse(data []byte) (*Message, error) {
	head, body, ended := CutHead(bytes.Clone(data))
	m := Decode(head, len(head))
	switch {
	case m == nil || !ended:
		return nil, errNoMessage
	case m.Fault != nil:
		return nil, errors.New("sipmsg: " + m.Fault.Reason)
	case m.LengthFault != nil:
		return nil, errors.New("sipmsg: " + m.LengthFault.Reason)
	case m.Length > len(body):
		return nil, errNoMessage
	case m.Length >= 0:
		body = body[:m.Length]
	}
	m.SetBody(body)
	return m, nil
}

var errNoMessage = errors.New("sipmsg: incomplete message")

func (m *Message) fail(reason string) { m.Fail(bad(reason)) }

// Fail records the first fault of a message.
func (m *Message) Fail(f *Fault) {
	if m.Fault == nil {
		m.Fault = f
	}
}

// readLines reads the header fields from an index of the text on.
func (m *Message) readLines(at, fields int) {
	count := 0
	for at < len(m.text) {
		end := len(m.text)
		if i := strings.Index(m.text[at:], crlf); i >= 0 {
			end = at + i
		}
		count += m.readLine(at, end)
		if count > fields {
			// The part that was not read may have the Content-Length.
			m.fail("Too Many Header Fields")
			m.LengthFault = bad("Too Many Header Fields")
			return
		}
		at = end + len(crlf)
	}
}

// readLine reads one field, and returns how many values it has.
func (m *Message) readLine(at, end int) int {
	s := m.text[at:end]
	c := colon(s)
	name := trimRight(s[:c])
	if c == len(s) || name == "" || isSpace(name[0]) || hasLineEnd(s) {
		if m.IsRequest() {
			m.fail("Malformed Header Field")
		}
		return 1
	}
	value := trimLeft(m.text[at+c+1 : end])
	from := end - len(value)
	if value = trimRight(value); len(value) > maxValue {
		m.fail("Header Field Too Large")
		return 1
	}
	return m.readField(line{from: uint32(from), length: uint16(len(value)), id: idOf(name)})
}

// readField reads the value of a field, if the transaction needs it, and notes
// where it is.
func (m *Message) readField(l line) (count int) {
	value, again := m.value(&l), m.seen&(1<<l.id) != 0
	m.seen |= 1 << l.id
	count = 1
	switch l.id {
	case idVia:
		count = m.readVias(value)
	case idContact, idRoute, idRecordRoute:
		count = values(value)
	case idContentLength:
		m.readLength(value)
	case idFrom, idTo, idCallID, idCSeq:
		if again {
			m.repeated(&l, value)
			return count
		}
		if !m.readMandatory(l.id, value) {
			m.fail("Malformed " + longNames[l.id])
		}
	}
	m.lines = append(m.lines, l)
	return count
}

// repeated takes the second copy of a field that may stand only once: the message is then
// ambiguous. In a response it does no harm if both are equal, or if it is a From, which is
// not needed there.
func (m *Message) repeated(l *line, value string) {
	if m.IsRequest() || l.id != idFrom && value != m.value(m.first(l.id)) {
		m.fail("Repeated " + longNames[l.id])
	}
}

// values counts the values of a list.
func values(list string) (n int) {
	for more := true; more; n++ {
		_, list, more = Cut(list, ',')
	}
	return n
}

// readVias reads the values of one line. The top one is kept, if it can be read.
func (m *Message) readVias(list string) (n int) {
	for more := true; more; n++ {
		var value string
		value, list, more = Cut(list, ',')
		via, err := ParseVia(value)
		if err != nil {
			m.fail("Malformed Via")
		} else if m.Vias == 0 {
			m.Via = via.SentBy
		}
		m.Vias++
	}
	return n
}

func (m *Message) readMandatory(known id, value string) bool {
	switch known {
	case idFrom:
		m.FromTag, m.HasFrom = m.readParty(value)
		return m.HasFrom
	case idTo:
		m.ToTag, m.HasTo = m.readParty(value)
		return m.HasTo
	case idCallID:
		if !isUnquotedID(value) {
			return false
		}
		m.CallID = value
		return true
	default:
		return m.readCSeq(value)
	}
}

// readParty reads From or To, of which a transaction needs the tag, and the callee's
// dialog the URI. Of a response the tag will do, in whatever it stands: an ACK that
// is not sent would leave the peer with half a call (RFC 3261 13.2.2.4).
func (m *Message) readParty(value string) (tag string, ok bool) {
	a, err := ParseAddress(value)
	if err == nil {
		_, err = parseParty(a.URI)
	}
	switch {
	case err == nil:
		tag, _ = a.Params.Get("tag")
	case m.IsRequest():
		return "", false
	default:
		tag = tagAtTheEnd(value)
	}
	return tag, true
}

// tagAtTheEnd returns the tag behind all of a malformed address.
func tagAtTheEnd(value string) string {
	for at, n := len(value), 0; n < maxParams; n++ {
		if at = strings.LastIndexByte(value[:at], ';'); at < 0 {
			break
		}
		first, _, _ := Params(value[at:]).Next()
		if EqualFold(first.Name, "tag") && IsToken(first.Value) {
			return first.Value
		}
	}
	return ""
}

// isUnquotedID is lenient: a Call-ID is compared, and copied.
func isUnquotedID(s string) bool {
	for i := range len(s) {
		if isControl(s[i]) {
			return false
		}
	}
	return s != ""
}

// readCSeq allows any white space between number and method (RFC 3261 25.1).
func (m *Message) readCSeq(value string) bool {
	end := strings.IndexAny(value, lws)
	if end < 0 {
		return false
	}
	number, err := strconv.ParseUint(value[:end], 10, 32)
	method := trimLeft(value[end:])
	if err != nil || !IsToken(method) {
		return false
	}
	m.CSeq, m.CSeqMethod = uint32(number), sip.RequestMethod(method)
	return true
}

// readLength takes Content-Length. If two differ, or one is not a number, the end of the
// message is unknown (RFC 3261 18.3).
func (m *Message) readLength(value string) {
	n, err := strconv.ParseUint(value, 10, 31)
	switch {
	case err != nil:
		m.LengthFault = bad("Malformed Content-Length")
	case m.Length < 0:
		m.Length = int(n)
	case m.Length != int(n):
		m.LengthFault = bad("Differing Content-Length")
	}
}
