package sipheader

import (
	"strings"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Text returns the address in the form of a header: the name in quotes, the URI in angle
// brackets.
func (a NameAddr) Text() string {
	uri := "<" + a.URI.String() + ">"
	if name := OneLine(a.Display); name != "" {
		return sipmsg.Quote(name) + " " + uri
	}
	return uri
}

// Param returns the value of a parameter of the header, without its quotes; empty if
// there is none.
func (a Address) Param(name string) string {
	value, _ := sipuri.Param(a.Params, name)
	return sipmsg.Unquote(value)
}

// ParamText is a header parameter with its value, quoted if it is not a token. It is empty
// without a value.
func ParamText(name, value string) string {
	value = OneLine(value)
	switch {
	case value == "":
		return ""
	case sipmsg.IsToken(value):
		return ";" + name + "=" + value
	}
	return ";" + name + "=" + sipmsg.Quote(value)
}

// Privacy returns the values of Privacy (RFC 3323 4.2), in lower case. Some peers
// separate them by commas.
func Privacy(msg Message) []string {
	var list []string
	for h := range Named(msg, "Privacy") {
		for _, value := range strings.FieldsFunc(h.Value(), func(r rune) bool { return r == ';' || r == ',' }) {
			if value = strings.ToLower(strings.TrimSpace(value)); value != "" {
				list = append(list, value)
			}
		}
	}
	return list
}
