package offeranswer

import (
	"bytes"
	"errors"
	"fmt"

	"sipdialog.example/dialog/internal/sdp"
)

// The functions of this file build the offers and answers for the session that the
// application wants, and number them. If an offer of the peer leaves out a part of that
// session, the part is not lost: see [sdp.Wanted].

// ErrNoSession means that we have neither offered nor answered SDP.
var ErrNoSession = errors.New("dialog: no local session description")

// preferences returns the session that the application wants. It returns ErrNoSession if
// the application has sent none, or if its SDP cannot be read.
func (n *Negotiation) preferences() (*sdp.Wanted, error) {
	if n.wanted != nil {
		return n.wanted, nil
	}
	if n.preferred == nil {
		return nil, ErrNoSession
	}
	ours, err := sdp.Parse(n.preferred.Data())
	if err != nil {
		return nil, fmt.Errorf("%w: malformed", ErrNoSession)
	}
	n.wanted = n.wanted.Offered(ours)
	return n.wanted, nil
}

// prefer records the session that the application wants, from an offer of its own, or
// from its answer to remote.
func (n *Negotiation) prefer(local, remote Body) {
	before, _ := n.preferences()
	first := n.preferred == nil
	n.preferred, n.wanted = local, nil
	if first && !limitsDirection(remote) {
		return // most calls have no other SDP of ours: preferences parses it if needed
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

// limitsDirection reports whether an offer may restrict the direction in its answer.
func limitsDirection(offer Body) bool {
	return !isNone(offer) && (bytes.Contains(offer.Data(), []byte("only")) || bytes.Contains(offer.Data(), []byte("inactive")))
}

// parse reads a body; it returns nil for no body.
func parse(body Body) (*sdp.Description, error) {
	if isNone(body) {
		return nil, nil
	}
	return sdp.Parse(body.Data())
}

// parseOrNil is parse, but also returns nil for a body that cannot be read.
func parseOrNil(body Body) *sdp.Description {
	description, _ := parse(body)
	return description
}

func bodyOf(description *sdp.Description) Body { return &body{TypeSDP, description.Bytes()} }

// Offer returns an offer of the session that the application wants, in the next version.
// A hold by the peer does not change this session (RFC 6337 5.3). A refused offer has used
// up its version (RFC 6337 5.2.5).
func (n *Negotiation) Offer() (Body, error) { return n.OfferAfter(n) }

// OfferAfter is Offer for an earlier copy of a negotiation whose present state is now.
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

// OfferWithDirections is Offer with the directions of its streams changed.
func (n *Negotiation) OfferWithDirections(change func(sdp.Direction) sdp.Direction) (Body, error) {
	offer, err := n.nextAfter(n)
	if err != nil {
		return nil, err
	}
	return bodyOf(offer.WithDirections(change)), nil
}

// Refresh returns the offer that changes nothing: the last one, byte by byte (RFC 4028
// 7.4). It returns a new one if a later offer was rolled back, or if the application wants
// more than the peer has accepted. It returns nil if we have no session.
func (n *Negotiation) Refresh() (Body, error) {
	offer, err := n.Offer()
	if err != nil || n.isUnchanged(offer) {
		return n.local, nil
	}
	return offer, nil
}

// isUnchanged reports whether our SDP describes the current session, and the current
// description can be sent again. If an offer that was rolled back was sent since, it cannot,
// since a version only rises (RFC 6337 5.2.5).
func (n *Negotiation) isUnchanged(ours Body) bool {
	current := parseOrNil(n.local)
	if isNone(ours) || current == nil || !bytes.Equal(n.last.Data(), n.local.Data()) {
		return false
	}
	next, err := sdp.Parse(ours.Data())
	return err == nil && sdp.Same(next, current)
}

// DefaultAnswer returns the answer to an offer that no callback decides. To a message
// without an offer it returns an offer. It returns nil if we have no session, and for an
// offer that is not SDP. Errors: sdp.ErrUnreadable, *sdp.Unacceptable.
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

// RefreshAnswer is DefaultAnswer to a refresh. If the refresh changes nothing, the answer
// is the current description (RFC 4028 7.4).
func (n *Negotiation) RefreshAnswer(offer Body) (Body, error) {
	answer, err := n.DefaultAnswer(offer)
	if err == nil && n.isUnchanged(answer) {
		return n.local, nil
	}
	return answer, err
}

// AnswerOrRefusal is DefaultAnswer to an offer in a response, which only an answer can
// refuse (RFC 3261 13.2.2.4, RFC 6337 2.3). An error means that the answer refuses the
// offer, and that the call must end. An offer that cannot be read has no answer.
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

// Refusal returns the answer with port 0 in every line of an offer; nil if the offer
// cannot be read.
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
