package dialog

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
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

func (a nameAddr) same(b nameAddr) bool { return a.display == b.display && sameAddress(a.uri, b.uri) }

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

// Headers are read by their name, whatever their Go type: the parser makes typed ones
// of those it knows, and messages made by hand may have plain ones of any name.

func toTag(msg sip.Message) string   { return tagOf(msg, "To") }
func fromTag(msg sip.Message) string { return tagOf(msg, "From") }

func tagOf(msg sip.Message, name string) string {
	var params sip.HeaderParams
	switch h := firstHeader(msg, name).(type) {
	case *sip.FromHeader:
		params = h.Params
	case *sip.ToHeader:
		params = h.Params
	default:
		params = addressIn(msg, name).params
	}
	tag, _ := findParam(params, "tag")
	return tag
}

func callID(msg sip.Message) string { return headerValue(msg, "Call-ID") }

// cseq returns the number of the CSeq; zero when there is none.
func cseq(msg sip.Message) uint32 {
	number, _ := cseqIn(msg)
	return number
}

func cseqIn(msg sip.Message) (number uint32, method sip.RequestMethod) {
	switch h := firstHeader(msg, "CSeq").(type) {
	case nil:
		return 0, ""
	case *sip.CSeqHeader:
		return h.SeqNo, h.MethodName
	default:
		fields := strings.Fields(h.Value())
		if len(fields) != 2 {
			return 0, ""
		}
		n, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return 0, ""
		}
		return uint32(n), sip.RequestMethod(fields[1])
	}
}

// cseqValue is the CSeq as it stands in a header, such as "2 REFER"; empty when there
// is none that can be read.
func cseqValue(msg sip.Message) string {
	number, method := cseqIn(msg)
	if method == "" {
		return ""
	}
	return strconv.FormatUint(uint64(number), 10) + " " + string(method)
}

// nameAddrIn returns who From or To names.
func nameAddrIn(msg sip.Message, name string) nameAddr {
	a := addressIn(msg, name)
	return nameAddr{display: a.display, uri: a.uri}
}

// address is a name-addr or addr-spec with header parameters.
type address struct {
	nameAddr
	params sip.HeaderParams
}

// addressIn returns what the first header of that name says; the zero value when
// there is none that can be read. It shares nothing with the message.
func addressIn(msg sip.Message, name string) address {
	h := firstHeader(msg, name)
	if h == nil {
		return address{}
	}
	if a, ok := typedAddress(h); ok {
		return a
	}
	list := appendAddresses(nil, h)
	if len(list) == 0 {
		return address{}
	}
	return list[0]
}

// addressesIn returns what all headers of that name say; what cannot be read is
// left out.
func addressesIn(msg sip.Message, name string) []address {
	var list []address
	for h := range named(msg, name) {
		list = appendAddresses(list, h)
	}
	return list
}

// typedAddress is what a header of sipgo's says that has one address.
func typedAddress(header sip.Header) (a address, ok bool) {
	switch h := header.(type) {
	case *sip.FromHeader:
		return ownAddress(h.DisplayName, &h.Address, h.Params), true
	case *sip.ToHeader:
		return ownAddress(h.DisplayName, &h.Address, h.Params), true
	case *sip.ContactHeader:
		return ownAddress(h.DisplayName, &h.Address, h.Params), true
	case *sip.RouteHeader:
		return ownAddress("", &h.Address, nil), true
	case *sip.RecordRouteHeader:
		return ownAddress("", &h.Address, nil), true
	case *sip.ReferToHeader:
		return ownAddress("", &h.Address, nil), true
	}
	return address{}, false
}

func ownAddress(display string, uri *sip.Uri, params sip.HeaderParams) address {
	return address{nameAddr{display, ownURI(uri)}, slices.Clone(params)}
}

// ownURI is uri.Clone, but for the memory that takes.
func ownURI(uri *sip.Uri) sip.Uri {
	own := *uri
	own.UriParams, own.Headers = slices.Clone(uri.UriParams), slices.Clone(uri.Headers)
	return own
}

func appendAddresses(list []address, header sip.Header) []address {
	if a, ok := typedAddress(header); ok {
		return append(list, a)
	}
	for _, value := range sipmsg.Split(header.Value(), ',') {
		if display, uri, params, err := sipmsg.ToAddress(value); err == nil {
			list = append(list, address{nameAddr{display, uri}, params})
		}
	}
	return list
}

// typed returns a copy of a request whose headers of those names that this package
// changes before they leave have the types to do so.
//
// Errors: ErrInvalidArgument (one that every request has cannot be read).
func typed(req *sip.Request) (*sip.Request, error) {
	own := sip.NewRequest(req.Method, *req.Recipient.Clone())
	for _, h := range req.Headers() {
		if isNamed(h, "Via") || isNamed(h, "Content-Length") {
			continue // what sends it knows better
		}
		for _, header := range typedHeaders(h) {
			own.AppendHeader(header)
		}
	}
	own.SetBody(req.Body())
	for name, readable := range map[string]bool{
		"From": own.From() != nil, "To": own.To() != nil, "Call-ID": own.CallID() != nil,
		"CSeq": own.CSeq() != nil && own.CSeq().MethodName == own.Method,
	} {
		if !readable && firstHeader(own, name) != nil {
			return nil, fmt.Errorf("%w: %s %q", ErrInvalidArgument, name, headerValue(own, name))
		}
	}
	return own, nil
}

// typedHeaders returns a header as the type of its name, a list as several; what
// cannot be read stays as it is.
func typedHeaders(h sip.Header) []sip.Header {
	switch h.(type) {
	case *sip.FromHeader, *sip.ToHeader, *sip.CallIDHeader, *sip.CSeqHeader, *sip.ContactHeader, *sip.RouteHeader:
		return []sip.Header{sip.HeaderClone(h)}
	}
	for _, name := range []string{"From", "To", "Call-ID", "CSeq", "Contact", "Route"} {
		if isNamed(h, name) {
			return sipmsg.Typed(name, h.Value())
		}
	}
	return []sip.Header{sip.HeaderClone(h)}
}

// isNamed reports whether a header has that name, or its compact form (RFC 3261
// 7.3.3).
func isNamed(h sip.Header, name string) bool { return sipmsg.SameName(h.Name(), name) }

// named are the headers of that name. GetHeaders of a message does so
// too, but for compact forms, and copies every other header's name in lower case each
// time.
func named(msg sip.Message, name string) iter.Seq[sip.Header] {
	return func(yield func(sip.Header) bool) {
		for _, h := range headersIn(msg) {
			if isNamed(h, name) && !yield(h) {
				return
			}
		}
	}
}

// headersNamed returns a list of them.
func headersNamed(msg sip.Message, name string) []sip.Header { return slices.Collect(named(msg, name)) }

// firstHeader returns the first header of that name, or nil.
func firstHeader(msg sip.Message, name string) sip.Header {
	for _, h := range headersIn(msg) {
		if isNamed(h, name) {
			return h
		}
	}
	return nil
}

// isAlone reports whether there is one header of that name.
func isAlone(msg sip.Message, name string) bool {
	n := 0
	for range named(msg, name) {
		n++
	}
	return n == 1
}

// headersIn returns all headers of a message, in their order.
func headersIn(msg sip.Message) []sip.Header {
	switch m := msg.(type) {
	case *sip.Request:
		return m.Headers()
	case *sip.Response:
		return m.Headers()
	}
	return nil
}

// removeHeaders removes all headers of that name.
func removeHeaders(msg interface {
	sip.Message
	RemoveHeader(name string) bool
}, name string) {
	for h := firstHeader(msg, name); h != nil && msg.RemoveHeader(h.Name()); {
		h = firstHeader(msg, name)
	}
}

// headerValue returns the value of the first header of that name, or "".
func headerValue(msg sip.Message, name string) string {
	if h := firstHeader(msg, name); h != nil {
		return h.Value()
	}
	return ""
}

// listed returns the comma-separated values of all headers of that name.
func listed(msg sip.Message, name string) []string {
	var list []string
	for h := range named(msg, name) {
		list = append(list, sipmsg.Split(h.Value(), ',')...)
	}
	return list
}

// lists reports whether the headers of that name, lists of tokens, have this one (RFC
// 3261 7.3.1).
func lists(msg sip.Message, name, token string) bool {
	for h := range named(msg, name) {
		if sipmsg.Contains(h.Value(), token) {
			return true
		}
	}
	return false
}

func containsFold(list []string, want string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, want) })
}

// contacts returns the URIs of the Contact headers that can be a target: SIP
// and SIPS URIs (RFC 3261 8.1.1.8, 12.1.1).
func contacts(msg sip.Message) []sip.Uri {
	var uris []sip.Uri
	for h := range named(msg, "Contact") {
		if a, ok := typedAddress(h); ok {
			uris = appendTarget(uris, a)
			continue
		}
		for _, a := range appendAddresses(nil, h) {
			uris = appendTarget(uris, a)
		}
	}
	return uris
}

func appendTarget(uris []sip.Uri, a address) []sip.Uri {
	if isTarget(a.uri) {
		return append(uris, a.uri)
	}
	return uris
}

// countContacts counts the Contacts of a message, what cannot be read included.
func countContacts(msg sip.Message) (n int) {
	for h := range named(msg, "Contact") {
		if _, one := h.(*sip.ContactHeader); one {
			n++
			continue
		}
		n += len(sipmsg.Split(h.Value(), ','))
	}
	return n
}

func isTarget(uri sip.Uri) bool {
	scheme := strings.ToLower(uri.Scheme)
	return !uri.Wildcard && uri.Host != "" && (scheme == "sip" || scheme == "sips")
}

// readsRoutes reports whether all of a message's Record-Routes can be read: else
// nobody knows by which way its peer is reached.
func readsRoutes(msg sip.Message) bool {
	for h := range named(msg, "Record-Route") {
		if _, typed := h.(*sip.RecordRouteHeader); !typed && len(appendAddresses(nil, h)) != len(sipmsg.Split(h.Value(), ',')) {
			return false
		}
	}
	return true
}

// recordRoutes returns the URIs of the Record-Route headers, in their order.
func recordRoutes(msg sip.Message) []sip.Uri {
	var uris []sip.Uri
	for _, route := range addressesIn(msg, "Record-Route") {
		uris = append(uris, route.uri)
	}
	return uris
}

// isLoose reports whether a route's URI asks for loose routing (RFC 3261
// 16.12).
func isLoose(uri sip.Uri) bool {
	_, loose := findParam(uri.UriParams, "lr")
	return loose
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
	removeHeaders(res, "Content-Length")
	length := sip.ContentLengthHeader(len(res.Body()))
	res.AppendHeader(&length)
}

func retryAfter(seconds int) sip.Header {
	return sip.NewHeader("Retry-After", strconv.Itoa(seconds))
}
