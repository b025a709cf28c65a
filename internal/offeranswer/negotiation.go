// Package offeranswer is the offer/answer model (RFC 3264, RFC 6337) of one dialog:
// whose offer is open, what the two ends have agreed upon, and the offers and answers
// that follow from what the application wants. It is pure: it knows no message, no
// clock and no lock.
package offeranswer

import (
	"bytes"

	"sipdialog.example/dialog/internal/sdp"
)

// Body is the body of a message, or the part of one that describes the session. It is
// never changed. A nil Body, and one without data, is none.
type Body interface {
	ContentType() string
	Data() []byte
}

// State says whose offer has no answer yet, in the words of RFC 8829 3.2.
type State int

const (
	Stable State = iota
	HaveLocalOffer
	HaveRemoteOffer
)

// String returns the state's name (RFC 8829 4.1.8).
func (s State) String() string {
	return [...]string{"stable", "have-local-offer", "have-remote-offer"}[s]
}

// Origin says who has made an offer or an answer of ours.
type Origin int

const (
	// ByDefault: nobody has decided it, it follows from what there was.
	ByDefault Origin = iota
	ByApplication
)

// String names who has made an answer.
func (o Origin) String() string {
	if o == ByApplication {
		return "application"
	}
	return "default"
}

// Negotiation is what the two ends of one dialog, early or confirmed, agree upon. At
// most one offer is open (RFC 3264 4):
//
//	        SendOffer                     ReceiveAnswer, Rollback
//	Stable -----------> HaveLocalOffer ---------------------------> Stable
//	        ReceiveOffer                  SendAnswer, Rollback
//	Stable -----------> HaveRemoteOffer --------------------------> Stable
//
// An offer belongs to its owner, the exchange that carries it: the INVITE and its
// responses, a reliable response and its PRACK, a PRACK, an UPDATE. Only the owner
// closes it. A caller asks for the State before it begins an exchange; where the peer
// breaks the rules the later offer counts, as it is the one that the peer waits for,
// and the owner of the other closes nothing.
//
// The zero value has agreed upon nothing. A copy is independent. Not safe for
// concurrent use.
type Negotiation struct {
	// local is the last offer or answer of ours that the peer has taken, preferred
	// the last of those that the application has made; wanted is what it wants by
	// that, nil until it is needed.
	local, preferred Body
	wanted           *sdp.Wanted
	// last is the last SDP of ours that was sent, whatever came of it, version the
	// highest in the o= line of any.
	last    Body
	version uint64
	// agreed is true once an offer was answered.
	agreed bool
	// state says whose offer is open; owner carries it, origin has made it if it is
	// ours.
	state  State
	owner  any
	offer  Body
	origin Origin
}

// State says whose offer is open.
func (n *Negotiation) State() State { return n.state }

// IsOpen reports whether the owner's offer has no answer yet.
func (n *Negotiation) IsOpen(owner any) bool { return n.state != Stable && n.owner == owner }

// Agreed reports whether an offer was answered.
func (n *Negotiation) Agreed() bool { return n.agreed }

// Local is our session description as the peer knows it; nil for none.
func (n *Negotiation) Local() Body { return n.local }

// SendOffer opens an offer of ours. A body that describes no session has none.
func (n *Negotiation) SendOffer(owner any, local Body, origin Origin) {
	if local = Description(local); isNone(local) {
		return
	}
	n.state, n.owner, n.offer, n.origin = HaveLocalOffer, owner, local, origin
	n.Sent(local)
}

// ReceiveOffer opens an offer of the peer's. A message without a session description
// has none.
func (n *Negotiation) ReceiveOffer(owner any, remote Body) {
	if !isNone(remote) {
		n.state, n.owner, n.offer = HaveRemoteOffer, owner, remote
	}
}

// ReceiveAnswer closes an offer of ours that the peer has answered.
func (n *Negotiation) ReceiveAnswer(owner any) {
	if n.state == HaveLocalOffer && n.owner == owner {
		n.commit(n.offer, nil, n.origin)
	}
}

// SendAnswer closes an offer of the peer's with an answer of ours. Without an answer
// our session stays as it was.
func (n *Negotiation) SendAnswer(owner any, local Body, origin Origin) {
	if n.state == HaveRemoteOffer && n.owner == owner {
		local = Description(local)
		n.Sent(local)
		n.commit(local, n.offer, origin)
	}
}

// Rollback closes an offer that comes to nothing: the session is as it was before (RFC
// 3261 14.1, 14.2, RFC 3311 5.1, 5.2).
func (n *Negotiation) Rollback(owner any) {
	if n.IsOpen(owner) {
		n.state, n.owner, n.offer = Stable, nil, nil
	}
}

// commit closes the exchange with our description in it, the answer to remote unless
// that is nil. A description that stands already, as a refresh offers it, is no choice
// of the application's.
func (n *Negotiation) commit(local, remote Body, origin Origin) {
	n.Rollback(n.owner)
	n.agreed = true
	if isNone(local) || !IsSDP(local) || n.local != nil && bytes.Equal(local.Data(), n.local.Data()) {
		return
	}
	n.local = local
	if origin == ByApplication {
		n.prefer(local, remote)
	}
}
