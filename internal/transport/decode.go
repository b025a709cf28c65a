package transport

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"
)

const (
	crlf     = "\r\n"
	endBlock = "\r\n\r\n"
	lws      = " \t"
)

// fault is what is wrong with a message: the answer it gets if it is a
// request.
type fault struct {
	code   int
	reason string
}

func bad(reason string) *fault { return &fault{code: sip.StatusBadRequest, reason: reason} }

// maxParams bounds the parameters of one value: the parser's time grows with
// their square.
const maxParams = 128

var (
	errParserPanic   = errors.New("the parser panicked")
	errTooManyParams = errors.New("too many parameters")
)

// parsed is a message's start line and headers, as far as they could be read.
type parsed struct {
	msg      sip.Message // nil: nothing that SIP could answer
	fault    *fault      // the first thing wrong; nil when all is well
	length   int         // Content-Length; -1 when there is none
	unframed bool        // the length cannot be trusted
	count    int         // header field values so far
	seen     uint8       // bits of once
}

func (p *parsed) fail(f *fault) {
	if p.fault == nil {
		p.fault = f
	}
}

// decoder reads header blocks. What it returns does not alias its input: the
// parser copies start line, names and values into strings. One read loop uses
// it at a time.
type decoder struct {
	// Set at construction.
	parser     *sip.Parser
	table      map[string]sip.HeaderParser
	maxHeaders int
	panics     *atomic.Uint64

	// Scratch space, used anew for each line.
	folded, tidy, name []byte
}

func (l *Layer) newDecoder() *decoder {
	return &decoder{
		parser:     sip.NewParser(sip.WithHeadersParsers(l.headers)),
		table:      l.headers,
		maxHeaders: l.limits.Headers,
		panics:     &l.counters.panics,
	}
}

// decode reads a start line and headers; block ends before the empty line. It
// goes on after a malformed header, so that an answer has what can be had.
func (d *decoder) decode(block []byte) parsed {
	p := parsed{length: -1}
	line, rest := cutLine(block)
	p.msg, p.fault = d.startLine(line)
	if p.msg == nil {
		return p
	}
	for len(rest) > 0 {
		line, rest = d.unfold(rest)
		d.header(&p, line)
		if p.count > d.maxHeaders {
			// What was not read may hold the length.
			p.fail(bad("Too Many Header Fields"))
			p.unframed = true
			break
		}
	}
	return p
}

func cutLine(block []byte) (line, rest []byte) {
	i := bytes.Index(block, []byte(crlf))
	if i < 0 {
		return block, nil
	}
	return block[:i], block[i+2:]
}

// unfold cuts one header off, its continuation lines joined by single spaces
// (RFC 3261 7.3.1).
func (d *decoder) unfold(block []byte) (line, rest []byte) {
	line, rest = cutLine(block)
	if len(rest) == 0 || !isSpace(rest[0]) {
		return line, rest
	}
	d.folded = append(d.folded[:0], bytes.TrimRight(line, lws)...)
	for len(rest) > 0 && isSpace(rest[0]) {
		line, rest = cutLine(rest)
		d.folded = append(d.folded, ' ')
		d.folded = append(d.folded, bytes.Trim(line, lws)...)
	}
	return d.folded, rest
}

// startLine reads the first line. A request line that is malformed still gives
// a request, so that it can be answered.
func (d *decoder) startLine(line []byte) (sip.Message, *fault) {
	d.folded = append(d.folded[:0], line...)
	if isStatusLine(line) && bytes.Count(line, []byte(" ")) == 1 {
		d.folded = append(d.folded, ' ') // no reason phrase, and no space before it
	}
	d.folded = append(d.folded, endBlock...)
	msg, err := d.parseStart(d.folded)
	if err != nil || bytes.ContainsAny(line, "\r\n") {
		return malformedRequest(line)
	}
	switch m := msg.(type) {
	case *sip.Response:
		if m.StatusCode < 100 || m.StatusCode > 699 {
			return m, bad("Malformed Status-Line")
		}
	case *sip.Request:
		if m.Recipient.Port < 0 || m.Recipient.Port > math.MaxUint16 {
			return m, bad("Malformed Request-URI")
		}
	}
	return msg, nil
}

func (d *decoder) parseStart(line []byte) (msg sip.Message, err error) {
	defer d.recovered(&err)
	if tooManyParams(line) {
		return nil, errTooManyParams
	}
	msg, _, err = d.parser.ParseHeaders(line, false)
	return msg, err
}

// recovered, deferred, turns the parser's panic into an error: some inputs
// make it panic.
func (d *decoder) recovered(err *error) {
	if recover() != nil {
		d.panics.Add(1)
		*err = errParserPanic
	}
}

func isStatusLine(line []byte) bool {
	return len(line) >= 4 && strings.EqualFold(string(line[:4]), "SIP/")
}

// malformedRequest makes the request that a 400 answers, if line was meant to
// be a request line.
func malformedRequest(line []byte) (sip.Message, *fault) {
	method, rest, ok := strings.Cut(string(line), " ")
	if !ok || isStatusLine(line) || !isToken(method) || !strings.Contains(strings.ToUpper(rest), "SIP/") {
		return nil, nil
	}
	uri, version, _ := strings.Cut(rest, " ")
	if foreign, ok := foreignURI(uri); ok && strings.HasPrefix(version, "SIP/") && !strings.ContainsAny(version, lws) {
		req := sip.NewRequest(sip.RequestMethod(strings.ToUpper(method)), foreign)
		req.SipVersion = version
		return req, nil
	}
	return sip.NewRequest(sip.RequestMethod(strings.ToUpper(method)), sip.Uri{}), bad("Malformed Request-Line")
}

// foreignURI takes URIs whose scheme has digits or punctuation (RFC 3986 3.1),
// which the parser refuses: they are well-formed, and the layer above says that
// it does not serve the scheme (RFC 3261 8.2.2.1).
func foreignURI(uri string) (sip.Uri, bool) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || rest == "" || !strings.ContainsAny(scheme, "+-.0123456789") {
		return sip.Uri{}, false
	}
	for i, c := range []byte(strings.ToLower(scheme)) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || strings.IndexByte("+-.0123456789", c) < 0) {
			return sip.Uri{}, false
		}
	}
	return sip.Uri{Scheme: strings.ToLower(scheme), Host: rest}, true
}

// isToken as in RFC 3261 25.1.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("-.!%*_+`'~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// header reads one unfolded line into p.
func (d *decoder) header(p *parsed, line []byte) {
	colon := bytes.IndexByte(line, ':')
	if len(bytes.Trim(line[:max(colon, 0)], lws)) == 0 || bytes.ContainsAny(line, crlf) {
		p.count++
		p.fail(bad("Malformed Header Field"))
		return
	}
	name := bytes.Trim(line[:colon], lws)
	value := bytes.Trim(line[colon+1:], lws)
	lower := d.lower(name)
	parse, typed := d.table[string(lower)]
	switch {
	case !typed:
		p.count++
		p.msg.AppendHeader(sip.NewHeader(string(name), string(value)))
	case string(lower) == "content-length" || string(lower) == "l":
		p.count++
		p.setLength(string(value))
	case listed(lower):
		splitList(d.tidied(lower, value), func(part []byte) { d.add(p, parse, lower, part) })
	default:
		d.addOnce(p, parse, lower, d.tidied(lower, value))
	}
}

// lower makes a lower-case copy in scratch space.
func (d *decoder) lower(name []byte) []byte {
	d.name = append(d.name[:0], name...)
	sip.ASCIIToLowerInPlace(d.name)
	return d.name
}

func (d *decoder) tidied(name, value []byte) []byte {
	separators := separatorsOf(name)
	if separators == "" || !loose(value, separators) {
		return value
	}
	d.tidy = squeeze(d.tidy[:0], value, separators)
	return d.tidy
}

// addOnce refuses what may occur once only: which one counts is not ours to
// guess.
func (d *decoder) addOnce(p *parsed, parse sip.HeaderParser, name, value []byte) {
	bit := once(name)
	if p.seen&bit != 0 {
		p.count++
		p.fail(bad("Repeated " + longName(name)))
		return
	}
	p.seen |= bit
	d.add(p, parse, name, value)
}

// add appends one value. What a response must repeat is kept as it came when
// it does not parse (RFC 3261 8.2.6.2).
func (d *decoder) add(p *parsed, parse sip.HeaderParser, name, value []byte) {
	p.count++
	if p.count > d.maxHeaders {
		return
	}
	h, err := d.parse(parse, name, value)
	if err == nil {
		p.msg.AppendHeader(h)
		return
	}
	p.fail(bad("Malformed " + longName(name)))
	if once(name) != 0 && len(value) > 0 {
		p.msg.AppendHeader(sip.NewHeader(longName(name), string(value)))
	}
}

func (d *decoder) parse(parse sip.HeaderParser, name, value []byte) (h sip.Header, err error) {
	defer d.recovered(&err)
	if tooManyParams(value) {
		return nil, errTooManyParams
	}
	return parse(name, string(value))
}

func tooManyParams(value []byte) bool {
	return bytes.Count(value, []byte(";"))+bytes.Count(value, []byte("&")) > maxParams
}

func longName(lower []byte) string {
	switch string(lower) {
	case "f", "from":
		return "From"
	case "t", "to":
		return "To"
	case "i", "call-id":
		return "Call-ID"
	case "cseq":
		return "CSeq"
	case "v", "via":
		return "Via"
	case "m", "contact":
		return "Contact"
	case "c", "content-type":
		return "Content-Type"
	case "max-forwards":
		return "Max-Forwards"
	}
	return string(lower)
}

// setLength takes Content-Length. Two that differ, or one that is no number,
// leave the end of the message unknown (RFC 3261 18.3).
func (p *parsed) setLength(value string) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		p.fail(bad("Malformed Content-Length"))
		p.unframed = true
		return
	}
	switch {
	case p.length < 0:
		p.length = int(n)
		length := sip.ContentLengthHeader(n)
		p.msg.AppendHeader(&length)
	case p.length != int(n):
		p.fail(bad("Differing Content-Length"))
		p.unframed = true
	}
}

// setBody gives the message its own copy of body. The header says the same
// length, or there is none and SetBody adds it.
func (p *parsed) setBody(body []byte) {
	if len(body) > 0 {
		p.msg.SetBody(bytes.Clone(body))
	}
}
