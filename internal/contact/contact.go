// Package contact makes our Contact, and says which Contact of a response is the
// application's (RFC 3261 8.1.1.8, 12.1.1).
package contact

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Ours is an address of ours at which a peer reaches us.
type Ours struct {
	// User and Port are zero if the Contact has none. An IPv6 address may have brackets.
	User, Host string
	Port       int
	// Transport is the one by which the peer reaches us, such as "UDP".
	Transport string
	// IsSIPS is true if the URI is a SIPS URI.
	IsSIPS bool
}

// Header returns the Contact of the address.
func (o Ours) Header() *sip.ContactHeader {
	uri := sip.Uri{Scheme: "sip", User: o.User, Host: sipuri.Bracketed(o.Host), Port: o.port()}
	if o.IsSIPS {
		uri.Scheme = "sips"
	}
	if name := o.param(); name != "" {
		uri.UriParams.Add("transport", name)
	}
	return &sip.ContactHeader{Address: uri}
}

// Text returns the value of Header. It makes no header.
func (o Ours) Text() string {
	var buffer [128]byte
	text := append(buffer[:0], "<sip"...)
	if o.IsSIPS {
		text = append(text, 's')
	}
	text = append(text, ':')
	if o.User != "" {
		text = append(append(text, o.User...), '@')
	}
	text = append(text, sipuri.Bracketed(o.Host)...)
	if port := o.port(); port != 0 {
		text = strconv.AppendInt(append(text, ':'), int64(port), 10)
	}
	if name := o.param(); name != "" {
		text = append(append(text, ";transport="...), name...)
	}
	return string(append(text, '>'))
}

// port is the port that the Contact names: none for a host name at the usual port of the
// transport, since a peer asks for the SRV records of a name without a port only (RFC 3263
// 4.2).
func (o Ours) port() int {
	switch name := strings.ToUpper(o.Transport); {
	case (name == "UDP" || name == "TCP") && o.Port == sipuri.DefaultPort && !o.IsSIPS:
	case name == "TLS" && o.Port == sipuri.DefaultTLSPort:
	default:
		return o.Port
	}
	if _, err := netip.ParseAddr(strings.Trim(o.Host, "[]")); err == nil {
		return o.Port
	}
	return 0
}

// param is the transport that the Contact names: none for UDP, and ws also for a
// WebSocket over TLS (RFC 7118 5.2).
func (o Ours) param() string {
	switch name := strings.ToLower(o.Transport); name {
	case "udp":
		return ""
	case "wss":
		return "ws"
	default:
		return name
	}
}

// ErrNotOneURI is the error for a Contact that no request can be sent to.
var ErrNotOneURI = errors.New("the Contact is not exactly one SIP URI (RFC 3261 12.1.1)")

// Before is what the Contact of a response said before an application saw it.
type Before struct {
	header sip.ContactHeader
	text   string // of a header that is not a ContactHeader
}

// Note records a Contact. What the application changes of it later is not recorded.
func Note(contact sip.Header) Before {
	h, ok := contact.(*sip.ContactHeader)
	if !ok {
		return Before{text: contact.Value()}
	}
	now := Before{header: *h}
	now.header.Params, now.header.Address.UriParams = slices.Clone(h.Params), slices.Clone(h.Address.UriParams)
	now.header.Address.Headers = slices.Clone(h.Address.Headers)
	return now
}

// is reports whether a Contact says the same.
func (b *Before) is(contact sip.Header) bool {
	h, ok := contact.(*sip.ContactHeader)
	if !ok {
		return contact.Value() == b.text
	}
	return b.text == "" && h.DisplayName == b.header.DisplayName && h.Address.Wildcard == b.header.Address.Wildcard &&
		sipmsg.SameURI(&h.Address, &b.header.Address) && slices.Equal(h.Params, b.header.Params)
}

// Choose leaves one Contact in a response that had ours: the one that the application has
// added or changed, which is returned, or ours. The error is ErrNotOneURI.
func (b *Before) Choose(res *sip.Response, ours sip.Header) (chosen sip.Header, err error) {
	var others []sip.Header
	for h := range sipheader.Named(res, "Contact") {
		if !b.is(h) {
			others = append(others, h)
		}
	}
	if len(others) == 0 && sipheader.IsAlone(res, "Contact") {
		return nil, nil
	}
	sipheader.Remove(res, "Contact")
	if len(others) == 0 {
		res.AppendHeader(ours)
		return nil, nil
	}
	for _, h := range others {
		res.AppendHeader(h)
	}
	if sipheader.CountContacts(res) != 1 || len(sipheader.Contacts(res)) != 1 {
		return nil, ErrNotOneURI
	}
	return others[0], nil
}
