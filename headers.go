package dialog

import (
	"crypto/rand"
	"encoding/hex"

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
