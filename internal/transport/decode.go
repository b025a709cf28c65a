package transport

import (
	"bytes"
	"errors"
	"strconv"
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
	beyond   int         // bytes after the Content-Length, when the message has an end of its own
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

// hasLineEnd reports a bare CR or LF, which a lenient peer would take for the
// start of another header.
func hasLineEnd(line []byte) bool {
	return bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, '\n') >= 0
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

// recovered, deferred, turns the parser's panic into an error: some inputs
// make it panic.
func (d *decoder) recovered(err *error) {
	if recover() != nil {
		d.panics.Add(1)
		*err = errParserPanic
	}
}

// header reads one unfolded line into p.
func (d *decoder) header(p *parsed, line []byte) {
	colon := bytes.IndexByte(line, ':')
	if len(bytes.Trim(line[:max(colon, 0)], lws)) == 0 || hasLineEnd(line) {
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
