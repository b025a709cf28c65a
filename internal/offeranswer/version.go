package offeranswer

import (
	"slices"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sdp"
)

// HasSent reports whether we have sent SDP, accepted or not.
func (n *Negotiation) HasSent() bool { return n.last != nil }

// Last returns the SDP that we have sent last, accepted or not; nil if there was none.
func (n *Negotiation) Last() Body { return n.last }

// Sent records SDP that we are about to send. Its version is used up even if the SDP is
// refused.
func (n *Negotiation) Sent(local Body) {
	if isNone(local) || !IsSDP(local) {
		return
	}
	n.last = local
	if version, ok := sdp.Version(local.Data()); ok {
		n.version = max(n.version, version)
	}
}

// Numbered returns a body of the application, which is sent next, with a version that
// does not decrease, and rises with a change (RFC 3264 8), even if the stack has made the
// SDP before it. What cannot be read stays as it is.
func (n *Negotiation) Numbered(local Body) Body {
	if !n.HasSent() || isNone(local) {
		return local
	}
	part, ok := SessionPart(multipart.Part{Type: local.ContentType(), Data: local.Data()})
	if _, err := sdp.Parse(part.Data); !ok || !isSDPType(part.Type) || err != nil {
		return local
	}
	version, isNumber := sdp.Version(part.Data)
	least := n.version
	if !sdp.SameContent(part.Data, n.last.Data()) {
		least++
	}
	if isNumber && version < least {
		return withVersion(local, part, least)
	}
	return local
}

// withVersion returns a body whose session description has another version. It returns
// the body itself if the part was decoded, and so cannot be replaced.
func withVersion(whole Body, part multipart.Part, version uint64) Body {
	if part.Offset < 0 {
		return whole
	}
	text, end := whole.Data(), part.Offset+len(part.Data)
	return &body{whole.ContentType(), slices.Concat(text[:part.Offset], sdp.WithVersion(part.Data, version), text[end:])}
}
