package dialog

import (
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Address is a name and a URI, as in From and To.
type Address struct {
	DisplayName string
	URI         sip.Uri
}

// Header is a header for a message. It is refused with ErrInvalidArgument, which names
// the option that sets it, if its name is no token, its value has a line break or
// another control character, or the message has it already: Via, From, To, Call-ID,
// CSeq, Max-Forwards, Route, Record-Route, Content-Length, and Contact but in an
// [Answer] and by [WithHeader].
type Header struct {
	Name, Value string
}

// ByeOpts are the options of ByeWith.
type ByeOpts struct {
	// Reason becomes a Reason header (RFC 3326): SIP;text="…", unless it is
	// one already, such as `Q.850;cause=16`.
	Reason string
	// Reasons become further Reason headers, also in the CANCEL of a call that is not
	// answered.
	Reasons []Reason
	// Headers are added to the BYE.
	Headers []Header
}

// WithHeader adds a header to a response. A Contact replaces ours, in Accept and
// Provisional for the rest of the call. A header that Header refuses makes the method
// fail.
func WithHeader(name, value string) ResponseOpt {
	return func(resp *sip.Response) {
		h := Header{name, value}
		if err := checkResponseHeader(h); err != nil {
			refuseOption(resp, err)
			return
		}
		if isContactName(name) {
			replaceContacts(resp, sip.NewHeader("Contact", value))
			return
		}
		appendHeaders(resp, []Header{h})
	}
}

// WithHeaders adds headers to a response, such as those of a [Refusal], each as
// WithHeader does.
func WithHeaders(headers ...Header) ResponseOpt {
	return func(resp *sip.Response) {
		for _, h := range headers {
			WithHeader(h.Name, h.Value)(resp)
		}
	}
}

// WithBody gives a response a body: the answer, or the offer, of Accept and
// Provisional. Once reliable provisional responses have agreed upon a session, a body
// in Accept is neither (RFC 6337 3.1.1). The version in an SDP's o= line is raised
// where it would go back, as Hold and Resume have raised it too (RFC 3264 8).
func WithBody(body Body) ResponseOpt {
	return func(resp *sip.Response) { setBody(resp, body) }
}

// WithReliable makes Provisional send the response reliably (RFC 3262) when the caller
// supports that; other responses are not changed.
func WithReliable() ResponseOpt {
	return func(resp *sip.Response) { resp.AppendHeader(sip.NewHeader("Require", rel100.Tag)) }
}

// WithContacts replaces a response's Contact: by the targets of a redirection (RFC 3261
// 21.3); in Accept and Provisional by our own, one SIP URI, for the rest of the call.
func WithContacts(targets ...sip.Uri) ResponseOpt {
	return func(resp *sip.Response) {
		var list []sip.Header
		for _, target := range targets {
			if err := checkURI("Contact", target); err != nil {
				refuseOption(resp, err)
				return
			}
			list = append(list, &sip.ContactHeader{Address: *target.Clone(), Params: sip.NewParams()})
		}
		replaceContacts(resp, list...)
	}
}

func replaceContacts(resp *sip.Response, contacts ...sip.Header) {
	removeHeaders(resp, "Contact")
	for _, contact := range contacts {
		resp.AppendHeader(contact)
	}
}

func isContactName(name string) bool { return sipmsg.SameName(name, "Contact") }

// WithRetryAfter adds a Retry-After (RFC 3261 20.33), in whole seconds.
func WithRetryAfter(wait time.Duration) ResponseOpt {
	return func(resp *sip.Response) {
		if wait < 0 {
			refuseOption(resp, invalid("Retry-After %v", wait))
			return
		}
		resp.AppendHeader(retryAfter(int(wait.Round(time.Second).Seconds())))
	}
}

// WithWarning adds a Warning (RFC 3261 20.43): a code from 300 to 399, and a
// text.
func WithWarning(code int, text string) ResponseOpt {
	return func(resp *sip.Response) {
		if err := validCode("WithWarning", code, 300, 399); err != nil {
			refuseOption(resp, err)
			return
		}
		appendHeaders(resp, []Header{warning(code, text)})
	}
}

// appendHeaders adds an application's headers to a message: those that checkHeaders
// has passed.
func appendHeaders(msg sip.Message, headers []Header) {
	for _, h := range headers {
		msg.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
}

// validCode checks a status that an application gives.
func validCode(op string, code, least, most int) error {
	if code < least || code > most {
		return opErr(op, fmt.Errorf("%w: status %d", ErrInvalidArgument, code))
	}
	return nil
}
