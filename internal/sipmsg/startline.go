package sipmsg

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// startLine is the first line of a message, in parts.
type startLine struct {
	Method     sip.RequestMethod // empty for a response
	RequestURI string
	Version    string
	Status     int
	Reason     string
}

// read splits a line; ok is false if it is not SIP. A malformed request line still makes a
// request, so that it gets a response.
func (s *startLine) read(line string) (fault *Fault, ok bool) {
	if len(line) >= 4 && EqualFold(line[:4], "SIP/") {
		return s.readStatus(line)
	}
	return s.readRequest(line)
}

// readStatus is lenient with an empty reason phrase: the space before it may
// be missing.
func (s *startLine) readStatus(line string) (fault *Fault, ok bool) {
	version, rest, found := strings.Cut(line, " ")
	digits, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.ParseUint(digits, 10, 31)
	if !found || err != nil || len(digits) != 3 || hasLineEnd(line) {
		return nil, false
	}
	s.Version, s.Status, s.Reason = version, int(status), reason
	if status < 100 || status > 699 {
		return bad("Malformed Status-Line"), true
	}
	return nil, true
}

func (s *startLine) readRequest(line string) (fault *Fault, ok bool) {
	method, rest, found := strings.Cut(line, " ")
	if !found || !IsToken(method) || !hasVersion(rest) {
		return nil, false
	}
	s.Method, s.Version = sip.RequestMethod(method), "SIP/2.0"
	uri, version, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(strings.ToUpper(version), "SIP/") || !isPlain(version) || hasLineEnd(line) {
		return bad("Malformed Request-Line"), true
	}
	s.RequestURI, s.Version = uri, version
	if _, err := ParseURI(uri); err != nil {
		s.RequestURI = ""
		return bad("Malformed Request-URI"), true
	}
	return nil, true
}

// hasVersion distinguishes malformed request lines from lines of other protocols.
func hasVersion(s string) bool {
	for i := 0; i+4 <= len(s); i++ {
		if EqualFold(s[i:i+4], "SIP/") {
			return true
		}
	}
	return false
}
