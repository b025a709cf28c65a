// Package sipheader reads the headers of a message, whether that is the text that was
// received or sipgo's structs, by their names: From, To and their tags, CSeq, Contacts,
// Record-Routes, lists.
package sipheader

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// NameAddr is the part of From and To that stays the same for a dialog's life.
type NameAddr struct {
	// Display is escaped as between the quotes of a quoted-string.
	Display string
	URI     sip.Uri
}

// Same compares display names as they are written, and URIs as RFC 3261 19.1.4 has it.
func (a NameAddr) Same(b NameAddr) bool {
	return a.Display == b.Display && sipuri.SameOfAny(a.URI, b.URI)
}

// From and To return the header with that tag.
func (a NameAddr) From(tag string) *sip.FromHeader {
	return &sip.FromHeader{DisplayName: a.Display, Address: *a.URI.Clone(), Params: tagParams(tag)}
}

func (a NameAddr) To(tag string) *sip.ToHeader {
	return &sip.ToHeader{DisplayName: a.Display, Address: *a.URI.Clone(), Params: tagParams(tag)}
}

// tagParams leaves the tag out when there is none: a peer of RFC 2543 has none
// (RFC 3261 12.2.1.1).
func tagParams(tag string) sip.HeaderParams {
	if tag == "" {
		return nil
	}
	return sip.HeaderParams{{K: "tag", V: tag}}
}

// Message has header fields: it is a [sipmsg.Message], which is a request as it was
// received, or a message in sipgo's structs. The functions of this package read both. They
// make no structs for the fields that nearly every call needs.
type Message interface{ Body() []byte }

// Headers are read by their name, whatever their Go type: the parser makes typed ones
// of those it knows, and messages made by hand may have plain ones of any name.

// ToTag and FromTag return the tags; empty without one.
func ToTag(msg Message) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.ToTag
	}
	return tagOf(msg, "To")
}

func FromTag(msg Message) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.FromTag
	}
	return tagOf(msg, "From")
}

func tagOf(msg Message, name string) string {
	var params sip.HeaderParams
	switch h := First(msg, name).(type) {
	case *sip.FromHeader:
		params = h.Params
	case *sip.ToHeader:
		params = h.Params
	default:
		params = AddressOf(msg, name).Params
	}
	tag, _ := sipuri.Param(params, "tag")
	return tag
}

// CallID returns the Call-ID.
func CallID(msg Message) string { return Value(msg, "Call-ID") }

// CSeq returns the number of the CSeq; zero when there is none.
func CSeq(msg Message) uint32 {
	number, _ := CSeqOf(msg)
	return number
}

// CSeqOf returns number and method of the CSeq; zero and empty when it cannot be read.
func CSeqOf(msg Message) (number uint32, method sip.RequestMethod) {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.CSeq, m.CSeqMethod
	}
	switch h := First(msg, "CSeq").(type) {
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

// CSeqValue is the CSeq as it stands in a header, such as "2 REFER"; empty when there
// is none that can be read.
func CSeqValue(msg Message) string {
	number, method := CSeqOf(msg)
	if method == "" {
		return ""
	}
	return strconv.FormatUint(uint64(number), 10) + " " + string(method)
}

// NameAddrOf returns the party in From or To.
func NameAddrOf(msg Message, name string) NameAddr {
	if m, ok := msg.(*sipmsg.Message); ok {
		return PartyOf(m, name).NameAddr()
	}
	a := AddressOf(msg, name)
	return NameAddr{Display: a.Display, URI: a.URI}
}

// Party is the party in From or To, kept as long as a call lasts: the value of the header
// as it was received, or a party that is known otherwise. The latter is not changed.
type Party struct {
	text  string
	known *NameAddr
}

// URIText returns the URI as it is written.
func (p Party) URIText() string {
	uri := p.NameAddr().URI
	return uri.String()
}

// Party keeps a name and a URI that come from no message.
func (a NameAddr) Party() Party { return Party{known: &a} }

// PartyOf returns the party in From or To of a request. It shares the request's text.
func PartyOf(m *sipmsg.Message, name string) Party {
	value, _ := m.Value(name)
	return Party{text: value}
}

// User is the user of its URI.
func (p Party) User() string {
	if p.known != nil {
		return p.known.URI.User
	}
	return p.NameAddr().URI.User
}

// LacksHost reports whether it is known, but for its host.
func (p Party) LacksHost() bool { return p.known != nil && p.known.URI.Host == "" }

// AddTo adds it to a request as its From or To, with that tag.
func (p Party) AddTo(req *draft.Request, name, tag string) {
	if p.isPlain() {
		req.AddPartyText(name, p.text, tag)
		return
	}
	party := p.NameAddr()
	req.AddParty(name, party.Display, &party.URI, tag)
}

// isPlain reports whether it is text as AsText makes it.
func (p Party) isPlain() bool {
	a, err := sipmsg.ParseAddress(p.text)
	return p.known == nil && err == nil && a.Params == "" && (p.text[0] == '<' || p.text[0] == '"')
}

// AsText is the party as the value of a header, which takes less memory, if that is read
// as the same.
func (p Party) AsText() Party {
	if p.known == nil {
		return p
	}
	text := Party{text: strings.Clone(p.known.From("").Value())}
	if again := text.NameAddr(); again.Display != p.known.Display || !sipmsg.SameURI(&again.URI, &p.known.URI) {
		return p
	}
	return text
}

// NameAddr reads it.
func (p Party) NameAddr() NameAddr {
	if p.known != nil {
		return *p.known
	}
	display, uri, err := sipmsg.ToParty(p.text)
	if err != nil {
		return NameAddr{}
	}
	return NameAddr{display, uri}
}

// Address is a name-addr or addr-spec with header parameters.
type Address struct {
	NameAddr
	Params sip.HeaderParams
}

// AddressOf returns the address in the first header of that name; the zero value if there
// is none that can be read. It shares nothing with the message.
func AddressOf(msg Message, name string) Address {
	h := First(msg, name)
	if h == nil {
		return Address{}
	}
	if a, ok := typedAddress(h); ok {
		return a
	}
	list := appendAddresses(nil, h)
	if len(list) == 0 {
		return Address{}
	}
	return list[0]
}

// AddressesOf returns the addresses in all headers of that name. It leaves out unreadable
// ones.
func AddressesOf(msg Message, name string) []Address {
	var list []Address
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) { list = appendAddress(list, value) })
		return list
	}
	for h := range Named(msg, name) {
		list = appendAddresses(list, h)
	}
	return list
}

// typedAddress returns the address in a header type of sipgo that has one address.
func typedAddress(header sip.Header) (a Address, ok bool) {
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
	return Address{}, false
}

func ownAddress(display string, uri *sip.Uri, params sip.HeaderParams) Address {
	return Address{NameAddr{display, ownURI(uri)}, slices.Clone(params)}
}

// ownURI is uri.Clone, but for the memory that takes.
func ownURI(uri *sip.Uri) sip.Uri {
	own := *uri
	own.UriParams, own.Headers = slices.Clone(uri.UriParams), slices.Clone(uri.Headers)
	return own
}

func appendAddresses(list []Address, header sip.Header) []Address {
	if a, ok := typedAddress(header); ok {
		return append(list, a)
	}
	for _, value := range sipmsg.Split(header.Value(), ',') {
		list = appendAddress(list, value)
	}
	return list
}

// appendAddress appends the address of one value, if it can be read.
func appendAddress(list []Address, value string) []Address {
	display, uri, params, err := sipmsg.ToAddress(value)
	if err != nil {
		return list
	}
	return append(list, Address{NameAddr{display, uri}, params})
}

// IsNamed reports whether a header has that name, or its compact form (RFC 3261
// 7.3.3).
func IsNamed(h sip.Header, name string) bool { return sipmsg.SameName(h.Name(), name) }

// Named are the headers of that name. GetHeaders of a message does so
// too, but for compact forms, and copies every other header's name in lower case each
// time.
func Named(msg Message, name string) iter.Seq[sip.Header] {
	return func(yield func(sip.Header) bool) {
		for _, h := range All(msg) {
			if IsNamed(h, name) && !yield(h) {
				return
			}
		}
	}
}

// AllNamed returns a list of them.
func AllNamed(msg Message, name string) []sip.Header { return slices.Collect(Named(msg, name)) }

// First returns the first header of that name, or nil.
func First(msg Message, name string) sip.Header {
	for _, h := range All(msg) {
		if IsNamed(h, name) {
			return h
		}
	}
	return nil
}

// IsAlone reports whether there is one header of that name.
func IsAlone(msg Message, name string) bool {
	n := 0
	for range Named(msg, name) {
		n++
	}
	return n == 1
}

// Has reports whether there is a header of that name.
func Has(msg Message, name string) bool {
	if m, ok := msg.(*sipmsg.Message); ok {
		_, has := m.Value(name)
		return has
	}
	return First(msg, name) != nil
}

// Structs returns sipgo's structs of a message.
func Structs(msg Message) sip.Message {
	if m, ok := msg.(*sipmsg.Message); ok {
		return m.SIP()
	}
	full, _ := msg.(sip.Message)
	return full
}

// All returns all headers of a message, in their order.
func All(msg Message) []sip.Header {
	switch m := Structs(msg).(type) {
	case *sip.Request:
		return m.Headers()
	case *sip.Response:
		return m.Headers()
	}
	return nil
}

// Remove removes all headers of that name.
func Remove(msg interface {
	sip.Message
	RemoveHeader(name string) bool
}, name string) {
	for h := First(msg, name); h != nil && msg.RemoveHeader(h.Name()); {
		h = First(msg, name)
	}
}

// Value returns the value of the first header of that name, or "": of a list all
// that is in one line, or one value of it.
func Value(msg Message, name string) string {
	if m, ok := msg.(*sipmsg.Message); ok {
		value, _ := m.Value(name)
		return value
	}
	if h := First(msg, name); h != nil {
		return h.Value()
	}
	return ""
}

// Listed returns the comma-separated values of all headers of that name.
func Listed(msg Message, name string) []string {
	var list []string
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) {
			if value != "" {
				list = append(list, value)
			}
		})
		return list
	}
	for h := range Named(msg, name) {
		list = append(list, sipmsg.Split(h.Value(), ',')...)
	}
	return list
}

// Lists reports whether the headers of that name, lists of tokens, have this one (RFC
// 3261 7.3.1).
func Lists(msg Message, name, token string) (found bool) {
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each(name, func(value string) { found = found || strings.EqualFold(value, token) })
		return found
	}
	for h := range Named(msg, name) {
		if sipmsg.Contains(h.Value(), token) {
			return true
		}
	}
	return false
}

// ContainsFold reports whether a list has a string, in any case.
func ContainsFold(list []string, want string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, want) })
}

// Contacts returns the URIs of the Contact headers that can be a target: SIP
// and SIPS URIs (RFC 3261 8.1.1.8, 12.1.1).
func Contacts(msg Message) []sip.Uri {
	if m, ok := msg.(*sipmsg.Message); ok {
		return contactsIn(m)
	}
	var uris []sip.Uri
	for _, a := range AddressesOf(msg, "Contact") {
		if sipuri.IsTarget(a.URI) {
			uris = append(uris, a.URI)
		}
	}
	return uris
}

// contactsIn is Contacts for a received message.
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

// CountContacts counts the Contacts of a message, unreadable ones included.
func CountContacts(msg Message) (n int) {
	if m, ok := msg.(*sipmsg.Message); ok {
		m.Each("Contact", func(value string) {
			if value != "" {
				n++
			}
		})
		return n
	}
	for h := range Named(msg, "Contact") {
		if _, one := h.(*sip.ContactHeader); one {
			n++
			continue
		}
		n += len(sipmsg.Split(h.Value(), ','))
	}
	return n
}

// ReadsRoutes reports whether all Record-Routes of a message can be read. Otherwise the
// route to its peer is unknown.
func ReadsRoutes(msg Message) bool {
	return len(AddressesOf(msg, "Record-Route")) == len(Listed(msg, "Record-Route"))
}

// RecordRoutes returns the URIs of the Record-Route headers, in their order.
func RecordRoutes(msg Message) []sip.Uri {
	var uris []sip.Uri
	for _, route := range AddressesOf(msg, "Record-Route") {
		uris = append(uris, route.URI)
	}
	return uris
}

// OneLine keeps a text from ending the header, or start line, that it goes
// into.
func OneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}

// SetLength leaves one Content-Length, the true one, whatever an application
// has added (RFC 3261 20.14).
func SetLength(res *sip.Response) {
	Remove(res, "Content-Length")
	length := sip.ContentLengthHeader(len(res.Body()))
	res.AppendHeader(&length)
}

// RetryAfter returns a Retry-After header.
func RetryAfter(seconds int) sip.Header {
	return sip.NewHeader("Retry-After", strconv.Itoa(seconds))
}

// Warning returns the value of a Warning header of ours (RFC 3261 20.43).
func Warning(code int, text string) string {
	return strconv.Itoa(code) + " dialog " + sipmsg.Quote(text)
}
