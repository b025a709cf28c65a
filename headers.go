package dialog

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// TagGen returns a new tag: 16 hex digits of a cryptographic source (RFC 3261
// 19.3).
func TagGen() string { return randomHex(8) }

func randomHex(n int) string {
	b := make([]byte, n)
	// crypto/rand never fails on the systems Go supports.
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// nameAddr is the part of From and To that stays the same for a dialog's life.
type nameAddr struct {
	// display is escaped as between the quotes of a quoted-string.
	display string
	uri     sip.Uri
}

func (a nameAddr) from(tag string) *sip.FromHeader {
	return &sip.FromHeader{DisplayName: a.display, Address: *a.uri.Clone(), Params: tagParams(tag)}
}

func (a nameAddr) to(tag string) *sip.ToHeader {
	return &sip.ToHeader{DisplayName: a.display, Address: *a.uri.Clone(), Params: tagParams(tag)}
}

// tagParams leaves the tag out when there is none: a peer of RFC 2543 has none
// (RFC 3261 12.2.1.1).
func tagParams(tag string) sip.HeaderParams {
	if tag == "" {
		return nil
	}
	return sip.HeaderParams{{K: "tag", V: tag}}
}

func toTag(msg sip.Message) string {
	if to := msg.To(); to != nil {
		tag, _ := to.Params.Get("tag")
		return tag
	}
	return ""
}

func fromTag(msg sip.Message) string {
	if from := msg.From(); from != nil {
		tag, _ := from.Params.Get("tag")
		return tag
	}
	return ""
}

func callID(msg sip.Message) string {
	if id := msg.CallID(); id != nil {
		return id.Value()
	}
	return ""
}

func cseq(msg sip.Message) uint32 {
	if h := msg.CSeq(); h != nil {
		return h.SeqNo
	}
	return 0
}

// headersNamed returns the headers of that name. GetHeaders of a message does so
// too, and copies every other header's name in lower case each time.
func headersNamed(msg sip.Message, name string) []sip.Header {
	all, ok := msg.(interface{ Headers() []sip.Header })
	if !ok {
		return msg.GetHeaders(name)
	}
	var list []sip.Header
	for _, h := range all.Headers() {
		if n := h.Name(); len(n) == len(name) && strings.EqualFold(n, name) {
			list = append(list, h)
		}
	}
	return list
}

// headerValue returns the value of the first header of that name, or "".
func headerValue(msg sip.Message, name string) string {
	if headers := headersNamed(msg, name); len(headers) > 0 {
		return headers[0].Value()
	}
	return ""
}

// tokens returns the comma-separated values of all headers of that name.
func tokens(msg sip.Message, name string) []string {
	var list []string
	for _, h := range headersNamed(msg, name) {
		for _, token := range strings.Split(h.Value(), ",") {
			if token = strings.TrimSpace(token); token != "" {
				list = append(list, token)
			}
		}
	}
	return list
}

// listed is tokens for values that may have quoted strings and URIs in them.
func listed(msg sip.Message, name string) []string {
	var list []string
	for _, h := range headersNamed(msg, name) {
		list = append(list, splitList(h.Value(), ',')...)
	}
	return list
}

// splitList splits at a separator that stands neither in a quoted-string nor in
// angle brackets. Empty parts are left out.
func splitList(value string, separator byte) []string {
	var list []string
	add := func(part string) {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	quote, angle, begin := false, false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quote && c == '\\':
			i++
		case c == '"' && !angle:
			quote = !quote
		case quote:
		case c == '<' || c == '>':
			angle = c == '<'
		case c == separator && !angle:
			add(value[begin:i])
			begin = i + 1
		}
	}
	add(value[begin:])
	return list
}

// contacts returns the URIs of the Contact headers that can be a target: SIP
// and SIPS URIs (RFC 3261 8.1.1.8, 12.1.1).
func contacts(msg sip.Message) []sip.Uri {
	var uris []sip.Uri
	for _, h := range headersNamed(msg, "Contact") {
		if contact, ok := h.(*sip.ContactHeader); ok && isTarget(contact.Address) {
			uris = append(uris, *contact.Address.Clone())
		}
	}
	return uris
}

func isTarget(uri sip.Uri) bool {
	scheme := strings.ToLower(uri.Scheme)
	return !uri.Wildcard && uri.Host != "" && (scheme == "sip" || scheme == "sips")
}

// recordRoutes returns the URIs of the Record-Route headers, in their order.
func recordRoutes(msg sip.Message) []sip.Uri {
	var uris []sip.Uri
	for _, h := range headersNamed(msg, "Record-Route") {
		if rr, ok := h.(*sip.RecordRouteHeader); ok {
			uris = append(uris, *rr.Address.Clone())
		}
	}
	return uris
}

// isLoose reports whether a route's URI asks for loose routing (RFC 3261
// 16.12).
func isLoose(uri sip.Uri) bool { return uri.UriParams.Has("lr") }

// quoted returns a quoted-string (RFC 3261 25.1).
func quoted(s string) string { return `"` + escapeQuoted(s) + `"` }

// escapeQuoted escapes what goes between the quotes of a quoted-string.
func escapeQuoted(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
}

// unquoted returns what a quoted-string says, and a token as it is.
func unquoted(s string) string {
	if rest, found := strings.CutPrefix(s, `"`); found {
		return unescapeQuoted(rest)
	}
	return s
}

// unescapeQuoted undoes escapeQuoted, up to the closing quote if there is one.
func unescapeQuoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// oneLine keeps a text from ending the header, or start line, that it goes
// into.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}

// setLength leaves one Content-Length, the true one, whatever an application
// has added (RFC 3261 20.14).
func setLength(res *sip.Response) {
	for _, h := range slices.Clone(res.Headers()) {
		if strings.EqualFold(h.Name(), "Content-Length") || strings.EqualFold(h.Name(), "l") {
			res.RemoveHeader(h.Name())
		}
	}
	res.SetBody(res.Body())
}

func retryAfter(seconds int) sip.Header {
	return sip.NewHeader("Retry-After", strconv.Itoa(seconds))
}
