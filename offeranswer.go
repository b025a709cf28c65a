package dialog

import "bytes"

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
	// last of those that the application made: what it put on hold stays so.
	local, own Body
	// said is the last offer of ours, whatever came of it.
	said Body
	// agreed is true once an offer has been answered.
	agreed bool
	// open says whose offer waits for its answer, and by is the exchange that
	// carries it.
	open offerState
	by   any
	// ours is the offer when it is ours, by its author.
	ours   Body
	author author
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

// offer opens an offer of ours; a message without a body has none.
func (s *session) offer(by any, ours Body, made author) {
	if !isNilBody(ours) {
		s.open, s.by, s.ours, s.author, s.said = ourOffer, by, ours, made, ours
	}
}

// receive opens an offer of the peer's; a message without a body has none.
func (s *session) receive(by any, theirs *SimpleBody) {
	if theirs != nil {
		s.open, s.by, s.ours = theirOffer, by, nil
	}
}

// answered closes an offer of ours that the peer has answered: it stands.
func (s *session) answered(by any) {
	if s.isOpen(by) && s.open == ourOffer {
		s.stand(s.ours, s.author)
	}
}

// answer closes an offer of the peer's with an answer of ours, which may be nil:
// then ours stays as it was.
func (s *session) answer(by any, ours Body, made author) {
	if s.isOpen(by) && s.open == theirOffer {
		s.stand(ours, made)
	}
}

// rollback closes an offer that comes to nothing: the session is as it was before
// (RFC 3261 14.1, 14.2, RFC 3311 5.1, 5.2).
func (s *session) rollback(by any) {
	if s.isOpen(by) {
		s.open, s.by, s.ours = noOffer, nil, nil
	}
}

// isOpen reports whether an exchange's offer has no answer yet.
func (s *session) isOpen(by any) bool { return s.open != noOffer && s.by == by }

// stand ends an exchange with what we said in it. What stands already, as a
// refresh offers it, is no choice of the application's.
func (s *session) stand(ours Body, made author) {
	s.rollback(s.by)
	s.agreed = true
	if isNilBody(ours) || !isSDP(ours) || s.local != nil && bytes.Equal(ours.Data(), s.local.Data()) {
		return
	}
	s.local = ours
	if made == byApplication {
		s.own = ours
	}
}
