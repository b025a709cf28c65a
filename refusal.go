package dialog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Refusal says how to refuse an offer of the peer's: an error for OnOffer's function to
// return where 488 will not do. A *ResponseError of another call is refused by its
// [ResponseError.Refusal]. To refuse a call in this way, use RejectWith(ctx, r.Status,
// r.Reason, WithHeaders(r.Headers...)).
type Refusal struct {
	// Status is 300 to 699; any other is taken as 488.
	Status int
	// Reason is the reason phrase; empty is the status's own.
	Reason string
	// Headers are added to the response: Retry-After, Warning, Reason, Accept.
	Headers []Header
}

// Error gives the status, and the reason phrase if there is one.
func (r *Refusal) Error() string {
	text := fmt.Sprintf("dialog: offer refused with %d", r.status())
	if r.Reason != "" {
		text += " " + oneLine(r.Reason)
	}
	return text
}

func (r *Refusal) status() int {
	if r.Status < 300 || r.Status > 699 {
		return sip.StatusNotAcceptableHere
	}
	return r.Status
}

// Refusal returns the refusal for the other call of a bridge: the same status,
// Retry-After, Warning, Reason and Accept. A status that would end the call (RFC 5057
// 5.1), or that a request of ours has caused, such as a challenge, becomes 488: the
// peer of the other call cannot do anything about it.
func (e *ResponseError) Refusal() *Refusal {
	r := &Refusal{Status: sip.StatusNotAcceptableHere}
	if mayPass(e.StatusCode) {
		r.Status, r.Reason = e.StatusCode, e.Reason
		if e.RetryAfter > 0 || e.retry {
			r.Headers = append(r.Headers, Header{"Retry-After", strconv.Itoa(int(e.RetryAfter.Round(time.Second).Seconds()))})
		}
		for _, accepted := range e.Accept {
			r.Headers = append(r.Headers, Header{"Accept", accepted})
		}
	}
	for _, warning := range e.Warnings {
		r.Headers = append(r.Headers, Header{"Warning", warning})
	}
	for _, reason := range e.Reasons {
		if sipmsg.IsToken(reason.Protocol) {
			r.Headers = append(r.Headers, Header{"Reason", reason.String()})
		}
	}
	return r
}

// mayPass reports whether a status may go from one call to another.
func mayPass(code int) bool {
	switch code {
	case sip.StatusUnauthorized, sip.StatusProxyAuthRequired, // whose credentials?
		sip.StatusBadExtension, sip.StatusExtensionRequired, statusIntervalTooSmall, 494, // negotiated hop by hop
		sip.StatusRequestTerminated: // we have given it up
		return false
	}
	return code >= 400 && code <= 699 && effectOf(sip.INVITE, code) == endsNothing
}

// refusedOffer is an error of OnOffer's function: the refusal, and the text of the
// error only. An error of another call must not be taken for one of this call.
type refusedOffer struct {
	how  *Refusal
	said string
}

// Error is the application's text.
func (e *refusedOffer) Error() string { return e.said }

// Unwrap returns how it refuses.
func (e *refusedOffer) Unwrap() error { return e.how }

// refusalFor is the refusal for an error of OnOffer's function, or of ours. When the
// other call of a bridge is busy with an exchange of its own, the peer tries again
// later (RFC 3261 14.2).
func refusalFor(err error) *Refusal {
	var chosen *Refusal
	var other *ResponseError
	var unacceptable *sdp.Unacceptable
	switch {
	case errors.As(err, &chosen) && chosen != nil:
		return chosen
	case errors.As(err, &other) && other != nil:
		return other.Refusal()
	case errors.As(err, &unacceptable):
		return &Refusal{Status: sip.StatusNotAcceptableHere, Headers: warnings(unacceptable.Warnings)}
	case errors.Is(err, ErrPanic):
		return &Refusal{Status: sip.StatusInternalServerError}
	case errors.Is(err, ErrPending):
		return &Refusal{Status: sip.StatusRequestPending}
	case errors.Is(err, ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &Refusal{Status: sip.StatusGatewayTimeout}
	case errors.Is(err, sdp.ErrUnreadable):
		return &Refusal{Status: sip.StatusNotAcceptableHere, Headers: []Header{warning(399, "offer cannot be read")}}
	default:
		return &Refusal{Status: sip.StatusNotAcceptableHere}
	}
}

func warnings(list []sdp.Warning) []Header {
	var headers []Header
	for _, w := range list {
		headers = append(headers, warning(int(w), w.String()))
	}
	return headers
}

// warning is a Warning header of ours (RFC 3261 20.43).
func warning(code int, text string) Header {
	return Header{"Warning", strconv.Itoa(code) + " dialog " + sipmsg.Quote(text)}
}

// refuseWith refuses the request that brought an offer. A 488 has a Warning (RFC 3261
// 14.2). A header that would break the response is left out, so that the response
// leaves.
func (s *Stack) refuseWith(tx serverTx, r *Refusal) {
	res := tx.NewResponse(r.status(), oneLine(r.Reason))
	for _, h := range r.Headers {
		if err := checkResponseHeader(h); err != nil {
			s.logOf(tx).Error("header of a Refusal cannot be sent", "error", err)
			continue
		}
		appendHeaders(res, []Header{h})
	}
	if res.StatusCode == sip.StatusNotAcceptableHere && len(res.GetHeaders("Warning")) == 0 {
		appendHeaders(res, []Header{warning(399, "offer refused")})
	}
	s.respond(tx, res)
}
