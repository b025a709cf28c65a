package dialog

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// What the network says of the parties, in requests (Dialog.Request) and in
// responses (Dialog.Response). All of it is to be sent by Headers of InviteOpts,
// ByeOpts and the like, and by WithHeader in responses.

// String returns the address as it stands in a header: the name in quotes, the
// URI in angle brackets.
func (a Address) String() string {
	uri := "<" + a.URI.String() + ">"
	if name := oneLine(a.DisplayName); name != "" {
		return sipmsg.Quote(name) + " " + uri
	}
	return uri
}

// AssertedIdentities returns who the network says has sent a message:
// P-Asserted-Identity (RFC 3325 9.1), one or two addresses, a SIP URI and a tel
// URI. It means something only where it comes from a trusted hop.
func AssertedIdentities(msg sip.Message) []Address {
	var list []Address
	for _, a := range addresses(msg, "P-Asserted-Identity") {
		list = append(list, a.Address)
	}
	return list
}

// PrivacyOf returns the values of Privacy (RFC 3323 4.2), such as "id" and
// "critical", in lower case.
func PrivacyOf(msg sip.Message) []string {
	var list []string
	for h := range named(msg, "Privacy") {
		for _, value := range strings.FieldsFunc(h.Value(), func(r rune) bool { return r == ';' || r == ',' }) {
			if value = strings.ToLower(strings.TrimSpace(value)); value != "" {
				list = append(list, value)
			}
		}
	}
	return list
}

// Diversion is one diversion of a call (RFC 5806 4).
type Diversion struct {
	// Address is who has diverted it.
	Address
	// Reason says why: "user-busy", "no-answer", "unconditional", …
	Reason string
	// Counter is how many diversions the entry stands for, Limit how many may
	// follow; zero: not said.
	Counter, Limit int
	// Privacy and Screen are the parameters of these names.
	Privacy, Screen string
}

// String returns the diversion as it stands in a header.
func (d Diversion) String() string {
	value := d.Address.String()
	for _, param := range []struct{ name, value string }{
		{"reason", d.Reason}, {"counter", number(d.Counter)}, {"limit", number(d.Limit)},
		{"privacy", d.Privacy}, {"screen", d.Screen},
	} {
		value += parameter(param.name, param.value)
	}
	return value
}

// DiversionsOf returns the diversions of a call, the latest first (RFC 5806 4).
func DiversionsOf(msg sip.Message) []Diversion {
	var list []Diversion
	for _, a := range addresses(msg, "Diversion") {
		d := Diversion{Address: a.Address, Reason: a.param("reason"), Privacy: a.param("privacy"), Screen: a.param("screen")}
		d.Counter, _ = strconv.Atoi(a.param("counter"))
		d.Limit, _ = strconv.Atoi(a.param("limit"))
		list = append(list, d)
	}
	return list
}

// HistoryEntry is one target that a request was sent to on its way (RFC 7044 5).
type HistoryEntry struct {
	// Address is the target; its URI's headers, such as Reason, are escaped in
	// it.
	Address
	// Index is its place in the tree of targets, such as "1.2.1".
	Index string
	// ChangedBy says how the target was found: "rc" the same user's contact,
	// "mp" another user, "np" unchanged; empty when not said. From is the index
	// of the entry that it was found from.
	ChangedBy, From string
}

// String returns the entry as it stands in a header.
func (e HistoryEntry) String() string {
	value := e.Address.String() + parameter("index", e.Index)
	if e.ChangedBy != "" {
		value += parameter(e.ChangedBy, e.From)
	}
	return value
}

// Reasons returns why that target was left for another (RFC 7044 5): those in
// its URI.
func (e HistoryEntry) Reasons() []Reason {
	var reasons []Reason
	for _, h := range e.URI.Headers {
		if strings.EqualFold(h.K, "Reason") {
			reasons = appendReason(reasons, sipuri.UnescapeAll(h.V))
		}
	}
	return reasons
}

// HistoryOf returns the targets that a request has had, in the header's order
// (RFC 7044 5).
func HistoryOf(msg sip.Message) []HistoryEntry {
	var list []HistoryEntry
	for _, a := range addresses(msg, "History-Info") {
		e := HistoryEntry{Address: a.Address, Index: a.param("index")}
		for _, how := range []string{"rc", "mp", "np"} {
			if _, found := sipuri.Param(a.params, how); found {
				e.ChangedBy, e.From = how, a.param(how)
			}
		}
		list = append(list, e)
	}
	return list
}

// addressParams is a name-addr with parameters.
type addressParams struct {
	Address
	params sip.HeaderParams
}

func (a addressParams) param(name string) string {
	value, _ := sipuri.Param(a.params, name)
	return sipmsg.Unquote(value)
}

// addresses reads a header that is a list of name-addrs; what cannot be read is
// left out.
func addresses(msg message, name string) []addressParams {
	var list []addressParams
	for _, a := range addressesIn(msg, name) {
		list = append(list, addressParams{a.address(), a.params})
	}
	return list
}

// parameter is a header parameter with a value, quoted where it is no token;
// nothing without a value.
func parameter(name, value string) string {
	value = oneLine(value)
	switch {
	case value == "":
		return ""
	case sipmsg.IsToken(value):
		return ";" + name + "=" + value
	}
	return ";" + name + "=" + sipmsg.Quote(value)
}

func number(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}
