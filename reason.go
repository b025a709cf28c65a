package dialog

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Reason is a value of a Reason header (RFC 3326): the reason of a BYE, a CANCEL or a
// refusal.
type Reason struct {
	// Protocol is "SIP" if Cause is a status code, "Q.850" if it is an ISDN cause, or
	// another token.
	Protocol string
	// Cause is the number, such as 16 of Q.850; zero if there is none.
	Cause int
	// Text is a text for humans.
	Text string
}

// String returns the reason in the form of a header.
func (r Reason) String() string {
	value := r.Protocol
	if r.Cause != 0 {
		value += ";cause=" + strconv.Itoa(r.Cause)
	}
	if text := sipheader.OneLine(r.Text); text != "" {
		value += ";text=" + sipmsg.Quote(text)
	}
	return value
}

// ReasonsOf returns the reasons in a message, in their order. It leaves out unreadable
// ones. The message may be a request or a response (RFC 6432).
func ReasonsOf(msg sip.Message) []Reason { return reasonsOf(msg) }

func reasonsOf(msg sipheader.Message) []Reason {
	var reasons []Reason
	for _, value := range sipheader.Listed(msg, "Reason") {
		reasons = appendReason(reasons, value)
	}
	return reasons
}

func appendReason(reasons []Reason, value string) []Reason {
	protocol, params := sipmsg.CutParams(value)
	if !sipmsg.IsToken(protocol) {
		return reasons
	}
	r := Reason{Protocol: protocol, Text: params.Text("text")}
	if cause, err := strconv.ParseUint(params.Text("cause"), 10, 31); err == nil {
		r.Cause = int(cause)
	}
	return append(reasons, r)
}

// WithReason adds reasons to a final response (RFC 6432), such as a Q.850 cause. If a
// Protocol is not a token, the method returns an error.
func WithReason(reasons ...Reason) ResponseOpt {
	return func(resp *sip.Response) {
		if err := checkReasons("", reasons); err != nil {
			refuseOption(resp, err)
			return
		}
		for _, h := range reasonHeaders("", reasons) {
			resp.AppendHeader(h)
		}
	}
}

// reasonHeaders are the Reason headers of an application's text and reasons. A text
// that already is a header value of the form SIP;cause=... or Q.850;cause=... is sent
// as it is.
func reasonHeaders(text string, reasons []Reason) []sip.Header {
	var headers []sip.Header
	text = strings.TrimSpace(text)
	switch {
	case text == "":
	case strings.HasPrefix(text, "SIP;"), strings.HasPrefix(text, "Q.850;"):
		headers = append(headers, sip.NewHeader("Reason", text))
	default:
		headers = append(headers, sip.NewHeader("Reason", "SIP;text="+sipmsg.Quote(text)))
	}
	for _, r := range reasons {
		headers = append(headers, sip.NewHeader("Reason", r.String()))
	}
	return headers
}

// ReasonError ends a context with reasons: cancel(&ReasonError{…}) of a
// context.CancelCauseFunc. They are the Reason headers of the CANCEL that WaitAnswer sends
// when its context ends, and of the CANCEL or BYE for InviteOpts.Context, such as SIP with
// cause 200 and text "Call completed elsewhere" (RFC 3326 2). So are the reasons of an
// [EndError], which ends the context of another call, and of a [ResponseError]. Reasons that
// make no valid header are left out.
type ReasonError struct{ Reasons []Reason }

// Error lists the reasons.
func (e *ReasonError) Error() string {
	text := "dialog: ended"
	for _, r := range e.Reasons {
		text += ": " + r.String()
	}
	return text
}

// reasonsFor are the reasons of an error that ends a call.
func reasonsFor(err error) []Reason {
	var given *ReasonError
	var ended *EndError
	var refused *ResponseError
	var reasons []Reason
	switch {
	case errors.As(err, &given) && given != nil:
		reasons = given.Reasons
	case errors.As(err, &ended) && ended != nil:
		reasons = ended.Cause.Reasons
	case errors.As(err, &refused) && refused != nil:
		reasons = refused.Reasons
	}
	return slices.DeleteFunc(slices.Clone(reasons), func(r Reason) bool { return checkReasons("", []Reason{r}) != nil })
}

// reasonsIn reads the headers of reasonHeaders.
func reasonsIn(headers []sip.Header) []Reason {
	var reasons []Reason
	for _, h := range headers {
		for _, value := range sipmsg.Split(h.Value(), ',') {
			reasons = appendReason(reasons, value)
		}
	}
	return reasons
}

// reasonText returns the text of a message's Reason header, else its value.
func reasonText(msg sipheader.Message) string {
	value := sipheader.Value(msg, "Reason")
	_, params := sipmsg.CutParams(value)
	if text, found := params.Get("text"); found {
		return sipmsg.Unquote(text)
	}
	return value
}
