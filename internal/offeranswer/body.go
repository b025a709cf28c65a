package offeranswer

import (
	"strings"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The functions of this file find the offer or the answer in a body (RFC 3261 20.11, RFC
// 5621).

// TypeSDP is the media type of session descriptions.
const TypeSDP = "application/sdp"

// body is a Body that this package makes.
type body struct {
	contentType string
	data        []byte
}

func (b *body) ContentType() string { return b.contentType }
func (b *body) Data() []byte        { return b.data }

func isNone(b Body) bool { return b == nil || len(b.Data()) == 0 }

// IsSDP reports whether a body is SDP.
func IsSDP(b Body) bool { return isSDPType(b.ContentType()) }

func isSDPType(contentType string) bool {
	return strings.EqualFold(sipmsg.Bare(contentType), TypeSDP)
}

// Description returns the session description in a body of ours: the body itself, or
// one of its parts; nil if the body has none.
func Description(whole Body) Body {
	if isNone(whole) || !multipart.IsMultipart(whole.ContentType()) {
		return whole
	}
	part, ok := SessionPart(multipart.Part{Type: whole.ContentType(), Data: whole.Data()})
	if !ok {
		return nil
	}
	return &body{part.Type, part.Data}
}

// SessionPart returns the session description in a body. A body without parts may have any
// type, as only the application knows what it describes. In a multipart body the session
// description must be SDP.
func SessionPart(whole multipart.Part) (session multipart.Part, ok bool) {
	if !multipart.IsMultipart(whole.Type) {
		return whole, DescribesSession(whole)
	}
	for _, part := range multipart.Parts(whole) {
		if len(part.Data) == 0 || !isSDPType(part.Type) || !DescribesSession(part) {
			continue
		}
		preferred := part.Alternative && session.Alternative || IsOptional(session) && !IsOptional(part)
		if !ok || preferred {
			session, ok = part, true
		}
	}
	return session, ok
}

// Whole returns the body of a message, not yet taken apart.
func Whole(msg sipheader.Message) multipart.Part {
	return multipart.Part{
		Type: sipheader.Value(msg, "Content-Type"), Disposition: sipheader.Value(msg, "Content-Disposition"), Data: msg.Body(),
	}
}

// SessionIn returns the session description in a message: its body, or the part of it
// that is one.
func SessionIn(msg sipheader.Message) (session multipart.Part, ok bool) {
	if len(msg.Body()) == 0 {
		return multipart.Part{}, false
	}
	return SessionPart(Whole(msg))
}

// SDPIn is SessionIn for a message where nothing but SDP counts.
func SDPIn(msg sipheader.Message) (session multipart.Part, ok bool) {
	session, ok = SessionIn(msg)
	return session, ok && isSDPType(session.Type)
}

// DescribesSession reports whether the disposition of a part is "session", or missing
// (RFC 3261 20.11).
func DescribesSession(part multipart.Part) bool {
	disposition := sipmsg.Bare(part.Disposition)
	return disposition == "" || strings.EqualFold(disposition, "session")
}

// IsOptional reports whether a part may be ignored (RFC 5621 8.2, 8.3).
func IsOptional(part multipart.Part) bool {
	return !part.Alternative && strings.EqualFold(multipart.Param(part.Disposition, "handling"), "optional")
}
