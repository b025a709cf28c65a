package dialog

import (
	"bytes"

	"sipdialog.example/dialog/internal/sdp"
)

// session is what the two ends of one dialog, early or confirmed, agree on, and
// the machine by which they do (RFC 3264 4, RFC 6337). At most one offer is open:
//
//	          offer            answered, rollback
//	noOffer ---------> ourOffer -----------------> noOffer
//	         receive            answer, rollback
//	noOffer ---------> theirOffer ---------------> noOffer
//
// An offer belongs to the exchange that carries it, whatever message that is:
// only that exchange closes it. What begins an exchange asks before whether one
// is open; where the peer breaks the rules the later one stands, as it is the one
// that the peer waits for: the exchange of the other then closes nothing.
//
// The zero value has nothing agreed. Guarded by the dialog's mutex; the bodies are
// never changed.
type session struct {
	// local is the last offer or answer of ours that the peer has taken, own the
	// last of those that the application made; wanted is what it wants by that, nil
	// until somebody asks.
	local, own Body
	wanted     *sdp.Wanted
	// said is the last SDP of ours, whatever came of it, version the highest in
	// the o= line of any.
	said    Body
	version uint64
	// agreed is true once an offer has been answered.
	agreed bool
	// open says whose offer waits for its answer, and by is the exchange that
	// carries it.
	open offerState
	by   any
	// ours is the offer when it is ours, by its author, theirs when it is the peer's.
	ours   Body
	author author
	theirs *SimpleBody
}

// offerState says whose offer has no answer yet.
type offerState int

const (
	noOffer offerState = iota
	ourOffer
	theirOffer
)

// author says who made an offer or an answer of ours.
type author int

const (
	// byDefault: nobody decided it, it follows from what there was.
	byDefault author = iota
	byApplication
)

// offer opens an offer of ours; a body that describes no session has none.
func (s *session) offer(by any, ours Body, made author) {
	if ours = sessionOf(ours); !isNilBody(ours) {
		s.open, s.by, s.ours, s.author, s.theirs = ourOffer, by, ours, made, nil
		s.say(ours)
	}
}

// receive opens an offer of the peer's; a message without a session description has
// none.
func (s *session) receive(by any, theirs *SimpleBody) {
	if theirs != nil {
		s.open, s.by, s.ours, s.theirs = theirOffer, by, nil, theirs
	}
}

// answered closes an offer of ours that the peer has answered: it stands.
func (s *session) answered(by any) {
	if s.isOpen(by) && s.open == ourOffer {
		s.stand(s.ours, nil, s.author)
	}
}

// answer closes an offer of the peer's with an answer of ours, which may be nil:
// then ours stays as it was.
func (s *session) answer(by any, ours Body, made author) {
	if s.isOpen(by) && s.open == theirOffer {
		ours = sessionOf(ours)
		s.say(ours)
		s.stand(ours, s.theirs, made)
	}
}

// rollback closes an offer that comes to nothing: the session is as it was before
// (RFC 3261 14.1, 14.2, RFC 3311 5.1, 5.2).
func (s *session) rollback(by any) {
	if s.isOpen(by) {
		s.open, s.by, s.ours, s.theirs = noOffer, nil, nil, nil
	}
}

// isOpen reports whether an exchange's offer has no answer yet.
func (s *session) isOpen(by any) bool { return s.open != noOffer && s.by == by }

// stand ends an exchange with what we said in it, to theirs if that was the answer.
// What stands already, as a refresh offers it, is no choice of the application's.
func (s *session) stand(ours Body, theirs *SimpleBody, made author) {
	s.rollback(s.by)
	s.agreed = true
	if isNilBody(ours) || !isSDP(ours) || s.local != nil && bytes.Equal(ours.Data(), s.local.Data()) {
		return
	}
	s.local = ours
	if made == byApplication {
		s.prefer(ours, theirs)
	}
}
