package bridge

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// DefaultHeaders are the headers that pass without Options.Pass. None of them reveals the
// address of the other side.
func DefaultHeaders() []string {
	return []string{"Subject", "Priority", "Alert-Info", "Accept-Language", "Privacy", "User-to-User", "Warning"}
}

// Only returns a function for Options.Pass: the headers with these names pass. Values with
// control characters do not.
func Only(names ...string) func(msg sip.Message) []dialog.Header {
	names = slices.Clone(names)
	return func(msg sip.Message) []dialog.Header {
		var list []dialog.Header
		for _, name := range names {
			for _, value := range dialog.HeaderText(msg, name) {
				if !strings.ContainsFunc(value, isControl) {
					list = append(list, dialog.Header{Name: name, Value: value})
				}
			}
		}
		return list
	}
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// passed returns the headers that pass with a message, and those of its body.
func (b *Bridge) passed(msg sip.Message) []dialog.Header {
	list := b.pass(msg)
	if len(msg.Body()) > 0 {
		list = append(list, bodyHeaders(msg)...)
	}
	return list
}

// bodyHeaders returns the headers that describe a body.
func bodyHeaders(msg sip.Message) []dialog.Header {
	return Only("Content-Disposition", "Content-Encoding", "Content-Language", "MIME-Version")(msg)
}

// bodyOf returns the body of a message, or nil.
func bodyOf(msg sip.Message) dialog.Body {
	if len(msg.Body()) == 0 {
		return nil
	}
	contentType := ""
	if values := dialog.HeaderText(msg, "Content-Type"); len(values) > 0 {
		contentType = values[0]
	}
	return dialog.NewBody(contentType, msg.Body())
}

// sessionOf returns the body of a message if it has a session description, alone or in one
// of its parts.
func sessionOf(msg sip.Message) dialog.Body {
	body := bodyOf(msg)
	if body == nil || isSDP(body) {
		return body
	}
	if isType(body, "multipart/") && bytes.Contains(bytes.ToLower(body.Data()), []byte(typeSDP)) {
		return body
	}
	return nil
}

const typeSDP = "application/sdp"

func isSDP(body dialog.Body) bool { return isType(body, typeSDP) }

func isType(body dialog.Body, prefix string) bool {
	return strings.HasPrefix(strings.ToLower(body.ContentType()), prefix)
}

// The status codes that sipgo has no names for.
const statusTooManyHops, statusLoop, statusEarlyDialogTerminated = 483, 482, 199

var (
	// ErrLoop means that an incoming call is an INVITE of this bridge that has come back
	// for the same target. The caller got 482 (RFC 3261 16.3).
	ErrLoop = errors.New("bridge: loop")
	// ErrHops means that the INVITE has no hops left. The caller got 483 (RFC 7332 4).
	ErrHops = errors.New("bridge: too many hops")
)

// hopsOf returns the Max-Forwards of the next request; ok is false if none may follow.
func hopsOf(req *sip.Request) (hops int, ok bool) {
	received := req.MaxForwards()
	if received == nil {
		return 70, true
	}
	return int(*received) - 1, *received > 0
}

// maxBreadth is the highest Max-Breadth that passes (RFC 5393 5.3.3).
const maxBreadth = 60

// breadth returns the Max-Breadth of a request that follows from another, unless it is given:
// that of the other one.
func breadth(req *sip.Request, given []dialog.Header) []dialog.Header {
	const name = "Max-Breadth"
	values := dialog.HeaderText(req, name)
	if len(values) == 0 || hasHeader(given, name) {
		return nil
	}
	value, err := strconv.ParseUint(values[0], 10, 32)
	if err != nil || value == 0 {
		return nil
	}
	return []dialog.Header{{Name: name, Value: strconv.FormatUint(min(value, maxBreadth), 10)}}
}

// route is where an INVITE of ours went, and the one before it that it follows from.
type route struct {
	key    dialog.DialogKey
	target string
	from   *route
}

// admit checks that an INVITE may be relayed to a target: RFC 3261 16.3 3, 4. An INVITE of
// ours that comes back is a spiral, unless an earlier one of its chain went to the target.
func (b *Bridge) admit(invite *sip.Request, target sip.Uri) (at *route, hops int, err error) {
	hops, ok := hopsOf(invite)
	if !ok {
		return nil, 0, ErrHops
	}
	at = &route{target: target.String()}
	tag, _ := invite.From().Params.Get("tag")
	b.mu.Lock()
	defer b.mu.Unlock()
	at.from = b.routes[dialog.DialogKey{CallID: invite.CallID().Value(), LocalTag: tag}]
	for earlier := at.from; earlier != nil; earlier = earlier.from {
		if earlier.target == at.target {
			return nil, 0, ErrLoop
		}
	}
	return at, hops, nil
}

func (b *Bridge) remember(at *route, d *dialog.Dialog) {
	key := d.Key()
	b.mu.Lock()
	defer b.mu.Unlock()
	at.key = dialog.DialogKey{CallID: key.CallID, LocalTag: key.LocalTag}
	b.routes[at.key] = at
}

func (b *Bridge) forget(at *route) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.routes, at.key)
}

// refusalOf returns the refusal of the first call for an error of the second one.
func refusalOf(err error) *dialog.Refusal {
	var refused *dialog.ResponseError
	switch {
	case errors.As(err, &refused):
		return refusalLike(refused)
	case errors.Is(err, ErrHops):
		return &dialog.Refusal{Status: statusTooManyHops}
	case errors.Is(err, ErrLoop):
		return &dialog.Refusal{Status: statusLoop}
	case errors.Is(err, dialog.ErrPending):
		return &dialog.Refusal{Status: sip.StatusRequestPending}
	case errors.Is(err, context.Canceled), errors.Is(err, dialog.ErrCanceled), errors.Is(err, dialog.ErrTerminated):
		return &dialog.Refusal{Status: sip.StatusTemporarilyUnavailable}
	case errors.Is(err, dialog.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &dialog.Refusal{Status: sip.StatusRequestTimeout}
	case errors.Is(err, dialog.ErrMaxDialogs), errors.Is(err, dialog.ErrShutdown):
		return &dialog.Refusal{Status: sip.StatusServiceUnavailable}
	default:
		return &dialog.Refusal{Status: sip.StatusInternalServerError}
	}
}

// refusalLike returns the refusal with the status of another: its Warning, Reason,
// Retry-After and Accept.
func refusalLike(e *dialog.ResponseError) *dialog.Refusal {
	r := e.Refusal() // its headers
	r.Status, r.Reason = e.StatusCode, e.Reason
	switch {
	case e.StatusCode == sip.StatusUnauthorized, e.StatusCode == sip.StatusProxyAuthRequired:
		r.Status, r.Reason = sip.StatusForbidden, "" // a challenge to us is none to the caller
	case !mayPass(e.StatusCode):
		r.Status, r.Reason = sip.StatusInternalServerError, ""
	case e.RetryAfter > 0 && !hasHeader(r.Headers, "Retry-After"):
		r.Headers = append(r.Headers, dialog.Header{Name: "Retry-After", Value: strconv.Itoa(int(e.RetryAfter / time.Second))})
	}
	return r
}

func hasHeader(list []dialog.Header, name string) bool {
	return slices.ContainsFunc(list, func(h dialog.Header) bool { return strings.EqualFold(h.Name, name) })
}

// mayPass reports whether a status means the same to the other side. The others are about
// what we have sent: extensions, a session timer, credentials. A 503 would say that we
// ourselves are overloaded (RFC 3261 16.7 step 6).
func mayPass(code int) bool {
	return !slices.Contains([]int{401, 407, 420, 421, 422, 423, 494, 503}, code)
}

// reject refuses a call for an error of the other one. The targets of a redirection pass.
func reject(ctx context.Context, d *dialog.Dialog, err error) error {
	r := refusalOf(err)
	opts := []dialog.ResponseOpt{dialog.WithHeaders(r.Headers...)}
	var refused *dialog.ResponseError
	if errors.As(err, &refused) && len(refused.Contacts) > 0 {
		opts = append(opts, dialog.WithContacts(refused.Contacts...))
	}
	return d.RejectWith(ctx, r.Status, r.Reason, opts...)
}

// tagOf is the tag of who has answered.
func tagOf(res *sip.Response) string {
	if res == nil || res.To() == nil {
		return ""
	}
	tag, _ := res.To().Params.Get("tag")
	return tag
}

func isReliable(res *sip.Response) bool {
	return res != nil && len(dialog.HeaderText(res, "RSeq")) > 0
}
