package offeranswer

import (
	"bytes"
	"errors"
	"fmt"

	"sipdialog.example/dialog/internal/sdp"
)

// The offers and answers that follow from what the application wants, and the versions
// of all that we send. Nothing that one offer of the peer's takes away is lost: see
// [sdp.Wanted].

// ErrNoSession says that we have offered or answered no SDP.
var ErrNoSession = errors.New("dialog: no session of ours")

// preferences is what the application wants of the session. ErrNoSession: it has sent
// nothing, or its SDP cannot be read.
func (n *Negotiation) preferences() (*sdp.Wanted, error) {
	if n.wanted != nil {
		return n.wanted, nil
	}
	if n.preferred == nil {
		return nil, ErrNoSession
	}
	ours, err := sdp.Parse(n.preferred.Data())
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be read", ErrNoSession)
	}
	n.wanted = n.wanted.Offered(ours)
	return n.wanted, nil
}

// prefer notes what the application wants, by an offer of its own, or by its answer to
// remote.
func (n *Negotiation) prefer(local, remote Body) {
	before, _ := n.preferences()
	first := n.preferred == nil
	n.preferred, n.wanted = local, nil
	if first && !limitsDirection(remote) {
		return // most calls have no other: it is read when it is needed
	}
	ours, err := sdp.Parse(local.Data())
	if err != nil {
		return
	}
	if offer, err := parse(remote); err == nil && offer != nil {
		n.wanted = before.Answered(ours, offer)
		return
	}
	n.wanted = before.Offered(ours)
}

// limitsDirection reports whether an offer may leave its answer no choice of
// direction.
func limitsDirection(offer Body) bool {
	return !isNone(offer) && (bytes.Contains(offer.Data(), []byte("only")) || bytes.Contains(offer.Data(), []byte("inactive")))
}

// parse reads a body; nil for none.
func parse(body Body) (*sdp.Description, error) {
	if isNone(body) {
		return nil, nil
	}
	return sdp.Parse(body.Data())
}

// parseOrNil is parse that returns nil for a body that cannot be read, too.
func parseOrNil(body Body) *sdp.Description {
	description, _ := parse(body)
	return description
}

func bodyOf(description *sdp.Description) Body { return &body{TypeSDP, description.Bytes()} }

// Offer is an offer of the session as the application wants it, in its next version:
// what the peer's hold has made of it is not ours to keep (RFC 6337 5.3). An offer that
// was refused has used its version up (RFC 6337 5.2.5).
func (n *Negotiation) Offer() (Body, error) { return n.OfferAfter(n) }

// OfferAfter is Offer where the negotiation has gone on since, and is as now says.
func (n *Negotiation) OfferAfter(now *Negotiation) (Body, error) {
	offer, err := n.nextAfter(now)
	if err != nil {
		return nil, err
	}
	return bodyOf(offer), nil
}

func (n *Negotiation) nextAfter(now *Negotiation) (*sdp.Description, error) {
	wanted, err := n.preferences()
	if err != nil {
		return nil, err
	}
	return wanted.Offer(parseOrNil(now.local)).WithVersion(now.version + 1), nil
}

// OfferWithDirections is Offer with other directions of its streams.
func (n *Negotiation) OfferWithDirections(change func(sdp.Direction) sdp.Direction) (Body, error) {
	offer, err := n.nextAfter(n)
	if err != nil {
		return nil, err
	}
	return bodyOf(offer.WithDirections(change)), nil
}

// Refresh is the offer that changes nothing: the last one, byte by byte (RFC 4028
// 7.4), unless an offer that came to nothing was sent since, or our application wants
// more than the peer has left of it; nil when we have no session.
func (n *Negotiation) Refresh() (Body, error) {
	offer, err := n.Offer()
	if err != nil || n.isUnchanged(offer) {
		return n.local, nil
	}
	return offer, nil
}

// isUnchanged reports whether our SDP says what stands, and what stands can be sent
// once more: an offer that came to nothing was sent since otherwise, and a version
// only goes up (RFC 6337 5.2.5).
func (n *Negotiation) isUnchanged(ours Body) bool {
	stands := parseOrNil(n.local)
	if isNone(ours) || stands == nil || !bytes.Equal(n.last.Data(), n.local.Data()) {
		return false
	}
	next, err := sdp.Parse(ours.Data())
	return err == nil && sdp.Same(next, stands)
}

// DefaultAnswer is the answer, where nobody decides it, to an offer, or the offer to a
// message without one. It is nil without a session of ours, and to an offer that is
// not SDP. Errors: sdp.ErrUnreadable, *sdp.Unacceptable.
func (n *Negotiation) DefaultAnswer(offer Body) (Body, error) {
	if !isNone(offer) && !IsSDP(offer) {
		return nil, nil
	}
	theirs, err := parse(offer)
	if err != nil {
		return nil, err
	}
	wanted, err := n.preferences()
	switch {
	case err != nil:
		return nil, nil
	case theirs == nil:
		return bodyOf(wanted.Offer(parseOrNil(n.local)).WithVersion(n.version + 1)), nil
	}
	answer, why := wanted.Answer(theirs)
	if why != nil {
		return nil, why
	}
	return bodyOf(answer.WithVersion(n.version + 1)), nil
}

// RefreshAnswer is DefaultAnswer to a refresh: one that changes nothing is answered
// with what stands (RFC 4028 7.4).
func (n *Negotiation) RefreshAnswer(offer Body) (Body, error) {
	answer, err := n.DefaultAnswer(offer)
	if err == nil && n.isUnchanged(answer) {
		return n.local, nil
	}
	return answer, err
}

// AnswerOrRefusal is DefaultAnswer to an offer in a response, which only an answer can
// refuse: the error says that it does, and that the call has to end (RFC 3261
// 13.2.2.4, RFC 6337 2.3). An offer that cannot be read has no answer.
func (n *Negotiation) AnswerOrRefusal(offer Body) (Body, error) {
	answer, err := n.DefaultAnswer(offer)
	switch {
	case errors.Is(err, sdp.ErrUnreadable):
		return nil, nil
	case err != nil:
		return n.Refusal(offer), err
	}
	return answer, nil
}

// Refusal is the answer that has port 0 in every line of an offer; nil without an
// offer that can be read.
func (n *Negotiation) Refusal(offer Body) Body {
	theirs := parseOrNil(offer)
	if theirs == nil {
		return nil
	}
	ours := parseOrNil(n.last)
	if ours != nil {
		ours = ours.WithVersion(n.version + 1)
	}
	return bodyOf(sdp.Refusal(theirs, ours))
}
