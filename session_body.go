package dialog

import (
	"bytes"
	"slices"
	"strings"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sdp"
)

// Which part of a body is an offer or an answer (RFC 3261 20.11, RFC 5621).

func isSDP(body Body) bool { return isSDPType(body.ContentType()) }

func isSDPType(contentType string) bool { return strings.EqualFold(mediaType(contentType), typeSDP) }

// sessionIn returns a copy of the session description in a message, nil when it has
// none: its body, or the part of it that is one. The body may be of any one type, as
// only the application can tell what that describes; of several parts one has to be
// SDP.
func sessionIn(msg message) *SimpleBody {
	if len(msg.Body()) == 0 {
		return nil
	}
	part, ok := sessionPart(wholeBody(msg))
	if !ok {
		return nil
	}
	return &SimpleBody{contentType: ownType(part.Type), data: bytes.Clone(part.Data)}
}

// wholeBody is a message's body, not yet taken apart.
func wholeBody(msg message) multipart.Part {
	return multipart.Part{
		Type: headerValue(msg, "Content-Type"), Disposition: headerValue(msg, "Content-Disposition"), Data: msg.Body(),
	}
}

// sdpIn is sessionIn for a message where nothing but SDP counts.
func sdpIn(msg message) *SimpleBody {
	if body := sessionIn(msg); body != nil && isSDP(body) {
		return body
	}
	return nil
}

// sessionOf is sessionIn for a body of ours.
func sessionOf(body Body) Body {
	if isNilBody(body) || !multipart.IsMultipart(body.ContentType()) {
		return body
	}
	part, ok := sessionPart(multipart.Part{Type: body.ContentType(), Data: body.Data()})
	if !ok {
		return nil
	}
	return &SimpleBody{contentType: part.Type, data: part.Data}
}

// sessionPart returns the session description in a body.
func sessionPart(whole multipart.Part) (session multipart.Part, ok bool) {
	if !multipart.IsMultipart(whole.Type) {
		return whole, isSession(whole)
	}
	for _, part := range multipart.Parts(whole) {
		if len(part.Data) == 0 || !isSDPType(part.Type) || !isSession(part) {
			continue
		}
		better := part.Alternative && session.Alternative || isOptional(session) && !isOptional(part)
		if !ok || better {
			session, ok = part, true
		}
	}
	return session, ok
}

// isSession reports whether a part is there to describe the session (RFC 3261 20.11):
// it says so, or says nothing.
func isSession(part multipart.Part) bool {
	disposition := mediaType(part.Disposition)
	return disposition == "" || strings.EqualFold(disposition, "session")
}

// isOptional reports whether a part may be ignored (RFC 5621 8.2, 8.3).
func isOptional(part multipart.Part) bool {
	return !part.Alternative && strings.EqualFold(multipart.Param(part.Disposition, "handling"), "optional")
}

// withVersion returns a body whose session description has another version; the
// body itself where that cannot be written.
func withVersion(body Body, part multipart.Part, version uint64) Body {
	if part.Offset < 0 {
		return body
	}
	whole, end := body.Data(), part.Offset+len(part.Data)
	data := slices.Concat(whole[:part.Offset], sdp.WithVersion(part.Data, version), whole[end:])
	return &SimpleBody{contentType: body.ContentType(), data: data}
}
