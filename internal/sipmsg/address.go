package sipmsg

import (
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Address is a view of a name-addr or addr-spec with parameters (RFC 3261
// 20.10, 25.1): a value of Contact, From, To, Record-Route, Refer-To and the
// like.
type Address struct {
	Display string // as it came, with its quotes if it has any
	URI     string
	Params  Params // of the header, not of the URI
}

// ParseAddress reads one value. [ParseURI] reads the text in the brackets.
func ParseAddress(s string) (Address, error) {
	s = trim(s)
	open, err := bracket(s)
	if err != nil {
		return Address{}, err
	}
	if open < 0 {
		return plainAddress(s)
	}
	end := angleEnd(s, open)
	if end < 0 {
		return Address{}, errAddress
	}
	a := Address{Display: trim(s[:open]), URI: trim(s[open+1 : end-1]), Params: Params(trimLeft(s[end:]))}
	return a, a.check()
}

// plainAddress is one without brackets: all parameters are the header's.
func plainAddress(s string) (Address, error) {
	a := Address{URI: s}
	if end := strings.IndexByte(s, ';'); end >= 0 {
		a.URI, a.Params = trim(s[:end]), Params(s[end:])
	}
	return a, a.check()
}

// bracket returns the index of the bracket that opens the URI, or -1 when there
// is none.
func bracket(s string) (int, error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '<':
			return i, nil
		case ';':
			return -1, nil
		case '"':
			end := quotedEnd(s, i)
			if end < 0 || strings.IndexByte(s[end:], '<') < 0 {
				return -1, errAddress // a display name needs brackets behind it
			}
			i = end - 1
		}
	}
	return -1, nil
}

func (a *Address) check() error {
	switch {
	case a.URI == "", a.Params != "" && a.Params[0] != ';', !a.Params.Valid():
		return errAddress
	}
	return nil
}

// Name returns the display name without its quotes and escapes.
func (a *Address) Name() string { return Unescape(a.held()) }

// held is the display name as sipgo holds it, and writes it between quotes.
func (a *Address) held() string {
	if strings.HasPrefix(a.Display, `"`) && quotedEnd(a.Display, 0) == len(a.Display) {
		return a.Display[1 : len(a.Display)-1]
	}
	return Escape(a.Display)
}

// ToParty reads the value of a From or To as sipgo has it, without its parameters.
func ToParty(s string) (display string, uri sip.Uri, err error) {
	a, err := ParseAddress(s)
	if err != nil {
		return "", sip.Uri{}, err
	}
	if a.URI == "*" {
		return a.held(), sip.Uri{Host: "*", Wildcard: true}, nil
	}
	u, err := parseParty(a.URI)
	return a.held(), u.SIP(), err
}

// ToAddress reads a value as sipgo has it: the display name, as it stands
// between quotes, the URI, and the header's parameters, their names in lower
// case.
func ToAddress(s string) (display string, uri sip.Uri, params sip.HeaderParams, err error) {
	a, err := ParseAddress(s)
	if err != nil {
		return "", sip.Uri{}, nil, err
	}
	uri, err = ToURI(a.URI)
	if err != nil {
		return "", sip.Uri{}, nil, err
	}
	if a.Params != "" {
		params = a.Params.appendTo(nil, true)
	}
	return a.held(), uri, params, nil
}
