package offeranswer

import (
	"slices"
	"strings"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Accepts reports whether a body is one of those types, or a multipart body of such
// parts: of each that is not optional (RFC 5621 8.4), and of one of several alternatives.
func Accepts(types []string, whole multipart.Part) bool {
	takes := func(p multipart.Part) bool {
		return slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(sipmsg.Bare(t), sipmsg.Bare(p.Type)) })
	}
	if takes(whole) || !multipart.IsMultipart(whole.Type) {
		return takes(whole)
	}
	parts := multipart.Parts(whole)
	refused := func(p multipart.Part) bool { return !p.Alternative && !IsOptional(p) && !takes(p) }
	alternative := func(p multipart.Part) bool { return p.Alternative }
	taken := func(p multipart.Part) bool { return p.Alternative && takes(p) }
	return len(parts) > 0 && !slices.ContainsFunc(parts, refused) &&
		(!slices.ContainsFunc(parts, alternative) || slices.ContainsFunc(parts, taken))
}

// CoversSDP reports whether a media range of an Accept header includes SDP (RFC 3261
// 20.1).
func CoversSDP(mediaRange string) bool {
	switch strings.Join(strings.Fields(strings.ToLower(sipmsg.Bare(mediaRange))), "") {
	case TypeSDP, "application/*", "*/*":
		return true
	}
	return false
}
