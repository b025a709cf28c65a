package sipmsg

import (
	"iter"
	"strconv"
	"strings"
	"time"
)

// CutParams returns the part of a header value before its parameters, without white
// space around it, and the parameters: for a value that begins with a token, a
// number, a media type or a Call-ID, in which quotes and brackets mean nothing. For
// an address there is [ParseAddress].
func CutParams(value string) (bare string, params Params) {
	if at := strings.IndexByte(value, ';'); at >= 0 {
		return trim(value[:at]), Params(value[at:])
	}
	return trim(value), ""
}

// Bare returns the part of a header value before its parameters: see [CutParams].
func Bare(value string) string {
	bare, _ := CutParams(value)
	return bare
}

// Text returns the value of the first parameter of that name, a quoted-string without
// its quotes and escapes; empty without one.
func (p Params) Text(name string) string {
	value, _ := p.Get(name)
	return Unquote(value)
}

// All are the parameters, in their order; those without a name are left out.
func (p Params) All() iter.Seq[Param] {
	return func(yield func(Param) bool) {
		for {
			first, rest, ok := p.Next()
			if !ok || first.Name != "" && !yield(first) {
				return
			}
			p = rest
		}
	}
}

// Seconds reads delta-seconds (RFC 3261 25.1). It is zero, and ok is false, for a text that
// is not a number, and for more than 2^32-1 (RFC 3261 20.19).
func Seconds(text string) (d time.Duration, ok bool) {
	if text == "" {
		return 0, false // ParseUint would make an error
	}
	seconds, err := strconv.ParseUint(trim(text), 10, 32)
	if err != nil {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}

// FormatSeconds writes delta-seconds; a fraction of a second is left out.
func FormatSeconds(d time.Duration) string {
	return strconv.FormatInt(int64(d/time.Second), 10)
}

// Contains reports whether a list separated by commas has that token, in any case
// (RFC 3261 7.3.1).
func Contains(list, token string) bool {
	for more := true; more; {
		var value string
		if value, list, more = Cut(list, ','); EqualFold(value, token) {
			return true
		}
	}
	return false
}
