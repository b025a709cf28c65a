package dialogstate

import (
	"slices"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
)

// Request has the parts of our request that follow from the state (RFC 3261 12.2.1.1).
type Request struct {
	Method         sip.RequestMethod
	URI            sip.Uri
	Route          []sip.Uri
	CSeq           uint32
	FromTag, ToTag string
}

// Next returns the next request of the dialog. It draws a CSeq number, and reports false if
// there is none; see Limit.
func (s *State) Next(method sip.RequestMethod) (r Request, ok bool) {
	if !s.draw(method) {
		return Request{}, false
	}
	return s.request(method, s.localSeq), true
}

// Ack returns the ACK to a 2xx. It has the CSeq number of its INVITE, even if other requests
// were sent since (RFC 3261 13.2.2.4), and the present target and route.
func (s *State) Ack(invite uint32) Request { return s.request(sip.ACK, invite) }

func (s *State) request(method sip.RequestMethod, seq uint32) Request {
	uri, route := s.Path()
	return Request{Method: method, URI: uri, Route: route, CSeq: seq, FromTag: s.localTag, ToTag: s.remoteTag}
}

// NextSeq draws the CSeq number of a request that is sent again, and reports false if there is
// none.
func (s *State) NextSeq(method sip.RequestMethod) (seq uint32, ok bool) {
	ok = s.draw(method)
	return s.localSeq, ok
}

// draw takes the next CSeq number. Only this function takes one, so that no request has a
// number beyond the limit.
func (s *State) draw(method sip.RequestMethod) bool {
	if !s.may(method) {
		return false
	}
	s.localSeq++
	return true
}

// may reports whether there is a number for a request. The last ones below the limit are the
// BYE's and its repetitions': a call must be able to end.
func (s *State) may(method sip.RequestMethod) bool {
	return s.limit == 0 || s.SeqsLeft() > 0 || method == sip.BYE && s.localSeq < s.limit
}

// ByeReserve is how many numbers below the limit only a BYE takes.
const ByeReserve = 8

// Limit sets the highest CSeq number that may be used, unless there is one: that of the first
// record of the call, beyond which another process may begin.
func (s *State) Limit(top uint32) {
	if s.limit == 0 {
		s.limit = top
	}
}

// Allow lets numbers be used up to top, if there is a limit.
func (s *State) Allow(top uint32) {
	if s.limit != 0 {
		s.limit = max(s.limit, top)
	}
}

// Unlimit lets any number be used: no other process can have the call any more.
func (s *State) Unlimit() { s.limit = 0 }

// Skip leaves out n numbers, which others may have used, and limits what comes after them to
// the next block.
func (s *State) Skip(n, block uint32) {
	s.localSeq += n
	s.limit = s.localSeq + block
}

// SeqsLeft returns how many CSeq numbers are left for requests other than BYE; zero or less
// means none.
func (s *State) SeqsLeft() int {
	if s.limit == 0 {
		return noLimit
	}
	return int(s.limit) - int(s.localSeq) - ByeReserve
}

// noLimit is the SeqsLeft of a call without a limit.
const noLimit = 1 << 30

// Path returns the Request-URI of our requests, and their Route (RFC 3261 12.2.1.1). A
// strict router, as the first hop, is the Request-URI, and the target ends the route.
func (s *State) Path() (uri sip.Uri, route []sip.Uri) {
	target := s.target
	target.Headers = nil
	if len(s.routes) == 0 || sipuri.IsLoose(s.routes[0]) {
		return target, s.routes
	}
	first := *s.routes[0].Clone()
	first.Headers = nil
	sipuri.RemoveParam(&first.UriParams, "method")
	return first, append(slices.Clone(s.routes[1:]), target)
}

// Hop returns the next hop of our requests: the first route, else the target (RFC 3261
// 8.1.2).
func (s *State) Hop() sip.Uri {
	if len(s.routes) > 0 {
		return s.routes[0]
	}
	return s.target
}

// IsSecure reports whether the first hop, or the peer, has a SIPS URI: our Contact is
// one then (RFC 3261 12.1.1, 12.1.2).
func (s *State) IsSecure() bool {
	return sipuri.IsSIPS(s.target) || len(s.routes) > 0 && sipuri.IsSIPS(s.routes[0])
}

// InOrder records the CSeq of a request of the peer, and reports whether it is in order
// (RFC 3261 12.2.2): only a lower CSeq than before must be refused. Some peers send their
// BYE with the CSeq of the request before it; such a BYE is accepted.
func (s *State) InOrder(method sip.RequestMethod, seq uint32) bool {
	if s.IsLate(method, seq) {
		return false
	}
	s.remoteSeq, s.remoteSeqKnown = seq, true
	return true
}

// IsLate reports whether a request of the peer's is not in order, and takes nothing.
func (s *State) IsLate(method sip.RequestMethod, seq uint32) bool {
	repeated := seq == s.remoteSeq && method == sip.BYE
	return s.remoteSeqKnown && seq <= s.remoteSeq && !repeated
}
