// Package dialogstate is the state of a dialog (RFC 3261 12): its tags, its CSeq
// numbers, the remote target, and the route set. It makes the state from an INVITE and
// from a response, refreshes the target by RFC 6141, checks the order of the peer's
// requests, and sets the CSeq, Request-URI and Route of our requests.
package dialogstate

import (
	"slices"

	"github.com/emiago/sipgo/sip"
)

// State is the state of one dialog. Each early dialog of an INVITE has its own. It is
// not safe for concurrent use: its owner's mutex guards it. The caller must not change the
// URIs that it returns.
type State struct {
	localTag, remoteTag string
	localSeq, remoteSeq uint32
	remoteSeqKnown      bool
	// limit is the highest CSeq number that may be used; zero: any.
	limit  uint32
	target sip.Uri
	routes []sip.Uri
}

// View has the fields of a State, for applications to read and for storage.
type View struct {
	// LocalTag and RemoteTag are the tags. RemoteTag is empty before the peer's tag is
	// known, and for a peer of RFC 2543, which has none.
	LocalTag, RemoteTag string
	// LocalSeq is the CSeq number of our latest request, RemoteSeq that of the peer's,
	// if RemoteSeqKnown: zero is a number too.
	LocalSeq, RemoteSeq uint32
	RemoteSeqKnown      bool
	// Target is the remote target. RouteSet is in the order of our requests.
	Target   sip.Uri
	RouteSet []sip.Uri
}

// Message has the dialog state in a message of the peer.
type Message struct {
	// Tag is the peer's tag: the From tag of a request, the To tag of a response.
	Tag  string
	CSeq uint32
	// Targets are the URIs in its Contacts that can be a target, Routes those of its
	// Record-Routes, in their order.
	Targets, Routes []sip.Uri
}

// Restore returns the State with that View. With only LocalTag, Target and a route it is
// the state of a dialog-creating request of ours (RFC 3261 8.1.1.1, 8.1.2).
func Restore(v View) State {
	return State{
		localTag: v.LocalTag, remoteTag: v.RemoteTag,
		localSeq: v.LocalSeq, remoteSeq: v.RemoteSeq, remoteSeqKnown: v.RemoteSeqKnown,
		target: v.Target, routes: v.RouteSet,
	}
}

// View returns the present fields of the state.
func (s *State) View() View {
	return View{
		LocalTag: s.localTag, RemoteTag: s.remoteTag,
		LocalSeq: s.localSeq, RemoteSeq: s.remoteSeq, RemoteSeqKnown: s.remoteSeqKnown,
		Target: s.target, RouteSet: s.routes,
	}
}

// FromRequest returns the state that a request of the peer creates (RFC 3261 12.1.1): the
// route set in the order of the Record-Routes, and the CSeq of the peer. Our CSeq is not
// known before our first request.
func FromRequest(localTag string, req Message) State {
	s := State{localTag: localTag, remoteSeq: req.CSeq, remoteSeqKnown: true}
	s.LearnRequest(req)
	return s
}

// LearnRequest sets tag, target and route set from a request of the peer that creates the
// dialog: the NOTIFY to a SUBSCRIBE or REFER (RFC 6665 4.4.1).
func (s *State) LearnRequest(req Message) {
	s.remoteTag, s.routes = req.Tag, req.Routes
	s.Refresh(req.Targets)
}

// LearnResponse sets tag, target and route set from a response that creates or confirms the
// dialog: the order of the Record-Routes is reversed (RFC 3261 12.1.2). A 2xx replaces the
// target and the route set of earlier provisional responses (RFC 3261 13.2.2.4).
func (s *State) LearnResponse(res Message) {
	routes := slices.Clone(res.Routes)
	slices.Reverse(routes)
	s.remoteTag, s.routes = res.Tag, routes
	s.Refresh(res.Targets)
}

// Fork returns the state of the early dialog of one more To tag: its CSeq continues from
// that of the INVITE, and its peer has sent no request yet (RFC 3261 12.1.2).
func (s *State) Fork(tag string, invite uint32) State {
	return State{localTag: s.localTag, remoteTag: tag, localSeq: invite, target: *s.target.Clone(), routes: s.routes}
}

// Elsewhere returns the state for an INVITE to another target: our tag and our CSeq
// continue (RFC 3261 8.1.3.4), and the early dialogs with the earlier target have ended.
func (s *State) Elsewhere(target sip.Uri, routes []sip.Uri) State {
	return State{localTag: s.localTag, localSeq: s.localSeq, target: target, routes: routes}
}

// Split returns a copy of the state whose next n requests have their own CSeq numbers: this
// state continues after them. A gap in the CSeq does no harm (RFC 3261 12.2.2).
func (s *State) Split(n uint32) State {
	own := *s
	s.localSeq += n
	return own
}

// LocalTag and RemoteTag return the tags.
func (s *State) LocalTag() string  { return s.localTag }
func (s *State) RemoteTag() string { return s.remoteTag }

// LocalSeq returns the CSeq number of our latest request, RemoteSeq that of the peer's,
// zero before the first.
func (s *State) LocalSeq() uint32  { return s.localSeq }
func (s *State) RemoteSeq() uint32 { return s.remoteSeq }

// Target returns the remote target, RouteSet the route set.
func (s *State) Target() sip.Uri     { return s.target }
func (s *State) RouteSet() []sip.Uri { return s.routes }
