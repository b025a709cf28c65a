package transport

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// headerParsers is the layer's own table by lower-case name. The parser's
// global one is copied, not changed.
func headerParsers() map[string]sip.HeaderParser {
	table := maps.Clone(sip.DefaultHeadersParser())
	// Compact names the parser's own table does not know (RFC 3261 7.3.3 and
	// the IANA registry of header fields).
	for short, long := range map[string]string{
		"k": "Supported", "x": "Session-Expires", "o": "Event", "u": "Allow-Events",
		"e": "Content-Encoding", "s": "Subject", "a": "Accept-Contact", "j": "Reject-Contact",
		"d": "Request-Disposition", "y": "Identity", "n": "Identity-Info",
	} {
		table[short] = func(_ []byte, value string) (sip.Header, error) {
			return sip.NewHeader(long, value), nil
		}
	}
	via := checkedVia(table["via"])
	from, to := table["from"], table["to"]
	table["via"], table["v"] = via, via
	table["from"] = lowerParams(from)
	table["f"] = table["from"]
	table["to"] = lowerParams(to)
	table["t"] = table["to"]
	table["cseq"] = trimmedCSeq(table["cseq"])
	table["refer-to"] = lenient("Refer-To", table["refer-to"])
	table["r"] = table["refer-to"]
	table["referred-by"] = lenient("Referred-By", table["referred-by"])
	table["b"] = table["referred-by"]
	return table
}

// lenient keeps what does not parse as a plain header: whoever needs it
// decides. It is not necessary for processing every request (RFC 3261 8.2.2).
func lenient(name string, parse sip.HeaderParser) sip.HeaderParser {
	return func(key []byte, value string) (sip.Header, error) {
		h, err := parse(key, value)
		if err != nil {
			return sip.NewHeader(name, value), nil
		}
		return h, nil
	}
}

// checkedVia refuses the sent-by that the parser gives up on silently, losing
// the branch.
func checkedVia(parse sip.HeaderParser) sip.HeaderParser {
	return func(key []byte, value string) (sip.Header, error) {
		h, err := parse(key, value)
		if err != nil {
			return nil, err
		}
		via, ok := h.(*sip.ViaHeader)
		if !ok || via.Host == "" || via.Port < 0 || via.Port > math.MaxUint16 {
			return nil, errors.New("malformed sent-by")
		}
		if ip, err := netip.ParseAddr(via.Host); err == nil && ip.Is4In6() {
			via.Host = "[" + via.Host + "]" // the serialiser takes it for IPv4
		}
		lowerNames(via.Params)
		return via, nil
	}
}

func lowerParams(parse sip.HeaderParser) sip.HeaderParser {
	return func(key []byte, value string) (sip.Header, error) {
		h, err := parse(key, value)
		if err != nil {
			return nil, err
		}
		switch h := h.(type) {
		case *sip.FromHeader:
			lowerNames(h.Params)
		case *sip.ToHeader:
			lowerNames(h.Params)
		}
		return h, nil
	}
}

// lowerNames makes parameters findable: their names are not case-sensitive
// (RFC 3261 7.3.1), the parser's look-up is.
func lowerNames(params sip.HeaderParams) {
	for i, kv := range params {
		params[i].K = strings.ToLower(strings.Trim(kv.K, lws))
	}
}

// trimmedCSeq allows any white space between number and method (RFC 3261 25.1).
func trimmedCSeq(parse sip.HeaderParser) sip.HeaderParser {
	return func(key []byte, value string) (sip.Header, error) {
		number, method, _ := strings.Cut(strings.ReplaceAll(value, "\t", " "), " ")
		return parse(key, number+" "+strings.Trim(method, lws))
	}
}

// listed says whether a header field's values may be one comma-separated list
// of addresses or hops (RFC 3261 7.3.1).
func listed(name []byte) bool {
	switch string(name) {
	case "via", "v", "contact", "m", "route", "record-route":
		return true
	}
	return false
}

// once names the header fields that occur at most once, and without which no
// dialog or transaction can be told; a bit each. The others are 0.
func once(name []byte) uint8 {
	switch string(name) {
	case "from", "f":
		return 1
	case "to", "t":
		return 2
	case "call-id", "i":
		return 4
	case "cseq":
		return 8
	case "max-forwards":
		return 16
	}
	return 0
}

// splitList cuts value at commas outside quotes and angle brackets.
func splitList(value []byte, each func(part []byte)) {
	start, quoted, angle := 0, false, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !angle:
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			each(bytes.Trim(value[start:i], lws))
			start = i + 1
		}
	}
	each(bytes.Trim(value[start:], lws))
}

// squeeze removes the white space that RFC 3261 25.1 allows around separators,
// and that the parser would take for part of a name or value; other runs
// become one space. Quotes and angle brackets are kept as they are. It appends
// to dst.
func squeeze(dst, value []byte, separators string) []byte {
	quoted, angle, space := false, false, false
	last := byte(0)
	for i := 0; i < len(value); i++ {
		c := value[i]
		if !quoted && !angle && isSpace(c) {
			space = true
			continue
		}
		free := !quoted && !angle
		if space && strings.IndexByte(separators, c) < 0 && strings.IndexByte(separators, last) < 0 {
			dst = append(dst, ' ')
		}
		space = false
		switch {
		case quoted && c == '\\' && i+1 < len(value):
			dst = append(dst, c)
			i++
			c = value[i]
		case c == '"' && !angle:
			quoted = !quoted
		case c == '<' && free:
			angle = true
		case c == '>' && angle:
			angle = false
		}
		dst = append(dst, c)
		last = c
	}
	return dst
}

// loose says whether value has white space that squeeze would remove.
func loose(value []byte, separators string) bool {
	first := bytes.IndexAny(value, lws)
	if first < 0 {
		return false
	}
	for i := first; i < len(value); i++ {
		if !isSpace(value[i]) || i == 0 || i+1 == len(value) {
			continue
		}
		before, after := value[i-1], value[i+1]
		if isSpace(after) || strings.IndexByte(separators, before) >= 0 || strings.IndexByte(separators, after) >= 0 {
			return true
		}
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// separatorsOf are the separators of a header field with parameters, or "".
func separatorsOf(name []byte) string {
	switch string(name) {
	case "via", "v":
		return "/:;=,"
	case "from", "f", "to", "t", "contact", "m", "route", "record-route":
		return ";=,"
	}
	return ""
}
