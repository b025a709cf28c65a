package register

import (
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/redirect"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// reply is what the 2xx to a REGISTER says of the contacts in it.
type reply struct {
	// bound are those of ours that are listed with some time, as they were sent; expires
	// is the least of their times.
	bound   []sip.Uri
	expires time.Duration
	// listed are all that are bound, those of other devices too.
	listed []sip.Uri

	serviceRoute, path []sip.Uri
	outbound           bool
	flowTimer          time.Duration
	public, temporary  sip.Uri
}

// readReply reads the 2xx to a REGISTER that was sent so.
func readReply(res *sip.Response, sent *sip.Request) reply {
	r := reply{
		serviceRoute: urisIn(res, "Service-Route"),
		path:         urisIn(res, "Path"),
		outbound:     sipheader.Lists(res, "Require", "outbound"),
	}
	r.flowTimer, _ = sipmsg.Seconds(sipheader.Value(res, "Flow-Timer"))
	otherwise := otherwise(res, sent)
	listed := sipheader.AddressesOf(res, "Contact")
	seen := seenAt(res)
	for _, c := range listed {
		if lasts(c, otherwise) > 0 {
			r.listed = append(r.listed, c.URI)
		}
	}
	for _, ours := range sipheader.AddressesOf(sent, "Contact") {
		for _, c := range listed {
			if span := lasts(c, otherwise); span > 0 && isOurs(ours, c, seen) {
				r.take(ours.URI, c, span)
				break
			}
		}
	}
	return r
}

// take notes that one of our contacts is bound.
func (r *reply) take(ours sip.Uri, as sipheader.Address, span time.Duration) {
	r.bound = append(r.bound, ours)
	if r.expires == 0 || span < r.expires {
		r.expires = span
	}
	if r.public.Host == "" {
		r.public, r.temporary = gruu(as, "pub-gruu"), gruu(as, "temp-gruu")
	}
}

// otherwise is how long a binding lasts whose Contact does not say it: as long as the
// Expires of the response (RFC 3261 10.2.4), or else as we have asked for.
func otherwise(res *sip.Response, sent *sip.Request) time.Duration {
	for _, msg := range []sipheader.Message{res, sent} {
		if span, ok := sipmsg.Seconds(sipheader.Value(msg, "Expires")); ok {
			return span
		}
	}
	return 0
}

// lasts is how long a binding that the registrar lists lasts.
func lasts(c sipheader.Address, otherwise time.Duration) time.Duration {
	value, _ := sipuri.Param(c.Params, "expires")
	if span, ok := sipmsg.Seconds(value); ok {
		return span
	}
	return otherwise
}

// isOurs reports whether a Contact that the registrar lists is one that we have sent: the
// same URI (RFC 3261 10.2.4, 19.1.4), or the same instance and reg-id (RFC 5626 6), or, as
// registrars write it that go by the source of a REGISTER, the same user at the address at
// which the registrar has seen us.
func isOurs(ours, listed sipheader.Address, seen sip.Uri) bool {
	if sipuri.SameOfAny(ours.URI, listed.URI) || sameBinding(ours, listed) {
		return true
	}
	return seen.Host != "" && strings.EqualFold(ours.URI.Scheme, listed.URI.Scheme) && ours.URI.User == listed.URI.User &&
		strings.EqualFold(seen.Host, listed.URI.Host) && seen.Port == int(sipuri.Port(listed.URI))
}

// sameBinding reports whether both have the same instance and reg-id.
func sameBinding(a, b sipheader.Address) bool {
	for _, name := range []string{paramInstance, paramRegID} {
		x, _ := sipuri.Param(a.Params, name)
		y, _ := sipuri.Param(b.Params, name)
		if x = unquoted(x); x == "" || !strings.EqualFold(x, unquoted(y)) {
			return false
		}
	}
	return true
}

func unquoted(s string) string { return strings.Trim(strings.TrimSpace(s), `"`) }

// seenAt is where the registrar has seen our REGISTER come from (RFC 3581 4), as the host
// and port of a URI; no host if it does not say so.
func seenAt(res *sip.Response) (uri sip.Uri) {
	via := res.Via()
	if via == nil {
		return uri
	}
	host, _ := sipuri.Param(via.Params, "received")
	if host == "" {
		host = via.Host
	}
	rport, _ := sipuri.Param(via.Params, "rport")
	port, ok := sipmsg.Seconds(rport) // digits
	if !ok || port == 0 || host == "" {
		return uri
	}
	return sip.Uri{Host: sipuri.Bracketed(strings.Trim(host, "[]")), Port: int(port / time.Second)}
}

// gruu reads a GRUU of a Contact (RFC 5627 5.1).
func gruu(c sipheader.Address, name string) sip.Uri {
	value, _ := sipuri.Param(c.Params, name)
	uri, err := sipmsg.ToURI(unquoted(value))
	if err != nil || !sipuri.IsTarget(uri) {
		return sip.Uri{}
	}
	return uri
}

// urisIn are those of a list of routes.
func urisIn(res *sip.Response, name string) (uris []sip.Uri) {
	for _, a := range sipheader.AddressesOf(res, name) {
		uris = append(uris, a.URI)
	}
	return uris
}

// stale are the contacts of before that are bound still and that no REGISTER renews any
// more: our address has become another one.
func (r *reply) stale(before []sip.Uri) (list []sip.Uri) {
	has := func(list []sip.Uri, uri sip.Uri) bool {
		return slices.ContainsFunc(list, func(other sip.Uri) bool { return sipuri.SameOfAny(uri, other) })
	}
	for _, uri := range before {
		if has(r.listed, uri) && !has(r.bound, uri) {
			list = append(list, uri)
		}
	}
	return list
}

// targets are the Contacts of a redirection, as Request-URIs of a REGISTER.
func targets(res *sip.Response) (list []redirect.Contact) {
	for _, a := range sipheader.AddressesOf(res, "Contact") {
		list = append(list, redirect.Contact{URI: withoutUser(a.URI), Params: a.Params})
	}
	return list
}

// refusal is the error of a response.
func refusal(res *sip.Response) *dialog.ResponseError {
	e := &dialog.ResponseError{Method: "REGISTER", StatusCode: res.StatusCode, Reason: res.Reason, Warnings: sipheader.Listed(res, "Warning")}
	e.RetryAfter = retryAfter(res)
	if res.StatusCode/100 == 3 {
		e.Contacts = redirect.ByRank(targets(res))
	}
	return e
}

// retryAfter is how long the registrar asks us to wait (RFC 3261 20.33).
func retryAfter(res *sip.Response) time.Duration {
	digits := strings.TrimSpace(sipheader.Value(res, "Retry-After"))
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	span, _ := sipmsg.Seconds(digits)
	return span
}
