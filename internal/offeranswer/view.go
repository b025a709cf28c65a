package offeranswer

import (
	"bytes"

	"sipdialog.example/dialog/internal/sdp"
)

// View is a Negotiation while no offer is open: what is kept of it. Wanted and
// Last are nil if they are the same as Local.
type View struct {
	// Local is our session description as the peer knows it, or nil.
	Local Body
	// Remote is the peer's session description that goes with it, or nil. ByPeer is
	// true if the peer has made the offer.
	Remote Body
	ByPeer bool
	// Wanted is the session that the application wants. Spare has streams of it that are
	// in no slot now (see [sdp.Wanted]); without any it is nil.
	Wanted, Spare Body
	// Last is the last SDP that we have sent, whatever came of it.
	Last Body
	// Version is the highest version in an o= line of ours; zero when it is that of Last.
	Version uint64
	// Agreed is true once an offer was answered.
	Agreed bool
}

// View returns the negotiation as it is without the offer that is open, if there is one.
// Our first offer counts as answered: without it there is no session to go back to.
func (n *Negotiation) View() View {
	now := *n
	if now.state == HaveLocalOffer && !now.agreed && now.local == nil {
		now.commit(now.offer, nil, now.origin)
	}
	v := View{Local: now.local, Remote: now.remote, ByPeer: now.byPeer, Agreed: now.agreed, Wanted: now.wantedBody(), Last: now.last}
	if w := now.wanted; w != nil {
		if spare := w.Spare(); spare != nil {
			v.Spare = bodyOf(spare)
		}
	}
	if version, ok := versionOf(v.Last); !ok || version != now.version {
		v.Version = now.version
	}
	if isSame(v.Wanted, v.Local) {
		v.Wanted = nil
	}
	if isSame(v.Last, v.Local) {
		v.Last = nil
	}
	return v
}

// Restore returns the negotiation of a View.
func Restore(v View) Negotiation {
	n := Negotiation{local: v.Local, remote: v.Remote, byPeer: v.ByPeer, preferred: v.Wanted, last: v.Last, version: v.Version, agreed: v.Agreed}
	if n.preferred == nil {
		n.preferred = v.Local
	}
	if n.last == nil {
		n.last = v.Local
	}
	if version, ok := versionOf(n.last); ok {
		n.version = max(n.version, version)
	}
	if spare := parseOrNil(v.Spare); spare != nil {
		if wanted, err := n.preferences(); err == nil {
			n.wanted = wanted.WithSpare(spare)
		}
	}
	return n
}

// wantedBody is the session that the application wants: the body that it has given, unless
// more is wanted by now than that says.
func (n *Negotiation) wantedBody() Body {
	if n.wanted == nil {
		return n.preferred
	}
	text := n.wanted.Bytes()
	if said := parseOrNil(n.preferred); said != nil && bytes.Equal(said.Bytes(), text) {
		return n.preferred
	}
	return &body{TypeSDP, text}
}

func versionOf(b Body) (version uint64, ok bool) {
	if isNone(b) {
		return 0, true
	}
	return sdp.Version(b.Data())
}

func isSame(a, b Body) bool {
	if isNone(a) || isNone(b) {
		return isNone(a) && isNone(b)
	}
	return a.ContentType() == b.ContentType() && bytes.Equal(a.Data(), b.Data())
}
