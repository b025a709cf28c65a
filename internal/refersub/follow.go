package refersub

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipuri"
)

// Target returns the target of the INVITE that a Refer-To asks for; an error when it
// asks for no INVITE.
func Target(referTo sip.Uri) (sip.Uri, error) {
	target := *referTo.Clone()
	target.Headers = nil
	if scheme := strings.ToLower(target.Scheme); scheme != "sip" && scheme != "sips" {
		return target, fmt.Errorf("scheme %q", target.Scheme)
	}
	if method, ok := sipuri.Param(target.UriParams, "method"); ok && !strings.EqualFold(method, "INVITE") {
		return target, fmt.Errorf("method %q", method)
	}
	sipuri.RemoveParam(&target.UriParams, "method") // RFC 3261 19.1.1: not in a Request-URI
	return target, nil
}

// Headers returns the headers in a URI that the INVITE may take over, by name and value:
// those with which a referrer cannot speak in our name (RFC 3261 19.1.5).
func Headers(referTo sip.Uri) (list [][2]string) {
	for _, kv := range referTo.Headers {
		name, errName := url.PathUnescape(kv.K)
		value, errValue := url.PathUnescape(kv.V)
		if errName == nil && errValue == nil && mayTakeOver(name) {
			list = append(list, [2]string{name, sipheader.OneLine(value)})
		}
	}
	return list
}

func mayTakeOver(name string) bool {
	switch name = strings.ToLower(name); name {
	case "replaces", "join", "target-dialog", "require", "subject", "priority", "in-reply-to", "reason",
		"accept-contact", "reject-contact", "request-disposition", "user-to-user":
		return true
	}
	return strings.HasPrefix(name, "x-")
}

// Followed is what is known of the call that follows a REFER, by its responses. Its zero
// value is ready.
type Followed struct {
	// latest is the latest response that was reported, accepted the first 2xx.
	latest, accepted Progress
}

// Response takes a response, and reports whether it is reported to the referrer now: a
// provisional one that is news. A final one is reported when the call has its outcome.
func (f *Followed) Response(p Progress) (isNews bool) {
	switch {
	case p.IsFinal():
		if p.Status < 300 && f.accepted.Status == 0 {
			f.accepted = p
		}
		return false
	case p.Status == sip.StatusTrying || p == f.latest:
		return false
	}
	f.latest = p
	return true
}

// Accepted is the status of a call that was established.
func (f *Followed) Accepted() Progress {
	if f.accepted.Status == 0 {
		return Progress{sip.StatusOK, "OK"}
	}
	return f.accepted
}
