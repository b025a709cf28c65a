package draft

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// clean replaces what would end a line. All other octets may be in a quoted string (RFC
// 3261 25.1).
func clean(b []byte) {
	for i, c := range b {
		if c == '\r' || c == '\n' {
			b[i] = ' '
		}
	}
}

// appendURI appends a URI as sipgo writes it, and makes no string of it.
func appendURI(b []byte, uri *sip.Uri) []byte {
	from := len(b)
	b = appendRaw(b, uri)
	clean(b[from:])
	return b
}

func appendRaw(b []byte, uri *sip.Uri) []byte {
	scheme := uri.Scheme
	if scheme == "" {
		scheme = "sip"
	}
	b = append(append(b, scheme...), ':')
	if raw := uri.Raw(); raw != "" {
		return append(b, raw...)
	}
	if uri.HierarhicalSlashes {
		b = append(b, "//"...)
	}
	if uri.User != "" {
		b = append(b, uri.User...)
		if uri.Password != "" {
			b = append(append(b, ':'), uri.Password...)
		}
		b = append(b, '@')
	}
	b = appendHost(b, uri.Host)
	if uri.Port > 0 {
		b = strconv.AppendInt(append(b, ':'), int64(uri.Port), 10)
	}
	b = appendParams(b, ';', ';', uri.UriParams)
	return appendParams(b, '?', '&', uri.Headers)
}

// appendHost puts an IPv6 address into brackets.
func appendHost(b []byte, host string) []byte {
	if strings.IndexByte(host, ':') >= 0 {
		if _, err := netip.ParseAddr(host); err == nil {
			return append(append(append(b, '['), host...), ']')
		}
	}
	return append(b, host...)
}

func appendParams(b []byte, first, sep byte, params sip.HeaderParams) []byte {
	for i, param := range params {
		if i > 0 {
			first = sep
		}
		b = append(append(b, first), param.K...)
		switch {
		case param.V == "":
		case strings.ContainsAny(param.V, " \t"):
			b = append(append(append(b, `="`...), param.V...), '"')
		default:
			b = append(append(b, '='), param.V...)
		}
	}
	return b
}

// appendDisplay appends a display name and a space, if there is a name.
func appendDisplay(b []byte, display string) []byte {
	if display == "" {
		return b
	}
	from := len(b)
	b = append(append(append(b, '"'), display...), `" `...)
	clean(b[from:])
	return b
}
