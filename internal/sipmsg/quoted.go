package sipmsg

import "strings"

// quotedEnd returns the index after the quoted-string that begins at s[i], or
// -1 when it does not end.
func quotedEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// angleEnd returns the index after the '>' that belongs to the '<' at s[i], or
// -1 without one. A URI has no quotes by the grammar, but some peers send them
// in its parameters: they hide a '>' if another one follows.
func angleEnd(s string, i int) int {
	last, closed := strings.LastIndexByte(s, '>'), true
	for i++; i <= last; i++ {
		switch {
		case s[i] == '>':
			return i + 1
		case s[i] == '"' && closed:
			end := quotedEnd(s, i)
			if closed = end > 0 && end <= last; closed {
				i = end - 1
			}
		}
	}
	return -1
}

// Quote returns s as a quoted-string.
func Quote(s string) string { return `"` + Escape(s) + `"` }

// Escape returns s as it is written between the quotes of a quoted-string.
func Escape(s string) string {
	if !strings.ContainsAny(s, `\"`) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '\\' || s[i] == '"' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Unquote returns the text of a quoted-string, and any other value as it is.
func Unquote(s string) string {
	if s == "" || s[0] != '"' {
		return s
	}
	return Unescape(s[1:])
}

// Unescape undoes Escape, up to the closing quote if there is one.
func Unescape(s string) string {
	if end := strings.IndexAny(s, `\"`); end < 0 {
		return s
	} else if s[end] == '"' {
		return s[:end]
	}
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
