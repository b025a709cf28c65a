package transport

import (
	"bytes"
	"math"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// startLine reads the first line. A request line that is malformed still gives
// a request, so that it can be answered.
func (d *decoder) startLine(line []byte) (sip.Message, *fault) {
	d.folded = append(d.folded[:0], line...)
	if isStatusLine(line) && bytes.Count(line, []byte(" ")) == 1 {
		d.folded = append(d.folded, ' ') // no reason phrase, and no space before it
	}
	d.folded = append(d.folded, endBlock...)
	msg, err := d.parseStart(d.folded)
	if err != nil || hasLineEnd(line) {
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
