package dialog

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// HeaderText returns the values of a message's header of that name, one a line of
// the message, in its order, as they were received: with quotes, parameters and
// the case of names that sipgo's types do not keep. Only the white space around
// them, and folds, are gone (RFC 3261 7.3.1). The name may be in any case, and short
// or long; nil when there is no such header.
//
// It knows the messages that handlers get, and those that [Dialog.Request],
// [Dialog.Response] and Do return. Of others (a Clone of such a message, one made by
// hand) it returns what sipgo writes. What an application has changed in a message is
// not seen. It never blocks.
func HeaderText(msg sip.Message, name string) []string {
	if m := sipmsg.Of(msg); m != nil {
		return m.Values(name)
	}
	var values []string
	for h := range named(msg, name) {
		values = append(values, h.Value())
	}
	return values
}

// HeaderList returns the values of a list, such as a line of Via, Contact or
// Record-Route (RFC 3261 7.3.1). Commas in quoted strings and in angle brackets
// separate nothing. Empty values are left out.
func HeaderList(text string) []string { return sipmsg.Split(text, ',') }

// HeaderParam returns a parameter of one value of a header, such as "tag" of a
// From: of the header, not of a URI in angle brackets. Names are compared in any
// case; a quoted string is returned without its quotes and escapes. ok is true
// also for a parameter without a value.
func HeaderParam(value, name string) (param string, ok bool) {
	_, params, found := sipmsg.Cut(value, ';')
	if !found {
		return "", false
	}
	param, ok = sipmsg.Params(";" + params).Get(name)
	return sipmsg.Unquote(param), ok
}
