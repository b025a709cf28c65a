package siptext

import (
	"math/rand/v2"
	"strings"
)

// source makes the random choices of a message.
type source struct{ *rand.Rand }

func (s source) chance(percent int) bool { return s.IntN(100) < percent }

func (s source) between(low, high int) int { return low + s.IntN(high-low+1) }

func (s source) pick(list ...string) string { return list[s.IntN(len(list))] }

// chars returns between low and high octets of set.
func (s source) chars(set string, low, high int) string {
	b := make([]byte, s.between(low, high))
	for i := range b {
		b[i] = set[s.IntN(len(set))]
	}
	return string(b)
}

// repeat returns between low and high strings that f makes.
func (s source) repeat(low, high int, f func() string) string {
	var b strings.Builder
	for range s.between(low, high) {
		b.WriteString(f())
	}
	return b.String()
}

// The character sets of RFC 3261 25.1.
const (
	digits     = "0123456789"
	letters    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	alphanum   = letters + digits
	hexDigits  = "0123456789abcdefABCDEF"
	tokenChars = alphanum + "-.!%*_+`'~"
	wordChars  = tokenChars + `()<>:\"/[]?{}`
	unreserved = alphanum + "-_.!~*'()"
	reserved   = ";/?:@&=+$,"
)

func (s source) token() string { return s.chars(tokenChars, 1, 10) }
func (s source) word() string  { return s.chars(wordChars, 1, 10) }

// escaped returns "%" HEXDIG HEXDIG.
func (s source) escaped() string { return "%" + s.chars(hexDigits, 2, 2) }

// lws returns LWS, mostly one space. sws returns SWS, mostly nothing.
func (s source) lws() string {
	if s.chance(70) {
		return " "
	}
	return s.pick("\t", "  ", " \t ", "\r\n ", "\r\n\t", " \r\n  ", "\t \r\n\t ")
}

func (s source) sws() string {
	if s.chance(85) {
		return ""
	}
	return s.lws()
}

// around returns a separator with white space, as SLASH, EQUAL, SEMI, COMMA and COLON
// may have it.
func (s source) around(separator string) string { return s.sws() + separator + s.sws() }

// cased returns a literal in any case, as literals are not case-sensitive.
func (s source) cased(literal string) string {
	switch s.IntN(6) {
	case 0:
		return strings.ToUpper(literal)
	case 1:
		return strings.ToLower(literal)
	case 2:
		return strings.Map(func(c rune) rune {
			if s.chance(50) && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
				return c ^ 0x20
			}
			return c
		}, literal)
	}
	return literal
}

// utf8NonASCII returns UTF8-NONASCII, which has more values than Unicode.
func (s source) utf8NonASCII() string {
	var lead, rest int
	switch s.IntN(5) {
	case 0:
		lead, rest = s.between(0xC0, 0xDF), 1
	case 1:
		lead, rest = s.between(0xE0, 0xEF), 2
	case 2:
		lead, rest = s.between(0xF0, 0xF7), 3
	case 3:
		lead, rest = s.between(0xF8, 0xFB), 4
	default:
		lead, rest = s.between(0xFC, 0xFD), 5
	}
	b := []byte{byte(lead)}
	for range rest {
		b = append(b, s.utf8Cont()...)
	}
	return string(b)
}

func (s source) utf8Cont() string { return string([]byte{byte(s.between(0x80, 0xBF))}) }

// quoted returns a quoted-string with every permitted octet, and with texts that a
// parser may take for its end.
func (s source) quoted() string {
	return `"` + s.repeat(0, 8, func() string {
		switch s.IntN(8) {
		case 0:
			return s.lws()
		case 1:
			return s.utf8NonASCII()
		case 2, 3:
			return s.quotedPair()
		case 4:
			return s.pick(";tag=evil", ",", "<sip:x@y>", `\"`, `\\`, ">", "<", "?", ";branch=z9hG4bKevil", "@", "=", "%", ";lr")
		}
		for {
			if c := byte(s.between(0x21, 0x7E)); c != '"' && c != '\\' {
				return string([]byte{c})
			}
		}
	}) + `"`
}

// quotedPair returns "\" with any octet of ASCII but CR and LF.
func (s source) quotedPair() string {
	for {
		if c := byte(s.between(0, 0x7F)); c != '\r' && c != '\n' {
			return string([]byte{'\\', c})
		}
	}
}

// textUTF8 returns TEXT-UTF8-TRIM or nothing.
func (s source) textUTF8() string {
	return s.repeat(0, 6, func() string {
		if s.chance(20) {
			return s.utf8NonASCII()
		}
		return string([]byte{byte(s.between(0x21, 0x7E))}) + s.sws()
	})
}

// headerValue returns the value of an unknown extension-header.
func (s source) headerValue() string {
	return s.repeat(0, 8, func() string {
		switch s.IntN(6) {
		case 0:
			return s.utf8NonASCII()
		case 1:
			return s.utf8Cont()
		case 2:
			return s.lws()
		}
		return string([]byte{byte(s.between(0x21, 0x7E))})
	})
}

// comment returns a comment, which may contain others.
func (s source) comment() string {
	return "(" + s.repeat(0, 5, func() string {
		switch s.IntN(6) {
		case 0:
			return s.quotedPair()
		case 1:
			return s.utf8NonASCII()
		case 2:
			return "(" + s.token() + ")"
		case 3:
			return s.lws()
		}
		return s.pick("a", "!", ";", ",", "\"", "=", "'", "[", "~")
	}) + ")"
}

// list returns one to most strings that f makes, separated by COMMAs.
func (s source) list(most int, f func() string) string {
	text := f()
	for range s.IntN(most) {
		text += s.around(",") + f()
	}
	return text
}
