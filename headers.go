package dialog

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// TagGen returns a new tag: 16 hex digits from a cryptographic source (RFC 3261 19.3).
func TagGen() string { return randomHex(8) }

// newCallID returns a new Call-ID.
func newCallID() string { return randomHex(16) }

func randomHex(n int) string {
	b := make([]byte, n)
	// crypto/rand never fails on the systems Go supports.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// HeaderText returns the values of a message's headers with that name, one for each
// line, in the order of the message and as received: with the quotes, parameters and
// case of names that sipgo's types do not keep. Only the white space around them, and
// folds, are removed (RFC 3261 7.3.1). The name may be in any case, and short or long.
// The result is nil if there is no such header.
//
// HeaderText has the received text of the messages that handlers get, and that
// [Dialog.Request], [Dialog.Response] and Do return. For other messages (a Clone, or one
// made by hand) it returns the text that sipgo writes. It does not see changes by the
// application. It never blocks.
func HeaderText(msg sip.Message, name string) []string {
	if m := sipmsg.Of(msg); m != nil {
		return m.Values(name)
	}
	var values []string
	for h := range sipheader.Named(msg, name) {
		values = append(values, h.Value())
	}
	return values
}

// HeaderList returns the values of a list, such as a line of Via, Contact or
// Record-Route (RFC 3261 7.3.1). Commas in quoted strings and in angle brackets
// separate nothing. Empty values are left out.
func HeaderList(text string) []string { return sipmsg.Split(text, ',') }

// HeaderParam returns a parameter of one value of a header, such as "tag" of a From.
// Parameters of a URI in angle brackets are not included. Names are not case-sensitive. A
// quoted string is returned without its quotes and escapes. ok is also true for a
// parameter without a value.
func HeaderParam(value, name string) (param string, ok bool) {
	_, params, found := sipmsg.Cut(value, ';')
	if !found {
		return "", false
	}
	param, ok = sipmsg.Params(";" + params).Get(name)
	return sipmsg.Unquote(param), ok
}

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
// context.CancelCauseFunc. They are the Reason headers of the CANCEL that WaitAnswer,
// ReInvite and Renegotiate send when their context ends, and of the CANCEL or BYE for InviteOpts.Context, such as SIP with
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
