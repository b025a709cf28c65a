package offeranswer

import (
	"slices"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sdp"
)

// HasSent reports whether an SDP of ours was sent, whatever came of it.
func (n *Negotiation) HasSent() bool { return n.last != nil }

// Sent notes an SDP that we are about to send, whatever comes of it: its version is
// used up.
func (n *Negotiation) Sent(local Body) {
	if isNone(local) || !IsSDP(local) {
		return
	}
	n.last = local
	if version, ok := sdp.Version(local.Data()); ok {
		n.version = max(n.version, version)
	}
}

// Numbered returns a body of the application's that is to be sent next, with a version
// that does not go back, and goes up with a change (RFC 3264 8), whoever has made the
// one before.
func (n *Negotiation) Numbered(local Body) Body {
	if !n.HasSent() || isNone(local) {
		return local
	}
	part, ok := SessionPart(multipart.Part{Type: local.ContentType(), Data: local.Data()})
	version, isNumber := sdp.Version(part.Data)
	if !ok || !isSDPType(part.Type) || !isNumber {
		return local
	}
	least := n.version
	if !sdp.SameContent(part.Data, n.last.Data()) {
		least++
	}
	if version >= least {
		return local
	}
	return withVersion(local, part, least)
}

// withVersion returns a body whose session description has another version; the body
// itself where that cannot be written.
func withVersion(whole Body, part multipart.Part, version uint64) Body {
	if part.Offset < 0 {
		return whole
	}
	text, end := whole.Data(), part.Offset+len(part.Data)
	return &body{whole.ContentType(), slices.Concat(text[:part.Offset], sdp.WithVersion(part.Data, version), text[end:])}
}
