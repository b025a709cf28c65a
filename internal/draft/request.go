package draft

import (
	"bytes"
	"strconv"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

const crlf = "\r\n"

// Request is a request of ours that has not left: one goroutine has it. It has no
// Content-Length, which [Request.Text] adds, and its Via apart from its other fields.
type Request struct {
	Method sip.RequestMethod
	// Body is not copied before Text is called.
	Body []byte

	uri, via []byte
	fields   []byte // lines with their ends
	out      []byte // scratch space of Text
}

// requests hold scratch space only; nothing in them outlives Release.
var requests = sync.Pool{New: func() any { return new(Request) }}

// maxPooled keeps one large request from pinning its buffers for ever.
const maxPooled = 16 << 10

// New returns a request without header fields.
func New(method sip.RequestMethod, uri *sip.Uri) *Request {
	r := requests.Get().(*Request)
	r.Method = method
	r.SetURI(uri)
	return r
}

// Release gives the buffers to the next request. The request is not used any more.
func (r *Request) Release() {
	if cap(r.fields)+cap(r.out) <= maxPooled {
		*r = Request{uri: r.uri[:0], via: r.via[:0], fields: r.fields[:0], out: r.out[:0]}
		requests.Put(r)
	}
}

// Of copies a request of sipgo's, without its Via and Content-Length.
func Of(req *sip.Request) *Request {
	r := New(req.Method, &req.Recipient)
	r.addAll(req)
	return r
}

// Replace has the request say what req says now.
func (r *Request) Replace(req *sip.Request) {
	r.SetURI(&req.Recipient)
	r.fields = r.fields[:0]
	r.addAll(req)
}

func (r *Request) addAll(req *sip.Request) {
	for _, h := range req.Headers() {
		if !sipmsg.SameName(h.Name(), "Via") && !sipmsg.SameName(h.Name(), "Content-Length") {
			r.AddHeader(h)
		}
	}
	r.Body = req.Body()
}

// Parse returns the request with that text, which a Text has returned: to be sent again.
// It has no Via.
func Parse(text []byte) *Request {
	head, body, _ := bytes.Cut(text, []byte(crlf+crlf))
	line, fields, _ := bytes.Cut(head, []byte(crlf))
	method, uri, _ := bytes.Cut(line, []byte(" "))
	uri = bytes.TrimSuffix(uri, []byte(version))
	r := requests.Get().(*Request)
	r.Method, r.Body = sip.RequestMethod(method), body
	r.uri = append(r.uri[:0], uri...)
	r.fields = append(append(r.fields[:0], fields...), crlf...)
	for _, name := range []string{"Via", "Content-Length"} {
		r.Remove(name)
	}
	return r
}

// Derive returns what an ACK to a refusal (RFC 3261 17.1.1.3) and a CANCEL (9.1) have in
// common, from the text of their INVITE: Request-URI, top Via, Route, From, To, Call-ID and
// CSeq number.
func Derive(invite []byte, method sip.RequestMethod, hops int) *Request {
	from := Parse(invite)
	defer from.Release()
	r := requests.Get().(*Request)
	r.Method = method
	r.uri = append(r.uri[:0], from.uri...)
	r.via = append(r.via[:0], topVia(invite)...)
	r.addNumber("Max-Forwards", uint64(hops))
	from.each(func(name, value []byte) {
		switch string(name) {
		case "Route", "From", "To", "Call-ID":
			r.Add(string(name), string(value))
		}
	})
	r.AddCSeq(from.CSeq())
	return r
}

// topVia is the value of the first line after the start line, where Text puts the Via.
func topVia(text []byte) []byte {
	_, rest, _ := bytes.Cut(text, []byte(crlf))
	line, _, _ := bytes.Cut(rest, []byte(crlf))
	return bytes.TrimPrefix(line, []byte("Via: "))
}

// SetVia makes the Via of our hop (RFC 3261 18.1.1), with an rport without a value (RFC
// 3581 3).
func (r *Request) SetVia(transport, host string, port int, branch string) {
	b := append(append(append(r.via[:0], "SIP/2.0/"...), transport...), ' ')
	b = appendHost(b, host)
	if port > 0 {
		b = strconv.AppendInt(append(b, ':'), int64(port), 10)
	}
	r.via = append(append(append(b, ";branch="...), branch...), ";rport"...)
}

// version ends a request line.
const version = " SIP/2.0"

// Text returns the whole request, in a slice of its own that is exactly as long: it may
// be kept for repetitions.
func (r *Request) Text() []byte {
	b := append(append(append(r.out[:0], r.Method...), ' '), r.uri...)
	b = append(append(b, version...), crlf...)
	if len(r.via) > 0 {
		b = append(append(append(b, "Via: "...), r.via...), crlf...)
	}
	b = append(append(b, r.fields...), "Content-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(r.Body)), 10), crlf+crlf...)
	r.out = append(b, r.Body...)
	return bytes.Clone(r.out)
}

// Message returns the request as it is now, to be read: for who asks for more than one
// field.
func (r *Request) Message() *sipmsg.Message {
	b := append(append(append([]byte(nil), r.Method...), ' '), r.uri...)
	b = append(append(b, version+crlf...), r.fields...)
	m := sipmsg.Decode(b, len(b))
	m.SetBody(r.Body)
	return m
}

// URI returns the Request-URI.
func (r *Request) URI() string { return string(r.uri) }

// SetURI sets the Request-URI.
func (r *Request) SetURI(uri *sip.Uri) { r.uri = appendURI(r.uri[:0], uri) }

// IsSIPS reports whether the Request-URI is a SIPS URI.
func (r *Request) IsSIPS() bool {
	const scheme = "sips:"
	return len(r.uri) >= len(scheme) && sipmsg.EqualFold(string(r.uri[:len(scheme)]), scheme)
}

// ToTag returns the tag in To; empty for a request outside dialogs.
func (r *Request) ToTag() string {
	to, err := sipmsg.ParseAddress(r.Value("To"))
	if err != nil {
		return ""
	}
	tag, _ := to.Params.Get("tag")
	return tag
}

// CallID returns the Call-ID.
func (r *Request) CallID() string { return r.Value("Call-ID") }

// CSeq returns the number of the CSeq; zero without one.
func (r *Request) CSeq() uint32 {
	_, value, _ := r.find("CSeq", 0)
	number, _, _ := bytes.Cut(value, []byte(" "))
	n, _ := strconv.ParseUint(string(number), 10, 32)
	return uint32(n)
}

// CSeqMethod returns the method in the CSeq.
func (r *Request) CSeqMethod() sip.RequestMethod {
	_, value, _ := r.find("CSeq", 0)
	if _, method, _ := bytes.Cut(value, []byte(" ")); string(method) != string(r.Method) {
		return sip.RequestMethod(method)
	}
	return r.Method
}

// AddCSeq adds the CSeq with that number.
func (r *Request) AddCSeq(number uint32) {
	r.begin("CSeq")
	r.fields = strconv.AppendUint(r.fields, uint64(number), 10)
	r.write(" ")
	r.end(string(r.Method))
}

// SetCSeq changes the number of the CSeq.
func (r *Request) SetCSeq(number uint32) {
	r.Set("CSeq", strconv.FormatUint(uint64(number), 10)+" "+string(r.Method))
}

// SetMaxForwards sets the Max-Forwards.
func (r *Request) SetMaxForwards(hops int) {
	if r.Has("Max-Forwards") {
		r.Set("Max-Forwards", strconv.Itoa(hops))
		return
	}
	r.addNumber("Max-Forwards", uint64(hops))
}

func (r *Request) addNumber(name string, n uint64) {
	r.begin(name)
	r.fields = strconv.AppendUint(r.fields, n, 10)
	r.end("")
}

// AddRoute adds a Route.
func (r *Request) AddRoute(uri *sip.Uri) {
	r.begin("Route")
	r.write("<")
	r.fields = appendURI(r.fields, uri)
	r.end(">")
}

// AddParty adds a From or To. The display name is escaped, as between quotes; an empty
// tag is none: a peer of RFC 2543 has none (RFC 3261 12.2.1.1).
func (r *Request) AddParty(name, display string, uri *sip.Uri, tag string) {
	r.begin(name)
	r.fields = appendDisplay(r.fields, display)
	r.write("<")
	r.fields = appendURI(r.fields, uri)
	r.write(">")
	r.endTag(tag)
}

// AddPartyText is AddParty for a value that needs only the tag.
func (r *Request) AddPartyText(name, value, tag string) {
	r.begin(name)
	r.write(value)
	r.endTag(tag)
}

func (r *Request) endTag(tag string) {
	if tag != "" {
		r.write(";tag=")
	}
	r.end(tag)
}

// Add adds a field behind the others.
func (r *Request) Add(name, value string) {
	r.begin(name)
	r.end(value)
}

// AddHeader is Add for a header of sipgo's.
func (r *Request) AddHeader(h sip.Header) { r.Add(h.Name(), h.Value()) }

// Lines returns the fields of some names as they are written, for [Request.AddLines]; the
// empty string without any.
func (r *Request) Lines(names ...string) string {
	var lines []byte
	for _, name := range names {
		for at := 0; ; {
			start, value, next := r.find(name, at)
			if value == nil {
				break
			}
			lines = append(lines, r.fields[start:next]...)
			at = next
		}
	}
	return string(lines)
}

// AddLines adds fields that Lines has returned.
func (r *Request) AddLines(lines string) { r.fields = append(r.fields, lines...) }

// Has reports whether there is a field of that name.
func (r *Request) Has(name string) bool {
	_, value, _ := r.find(name, 0)
	return value != nil
}

// IsEmpty reports whether the first field of that name has no value, or there is none.
func (r *Request) IsEmpty(name string) bool {
	_, value, _ := r.find(name, 0)
	return len(value) == 0
}

// Value returns the value of the first field of that name; empty without one.
func (r *Request) Value(name string) string {
	_, value, _ := r.find(name, 0)
	return string(value)
}

// Set changes the first field of that name, or adds one.
func (r *Request) Set(name, value string) {
	start, old, next := r.find(name, 0)
	if old == nil {
		r.Add(name, value)
		return
	}
	rest := strings.Clone(string(r.fields[next:]))
	r.fields = r.fields[:start]
	r.Add(name, value)
	r.fields = append(r.fields, rest...)
}

// Remove removes all fields of that name.
func (r *Request) Remove(name string) {
	r.RemoveIf(name, func(string) bool { return true })
}

// RemoveIf removes the fields of that name whose value is chosen.
func (r *Request) RemoveIf(name string, chosen func(value string) bool) {
	for at := 0; ; {
		start, value, next := r.find(name, at)
		switch {
		case value == nil:
			return
		case chosen(string(value)):
			r.fields = append(r.fields[:start], r.fields[next:]...)
			at = start
		default:
			at = next
		}
	}
}

// each calls f with each field.
func (r *Request) each(f func(name, value []byte)) {
	for at := 0; at < len(r.fields); {
		name, value, next := r.line(at)
		f(name, value)
		at = next
	}
}

// find returns the first field of that name from an index on: where it starts and ends,
// and its value, nil if there is none.
func (r *Request) find(name string, at int) (start int, value []byte, next int) {
	for at < len(r.fields) {
		n, value, next := r.line(at)
		if (len(n) == len(name) || len(n) == 1 || len(name) == 1) && sipmsg.SameName(string(n), name) {
			return at, value, next
		}
		at = next
	}
	return 0, nil, 0
}

// line reads the field at an index.
func (r *Request) line(at int) (name, value []byte, next int) {
	rest := r.fields[at:]
	end := bytes.IndexByte(rest, '\n')
	colon := bytes.IndexByte(rest, ':')
	return rest[:colon], rest[colon+len(": ") : end-1], at + end + 1
}

// begin writes the name of a field, end the last part of its value.
func (r *Request) begin(name string) {
	r.write(name)
	r.write(": ")
}

func (r *Request) end(s string) {
	r.write(s)
	r.fields = append(r.fields, crlf...)
}

// write writes a part of a field. What would end its line is a space.
func (r *Request) write(s string) {
	from := len(r.fields)
	r.fields = append(r.fields, s...)
	clean(r.fields[from:])
}
