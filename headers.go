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
	"sipdialog.example/dialog/internal/sipuri"
)

// TagGen returns a new tag: 16 hex digits from a cryptographic source (RFC 3261 19.3).
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

func (a nameAddr) same(b nameAddr) bool {
	return a.display == b.display && sipuri.SameOfAny(a.uri, b.uri)
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

// message has header fields: it is a [sipmsg.Message], which is a request as it was
// received, or a message in sipgo's structs. The functions of this file read both. They
// make no structs for the fields that nearly every call needs.
type message interface{ Body() []byte }

// Headers are read by their name, whatever their Go type: the parser makes typed ones
// of those it knows, and messages made by hand may have plain ones of any name.

func toTag(msg message) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.ToTag
	}
	return tagOf(msg, "To")
}

func fromTag(msg message) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.FromTag
	}
	return tagOf(msg, "From")
}

func tagOf(msg message, name string) string {
	var params sip.HeaderParams
	switch h := firstHeader(msg, name).(type) {
	case *sip.FromHeader:
		params = h.Params
	case *sip.ToHeader:
		params = h.Params
	default:
		params = addressIn(msg, name).params
	}
	tag, _ := sipuri.Param(params, "tag")
	return tag
}

func callID(msg message) string { return headerValue(msg, "Call-ID") }

// cseq returns the number of the CSeq; zero when there is none.
func cseq(msg message) uint32 {
	number, _ := cseqIn(msg)
	return number
}

func cseqIn(msg message) (number uint32, method sip.RequestMethod) {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.CSeq, m.CSeqMethod
	}
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
func cseqValue(msg message) string {
	number, method := cseqIn(msg)
	if method == "" {
		return ""
	}
	return strconv.FormatUint(uint64(number), 10) + " " + string(method)
}

// nameAddrIn returns the party in From or To.
func nameAddrIn(msg message, name string) nameAddr {
	if m, ok := msg.(*sipmsg.Message); ok {
		return partyIn(m, name).nameAddr()
	}
	a := addressIn(msg, name)
	return nameAddr{display: a.display, uri: a.uri}
}

// party is the party in From or To, kept as long as a call lasts: the value of the header
// as it was received, or a party that is known otherwise. The latter is not changed.
type party struct {
	text  string
	known *nameAddr
}

func (p party) uriText() string {
	uri := p.nameAddr().uri
	return uri.String()
}

func (a nameAddr) party() party { return party{known: &a} }

// partyIn returns the party in From or To of a request. It shares the request's text.
func partyIn(m *sipmsg.Message, name string) party {
	value, _ := m.Value(name)
	return party{text: value}
}

func (p party) nameAddr() nameAddr {
	if p.known != nil {
		return *p.known
	}
	display, uri, err := sipmsg.ToParty(p.text)
	if err != nil {
		return nameAddr{}
	}
	return nameAddr{display, uri}
}

// address is a name-addr or addr-spec with header parameters.
type address struct {
	nameAddr
	params sip.HeaderParams
}

// addressIn returns the address in the first header of that name; the zero value if there
// is none that can be read. It shares nothing with the message.
func addressIn(msg message, name string) address {
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

// addressesIn returns the addresses in all headers of that name. It leaves out unreadable
// ones.
func addressesIn(msg message, name string) []address {
	var list []address
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) { list = appendAddress(list, value) })
		return list
	}
	for h := range named(msg, name) {
		list = appendAddresses(list, h)
	}
	return list
}

// typedAddress returns the address in a header type of sipgo that has one address.
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
		list = appendAddress(list, value)
	}
	return list
}

// appendAddress appends the address of one value, if it can be read.
func appendAddress(list []address, value string) []address {
	display, uri, params, err := sipmsg.ToAddress(value)
	if err != nil {
		return list
	}
	return append(list, address{nameAddr{display, uri}, params})
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

// typedHeaders returns a header in the type of its name, a list as several headers. An
// unreadable value is not changed.
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
func named(msg message, name string) iter.Seq[sip.Header] {
	return func(yield func(sip.Header) bool) {
		for _, h := range headersIn(msg) {
			if isNamed(h, name) && !yield(h) {
				return
			}
		}
	}
}

// headersNamed returns a list of them.
func headersNamed(msg message, name string) []sip.Header { return slices.Collect(named(msg, name)) }

// firstHeader returns the first header of that name, or nil.
func firstHeader(msg message, name string) sip.Header {
	for _, h := range headersIn(msg) {
		if isNamed(h, name) {
			return h
		}
	}
	return nil
}

// isAlone reports whether there is one header of that name.
func isAlone(msg message, name string) bool {
	n := 0
	for range named(msg, name) {
		n++
	}
	return n == 1
}

// hasHeader reports whether there is a header of that name.
func hasHeader(msg message, name string) bool {
	if m, ok := msg.(*sipmsg.Message); ok {
		_, has := m.Value(name)
		return has
	}
	return firstHeader(msg, name) != nil
}

// structsOf returns sipgo's structs of a message.
func structsOf(msg message) sip.Message {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.SIP()
	}
	full, _ := msg.(sip.Message)
	return full
}

// headersIn returns all headers of a message, in their order.
func headersIn(msg message) []sip.Header {
	switch m := structsOf(msg).(type) {
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

// headerValue returns the value of the first header of that name, or "": of a list all
// that is in one line, or one value of it.
func headerValue(msg message, name string) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		value, _ := m.Value(name)
		return value
	}
	if h := firstHeader(msg, name); h != nil {
		return h.Value()
	}
	return ""
}

// listed returns the comma-separated values of all headers of that name.
func listed(msg message, name string) []string {
	var list []string
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) {
			if value != "" {
				list = append(list, value)
			}
		})
		return list
	}
	for h := range named(msg, name) {
		list = append(list, sipmsg.Split(h.Value(), ',')...)
	}
	return list
}

// lists reports whether the headers of that name, lists of tokens, have this one (RFC
// 3261 7.3.1).
func lists(msg message, name, token string) (found bool) {
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) { found = found || strings.EqualFold(value, token) })
		return found
	}
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
func contacts(msg message) []sip.Uri {
	if m, ok := msg.(*sipmsg.Message); ok {
		return contactsIn(m)
	}
	var uris []sip.Uri
	for _, a := range addressesIn(msg, "Contact") {
		if sipuri.IsTarget(a.uri) {
			uris = append(uris, a.uri)
		}
	}
	return uris
}

// contactsIn is contacts for a received message.
func contactsIn(m *sipmsg.Message) (uris []sip.Uri) {
	m.Each("Contact", func(value string) {
		a, err := sipmsg.ParseAddress(value)
		if err != nil {
			return
		}
		if uri, err := sipmsg.ToURI(a.URI); err == nil && sipuri.IsTarget(uri) {
			uris = append(uris, uri)
		}
	})
	return uris
}

// countContacts counts the Contacts of a message, unreadable ones included.
func countContacts(msg message) (n int) {
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each("Contact", func(value string) {
			if value != "" {
				n++
			}
		})
		return n
	}
	for h := range named(msg, "Contact") {
		if _, one := h.(*sip.ContactHeader); one {
			n++
			continue
		}
		n += len(sipmsg.Split(h.Value(), ','))
	}
	return n
}

// readsRoutes reports whether all Record-Routes of a message can be read. Otherwise the
// route to its peer is unknown.
func readsRoutes(msg message) bool {
	return len(addressesIn(msg, "Record-Route")) == len(listed(msg, "Record-Route"))
}

// recordRoutes returns the URIs of the Record-Route headers, in their order.
func recordRoutes(msg message) []sip.Uri {
	var uris []sip.Uri
	for _, route := range addressesIn(msg, "Record-Route") {
		uris = append(uris, route.uri)
	}
	return uris
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

// HeaderText returns the values of a message's headers with that name, one for each
// line, in the order of the message and as received: with the quotes, parameters and
// case of names that sipgo's types do not keep. Only the white space around them, and
// folds, are removed (RFC 3261 7.3.1). The name may be in any case, and short or long.
// The result is nil if there is no such header.
//
// HeaderText has the received text of the messages that handlers get, and that
// [Dialog.Request], [Dialog.Response] and Do return. For other messages (a Clone, or one
// made by hand) it returns the text that sipgo writes. It does not see changes by the
// application. It never blocks.
func HeaderText(msg sip.Message, name string) []string {
	if m := sipmsg.Of(msg); m != nil {
		return m.Values(name)
	}
	var values []string
	for h := range named(msg, name) {
		values = append(values, h.Value())
	}
	return values
}

// HeaderList returns the values of a list, such as a line of Via, Contact or
// Record-Route (RFC 3261 7.3.1). Commas in quoted strings and in angle brackets
// separate nothing. Empty values are left out.
func HeaderList(text string) []string { return sipmsg.Split(text, ',') }

// HeaderParam returns a parameter of one value of a header, such as "tag" of a From.
// Parameters of a URI in angle brackets are not included. Names are not case-sensitive. A
// quoted string is returned without its quotes and escapes. ok is also true for a
// parameter without a value.
func HeaderParam(value, name string) (param string, ok bool) {
	_, params, found := sipmsg.Cut(value, ';')
	if !found {
		return "", false
	}
	param, ok = sipmsg.Params(";" + params).Get(name)
	return sipmsg.Unquote(param), ok
}
