// Package offeranswer implements the offer/answer model (RFC 3264, RFC 6337) of one
// dialog: the open offer, the session that was negotiated, and the offers and answers that
// follow from the session that the application wants. It is pure: it has no message, no
// clock and no lock.
package offeranswer

import (
	"bytes"

	"sipdialog.example/dialog/internal/sdp"
)

// Body is the body of a message, or the part of it that describes the session. It is
// immutable. A nil Body, and one without data, means no body.
type Body interface {
	ContentType() string
	Data() []byte
}

// State says which side's offer has no answer yet, in the terms of RFC 8829 3.2.
type State uint8

const (
	Stable State = iota
	HaveLocalOffer
	HaveRemoteOffer
)

// String returns the state's name (RFC 8829 4.1.8).
func (s State) String() string {
	return [...]string{"stable", "have-local-offer", "have-remote-offer"}[s]
}

// Origin says whether the application or the stack has made an offer or answer of ours.
type Origin uint8

const (
	// ByDefault: the stack has made it from the session.
	ByDefault Origin = iota
	ByApplication
)

// String returns the name of the origin.
func (o Origin) String() string {
	if o == ByApplication {
		return "application"
	}
	return "default"
}

// Negotiation is the offer/answer state of one dialog, early or confirmed. At most one
// offer is open (RFC 3264 4):
//
//	        SendOffer                     ReceiveAnswer, Rollback
//	Stable -----------> HaveLocalOffer ---------------------------> Stable
//	        ReceiveOffer                  SendAnswer, Rollback
//	Stable -----------> HaveRemoteOffer --------------------------> Stable
//
// An offer belongs to its owner, the exchange that carries it: the INVITE and its
// responses, a reliable response and its PRACK, a PRACK, an UPDATE. Only the owner
// closes it. A caller checks State before it begins an exchange. If the peer breaks the
// rules, the later offer replaces the earlier, since the peer waits for its answer, and
// the owner of the earlier offer closes nothing.
//
// The zero value has no session. A copy is independent. A Negotiation is not safe for
// concurrent use.
type Negotiation struct {
	// local is the last offer or answer of ours that the peer has accepted, preferred
	// the last of those that the application has made. wanted is the session that the
	// application wants by preferred, nil until it is needed.
	local, preferred Body
	wanted           *sdp.Wanted
	// last is the last SDP that we have sent, accepted or not, version the highest
	// version in the o= line of any.
	last    Body
	version uint64
	// remote is the SDP of the peer that goes with local; nil if the peer has sent none.
	remote Body
	// agreed is true once an offer was answered, byPeer if the peer has made the offer of
	// the session that stands. closed counts the exchanges that are over, answered or not.
	agreed, byPeer bool
	closed         uint32
	// state says which side's offer is open. owner is the exchange that carries it,
	// origin its origin if it is ours.
	state  State
	owner  any
	offer  Body
	origin Origin
}

// State returns which side's offer is open.
func (n *Negotiation) State() State { return n.state }

// IsOpen reports whether the owner's offer has no answer yet.
func (n *Negotiation) IsOpen(owner any) bool { return n.state != Stable && n.owner == owner }

// Agreed reports whether an offer was answered.
func (n *Negotiation) Agreed() bool { return n.agreed }

// Local returns our session description as the peer knows it; nil if there is none.
func (n *Negotiation) Local() Body { return n.local }

// Remote returns the session description of the peer that goes with Local; nil if there is
// none.
func (n *Negotiation) Remote() Body { return n.remote }

// ForgetRemote forgets that description: it is beyond a bound.
func (n *Negotiation) ForgetRemote() { n.remote = nil }

// OfferedByPeer reports whether the peer has made the offer of the session that stands.
func (n *Negotiation) OfferedByPeer() bool { return n.byPeer }

// Closed counts the exchanges that are over, with an answer or without.
func (n *Negotiation) Closed() uint32 { return n.closed }

// SendOffer opens an offer of ours. It does nothing if the body describes no session.
func (n *Negotiation) SendOffer(owner any, local Body, origin Origin) {
	if local = Description(local); isNone(local) {
		return
	}
	n.state, n.owner, n.offer, n.origin = HaveLocalOffer, owner, local, origin
	n.Sent(local)
}

// ReceiveOffer opens an offer of the peer. It does nothing without a session description.
func (n *Negotiation) ReceiveOffer(owner any, remote Body) {
	if !isNone(remote) {
		n.state, n.owner, n.offer = HaveRemoteOffer, owner, remote
	}
}

// ReceiveAnswer closes an offer of ours that the peer has answered. Without a session
// description in the answer, the one before stays the peer's.
func (n *Negotiation) ReceiveAnswer(owner any, remote Body) {
	if n.state == HaveLocalOffer && n.owner == owner {
		n.commit(n.offer, remote, n.origin)
	}
}

// SendAnswer closes an offer of the peer with an answer of ours. Without an answer our
// session does not change.
func (n *Negotiation) SendAnswer(owner any, local Body, origin Origin) {
	if n.state == HaveRemoteOffer && n.owner == owner {
		local = Description(local)
		n.Sent(local)
		n.commit(local, n.offer, origin)
	}
}

// Rollback closes an offer without an answer: the session does not change (RFC 3261 14.1,
// 14.2, RFC 3311 5.1, 5.2).
func (n *Negotiation) Rollback(owner any) {
	if n.IsOpen(owner) {
		n.state, n.owner, n.offer = Stable, nil, nil
		n.closed++
	}
}

// Undo takes back what has changed since a copy was made: the message with it was not sent.
func (n *Negotiation) Undo(before Negotiation) {
	closed := n.closed
	*n = before
	n.closed = closed
}

// commit closes the exchange with both descriptions in it. If ours is the current one
// already, as in a refresh, the application has made no new choice.
func (n *Negotiation) commit(local, remote Body, origin Origin) {
	byPeer := n.state == HaveRemoteOffer
	n.Rollback(n.owner)
	n.agreed = true
	if isNone(local) || !IsSDP(local) {
		return
	}
	n.byPeer = byPeer
	if !isNone(remote) && IsSDP(remote) && !isSame(remote, n.remote) {
		n.remote = remote
	}
	if n.local != nil && bytes.Equal(local.Data(), n.local.Data()) {
		return
	}
	n.local = local
	if origin == ByApplication {
		n.prefer(local, offerIf(byPeer, remote))
	}
}

// offerIf is the peer's description if that was the offer.
func offerIf(byPeer bool, remote Body) Body {
	if byPeer {
		return remote
	}
	return nil
}
