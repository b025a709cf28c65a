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
	part, ok := readableSDP(local)
	if !ok {
		return local
	}
	version, isNumber := sdp.Version(part.Data)
	least := n.version
	if !sdp.SameContent(part.Data, n.last.Data()) {
		least++
	}
	if isNumber && version < least {
		return withPart(local, part, sdp.WithVersion(part.Data, least))
	}
	return local
}

// ReadableSDP returns the SDP of a body, or of the part of it that describes the session; ok is
// false if there is none that can be read.
func ReadableSDP(whole Body) (text []byte, ok bool) {
	part, ok := readableSDP(whole)
	return part.Data, ok
}

func readableSDP(whole Body) (part multipart.Part, ok bool) {
	if isNone(whole) {
		return part, false
	}
	part, ok = SessionPart(multipart.Part{Type: whole.ContentType(), Data: whole.Data()})
	if !ok || !isSDPType(part.Type) {
		return part, false
	}
	_, err := sdp.Parse(part.Data)
	return part, err == nil
}

// WithOriginOf returns a body whose SDP has the o= line of another one, version included, and
// is otherwise the same byte for byte. What cannot be read, or replaced, stays as it is.
func WithOriginOf(whole Body, other []byte) Body {
	part, ok := readableSDP(whole)
	if !ok {
		return whole
	}
	return withPart(whole, part, sdp.WithOriginOf(part.Data, other))
}

// withPart returns a body with another text in the place of a part. It returns the body itself
// if the part was decoded, and so cannot be replaced.
func withPart(whole Body, part multipart.Part, text []byte) Body {
	if part.Offset < 0 {
		return whole
	}
	all, end := whole.Data(), part.Offset+len(part.Data)
	return &body{whole.ContentType(), slices.Concat(all[:part.Offset], text, all[end:])}
}
