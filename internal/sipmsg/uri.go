package sipmsg

import (
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Errors of the parsers.
var (
	errURI     = errors.New("malformed URI")
	errAddress = errors.New("malformed address")
)

// URI is a view of a URI (RFC 3261 25.1). Of another scheme than sip and sips
// only Scheme and Opaque are set. No part is unescaped.
type URI struct {
	Scheme         string // as it came
	User, Password string
	Host           string // an IPv6 address with its brackets
	Port           int    // 0: none
	Params         Params
	Headers        string // from the question mark on
	Opaque         string // the text after another scheme
	slashes        bool   // "//" before the rest
}

// IsSIP reports whether the scheme is sip or sips.
func (u *URI) IsSIP() bool { return EqualFold(u.Scheme, "sip") || EqualFold(u.Scheme, "sips") }

// ParseURI reads a URI. It is lenient where the parts can be separated anyway: in the
// characters of user, host and parameters, and with quotes around the value of a parameter.
func ParseURI(s string) (URI, error) {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || rest == "" || !isScheme(scheme) {
		return URI{}, errURI
	}
	u := URI{Scheme: scheme}
	if !u.IsSIP() {
		u.Opaque = rest
		if !isPlain(rest) {
			return u, errURI
		}
		return u, nil
	}
	if after, found := strings.CutPrefix(rest, "//"); found && !beginsUserinfo(after) {
		rest, u.slashes = after, true
	}
	rest = u.cutUser(rest)
	rest, err := u.cutHost(rest)
	if err != nil {
		return u, err
	}
	return u, u.cutParams(rest)
}

// beginsUserinfo reports whether the slashes before rest are all of a user: they may
// stand in one (RFC 3261 25.1).
func beginsUserinfo(rest string) bool { return rest != "" && (rest[0] == '@' || rest[0] == ':') }

// isScheme as in RFC 3986 3.1.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isLetter(c) && (i == 0 || !isDigit(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// cutUser takes userinfo off. Nothing behind it has an at-sign by the grammar;
// one that follows what no userinfo has belongs to a parameter all the same.
func (u *URI) cutUser(s string) (rest string) {
	at := strings.IndexByte(s, '@')
	if at < 0 || strings.IndexByte(s[:at], '[') >= 0 {
		return s
	}
	if at == 0 && strings.IndexByte(s[1:], '@') >= 0 {
		return s // sipgo writes no empty user, and another one would be read then
	}
	user, password, found := strings.Cut(s[:at], ":")
	if !isPlain(user) || !isPlain(password) || strings.ContainsAny(password, ";?/:") || found && user == "" {
		return s
	}
	if found && password == "" {
		user += ":" // is written as it came
	}
	u.User, u.Password = user, password
	return s[at+1:]
}

func (u *URI) cutHost(s string) (rest string, err error) {
	end := 0
	if strings.HasPrefix(s, "[") {
		end = strings.IndexByte(s, ']') + 1
	} else {
		for end < len(s) && isHostChar(s[end]) {
			end++
		}
	}
	u.Host, s = s[:end], s[end:]
	if u.Host == "" {
		return "", errURI
	}
	if s == "" || s[0] != ':' {
		return s, nil
	}
	u.Port, s, err = cutPort(s[1:])
	return s, err
}

// isHostChar is lenient with names: some have underscores, or UTF-8.
func isHostChar(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '-' || c == '.' || c == '_' || c == '~' || c == '%' || c == '*' || c >= 0x80
}

// cutPort takes digits off. There must be some.
func cutPort(s string) (port int, rest string, err error) {
	end := 0
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	n, err := strconv.ParseUint(s[:end], 10, 16)
	return int(n), s[end:], err
}

// cutParams takes parameters and headers: all the rest, which is theirs.
func (u *URI) cutParams(s string) error {
	end := 0
	for end < len(s) && s[end] != '?' {
		if s[end] == '"' {
			if end = quotedEnd(s, end) - 1; end < 0 {
				return errURI
			}
		}
		end++
	}
	u.Params, u.Headers = Params(s[:end]), s[end:]
	switch {
	case u.Params != "" && u.Params[0] != ';', !isPlain(u.Headers), strings.Count(u.Headers, "&") > maxParams:
		return errURI
	case !u.Params.Valid():
		return errURI
	}
	return nil
}

// SIP returns the URI as sipgo has it. It shares its strings. Parameter names
// are as they came.
func (u *URI) SIP() sip.Uri {
	uri := u.bare()
	if u.Params != "" && u.IsSIP() {
		uri.UriParams = u.Params.appendTo(nil, false)
	}
	return uri
}

// bare is SIP without the parameters.
func (u *URI) bare() sip.Uri {
	if !u.IsSIP() {
		return foreign(u)
	}
	uri := sip.Uri{
		Scheme: toLower(u.Scheme), HierarhicalSlashes: u.slashes,
		User: u.User, Password: u.Password, Host: u.Host, Port: u.Port, Wildcard: u.Host == "*",
	}
	if u.Headers != "" {
		uri.Headers = headerParams(u.Headers)
	}
	return uri
}

// foreign is a URI that is not read any further. A scheme with digits or
// punctuation sipgo does not take: all that follows it is the host then.
func foreign(u *URI) (uri sip.Uri) {
	scheme := toLower(u.Scheme)
	if err := sip.ParseUri(scheme+":"+u.Opaque, &uri); err == nil {
		return uri
	}
	return sip.Uri{Scheme: scheme, Host: u.Opaque}
}

// parseParty reads the URI of a From or To, which nothing is sent to: also one
// that is malformed is copied, if only its end can be found.
func parseParty(s string) (URI, error) {
	u, err := ParseURI(s)
	if err == nil {
		return u, nil
	}
	scheme, rest, _ := strings.Cut(s, ":")
	if !isScheme(scheme) || rest == "" || !isPlain(rest) {
		return URI{}, errURI
	}
	return URI{Scheme: scheme, Host: rest}, nil
}

// headerParams are the headers in a URI (RFC 3261 19.1.1).
func headerParams(s string) (list sip.HeaderParams) {
	for more := true; more; {
		var part string
		part, s, more = strings.Cut(strings.TrimPrefix(s, "?"), "&")
		name, value, _ := strings.Cut(part, "=")
		list = append(list, sip.HeaderKV{K: name, V: value})
	}
	return list
}

// ToURI reads a URI as sipgo has it, or the star of a Contact.
func ToURI(s string) (sip.Uri, error) {
	if s == "*" {
		return sip.Uri{Host: "*", Wildcard: true}, nil
	}
	u, err := ParseURI(s)
	if err != nil {
		return sip.Uri{}, err
	}
	return u.SIP(), nil
}
