// Package dialogstate is the state of a dialog (RFC 3261 12): its tags, its CSeq
// numbers, the remote target, and the route set. It makes the state from an INVITE and
// from a response, moves the target as RFC 6141 says, checks the order of the peer's
// requests, and gives our requests their CSeq, Request-URI and Route.
package dialogstate

import (
	"slices"

	"github.com/emiago/sipgo/sip"
)

// State is the state of one dialog. Each early dialog of an INVITE has its own. It is
// not safe for concurrent use: its owner's mutex guards it. URIs that it returns are
// not to be changed.
type State struct {
	localTag, remoteTag string
	localSeq, remoteSeq uint32
	remoteSeqKnown      bool
	target              sip.Uri
	routes              []sip.Uri
}

// View is a State, field by field: what is shown of it, and kept of it.
type View struct {
	// LocalTag and RemoteTag are the tags; RemoteTag is empty before the peer has told
	// its tag, and for one of RFC 2543, which has none.
	LocalTag, RemoteTag string
	// LocalSeq is the CSeq number of our latest request, RemoteSeq that of the peer's,
	// if RemoteSeqKnown: zero is a number too.
	LocalSeq, RemoteSeq uint32
	RemoteSeqKnown      bool
	// Target is the remote target. RouteSet is in the order of our requests.
	Target   sip.Uri
	RouteSet []sip.Uri
}

// Message is what a message of the peer's says of the dialog.
type Message struct {
	// Tag is the peer's tag: the From tag of a request, the To tag of a response.
	Tag  string
	CSeq uint32
	// Targets are the URIs in its Contacts that can be a target, Routes those of its
	// Record-Routes, in their order.
	Targets, Routes []sip.Uri
}

// Restore returns the State with that View. With LocalTag, Target and a route alone it
// is that of a request of ours that is to make a dialog (RFC 3261 8.1.1.1, 8.1.2).
func Restore(v View) State {
	return State{
		localTag: v.LocalTag, remoteTag: v.RemoteTag,
		localSeq: v.LocalSeq, remoteSeq: v.RemoteSeq, remoteSeqKnown: v.RemoteSeqKnown,
		target: v.Target, routes: v.RouteSet,
	}
}

// View returns the state as it is.
func (s *State) View() View {
	return View{
		LocalTag: s.localTag, RemoteTag: s.remoteTag,
		LocalSeq: s.localSeq, RemoteSeq: s.remoteSeq, RemoteSeqKnown: s.remoteSeqKnown,
		Target: s.target, RouteSet: s.routes,
	}
}

// FromRequest returns the state that a request of the peer's makes (RFC 3261 12.1.1):
// the route set in the order of the Record-Routes, and the CSeq of the peer. Ours is
// not known before our first request.
func FromRequest(localTag string, req Message) State {
	s := State{localTag: localTag, remoteSeq: req.CSeq, remoteSeqKnown: true}
	s.LearnRequest(req)
	return s
}

// LearnRequest takes tag, target and route set of a request of the peer's that makes
// the dialog: of the NOTIFY to a SUBSCRIBE or REFER (RFC 6665 4.4.1).
func (s *State) LearnRequest(req Message) {
	s.remoteTag, s.routes = req.Tag, req.Routes
	s.Refresh(req.Targets)
}

// LearnResponse takes tag, target and route set of a response that makes or confirms
// the dialog: the order of the Record-Routes is reversed (RFC 3261 12.1.2). A 2xx sets
// both anew, whatever the provisional responses before it have said (RFC 3261
// 13.2.2.4).
func (s *State) LearnResponse(res Message) {
	routes := slices.Clone(res.Routes)
	slices.Reverse(routes)
	s.remoteTag, s.routes = res.Tag, routes
	s.Refresh(res.Targets)
}

// Fork returns the state of the early dialog of one more To tag: its CSeq goes on from
// that of the INVITE, its peer has sent nothing yet (RFC 3261 12.1.2).
func (s *State) Fork(tag string, invite uint32) State {
	return State{localTag: s.localTag, remoteTag: tag, localSeq: invite, target: *s.target.Clone(), routes: s.routes}
}

// Elsewhere returns the state for an INVITE that goes to another target: our tag and our
// CSeq go on (RFC 3261 8.1.3.4), the early dialogs with the target before have ended.
func (s *State) Elsewhere(target sip.Uri, routes []sip.Uri) State {
	return State{localTag: s.localTag, localSeq: s.localSeq, target: target, routes: routes}
}

// Split returns a copy of the state whose next n requests have CSeq numbers of their
// own: this state goes on after them. A gap in the CSeq does no harm (RFC 3261 12.2.2).
func (s *State) Split(n uint32) State {
	own := *s
	s.draw(n)
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
