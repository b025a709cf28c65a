// Package sipuri compares URIs, and reads and removes their parameters (RFC 3261 19.1).
package sipuri

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Same compares two SIP URIs by RFC 3261 19.1.4. The relation is not transitive.
func Same(a, b sip.Uri) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) &&
		unescaped(a.User) == unescaped(b.User) && unescaped(a.Password) == unescaped(b.Password) &&
		strings.EqualFold(unescaped(a.Host), unescaped(b.Host)) && a.Port == b.Port &&
		sameParams(a.UriParams, b.UriParams) && sameHeaders(a.Headers, b.Headers)
}

// SameOfAny is Same for URIs of any scheme.
func SameOfAny(a, b sip.Uri) bool { return a.Raw() == b.Raw() && Same(a, b) }

// sameParams compares URI parameters. A parameter that both URIs have must match. Some
// parameters also make the URIs differ if only one has them.
func sameParams(a, b sip.HeaderParams) bool {
	for _, pair := range [][2]sip.HeaderParams{{a, b}, {b, a}} {
		for _, param := range pair[0] {
			other, both := Param(pair[1], param.K)
			switch {
			case both && !strings.EqualFold(unescaped(param.V), unescaped(other)):
				return false
			case !both && isTelling(param.K):
				return false
			}
		}
	}
	return true
}

// isTelling reports whether a parameter that only one URI has makes them differ.
func isTelling(param string) bool {
	switch strings.ToLower(param) {
	case "transport", "user", "ttl", "method", "maddr":
		return true
	}
	return false
}

// sameHeaders compares URI headers: all of them count, their order does not.
func sameHeaders(a, b sip.HeaderParams) bool {
	return slices.Equal(headerPairs(a), headerPairs(b))
}

func headerPairs(headers sip.HeaderParams) []string {
	var pairs []string
	for _, h := range headers {
		pairs = append(pairs, strings.ToLower(h.K)+"="+unescaped(h.V))
	}
	slices.Sort(pairs)
	return pairs
}

// Param returns the value of a parameter. Its name is not case-sensitive.
func Param(params sip.HeaderParams, name string) (value string, found bool) {
	for _, param := range params {
		if strings.EqualFold(param.K, name) {
			return param.V, true
		}
	}
	return "", false
}

// RemoveParam removes all parameters with that name, which is not case-sensitive (RFC 3261
// 7.3.1).
func RemoveParam(params *sip.HeaderParams, name string) {
	*params = slices.DeleteFunc(*params, func(param sip.HeaderKV) bool { return strings.EqualFold(param.K, name) })
}

// UnescapeAll decodes every escape.
func UnescapeAll(s string) string {
	plain, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return plain
}

// unescaped decodes the escapes of characters that have the same meaning without an escape
// (RFC 3261 19.1.4): all that are not reserved (RFC 2396 2.2).
func unescaped(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			code, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			switch {
			case err != nil:
			case strings.IndexByte(";/?:@&=+$,%", byte(code)) < 0:
				b.WriteByte(byte(code))
				i += 2
				continue
			default:
				b.WriteString(strings.ToUpper(s[i : i+3]))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// IsSIPS reports whether a URI requires TLS on each hop (RFC 3261 26.2.2).
func IsSIPS(uri sip.Uri) bool { return strings.EqualFold(uri.Scheme, "sips") }

// IsTarget reports whether a URI can be the target of requests: a SIP or SIPS URI with
// a host (RFC 3261 8.1.1.8, 12.1.1).
func IsTarget(uri sip.Uri) bool {
	return !uri.Wildcard && uri.Host != "" && (strings.EqualFold(uri.Scheme, "sip") || IsSIPS(uri))
}

// IsLoose reports whether the URI of a route asks for loose routing (RFC 3261 16.12).
func IsLoose(uri sip.Uri) bool {
	_, loose := Param(uri.UriParams, "lr")
	return loose
}
