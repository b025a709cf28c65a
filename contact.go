package dialog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// Our Contact: the application's choice, else the address at which the peer reaches us.

// contactLocked is our Contact for a peer on that flow.
func (s *dialogState) contactLocked(local transport.Local) sip.Header {
	d := s.d
	if d.contact != nil {
		return sip.HeaderClone(d.contact)
	}
	return d.stack.contactAt(d.local.NameAddr().URI.User, local, s.isSecureLocked())
}

// contactTo is contactLocked for a response to a request of the peer.
func (d *Dialog) contactTo(tx serverTx) sip.Header {
	local := tx.Local()
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().contactLocked(local)
}

// contactValue is contactTo as it is written.
func (d *Dialog) contactValue(tx serverTx) string {
	local := tx.Local()
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().contactTextLocked(local)
}

// contactTextLocked is contactLocked as it is written.
func (s *dialogState) contactTextLocked(local transport.Local) string {
	d := s.d
	if d.contact != nil {
		return d.contact.Value()
	}
	secure := s.isSecureLocked()
	if secure && d.stack != nil {
		local = d.stack.secured(local)
	}
	return contactText(d.local.User(), local, secure)
}

// isSecureLocked reports whether our Contact must be a SIPS URI: the INVITE was for
// one, or the first hop or the peer has one (RFC 3261 8.1.1.8, 12.1.1).
func (s *dialogState) isSecureLocked() bool { return s.d.secure || s.IsSecure() }

// contactTo is the Contact of a response to a request outside calls, with the user of
// its Request-URI.
func (s *Stack) contactTo(tx serverTx) sip.Header {
	req := tx.Message()
	secure := req.Scheme() == "sips"
	if routes := sipheader.RecordRoutes(req); len(routes) > 0 {
		secure = secure || sipuri.IsSIPS(routes[0])
	} else if targets := sipheader.Contacts(req); len(targets) > 0 {
		secure = secure || sipuri.IsSIPS(targets[0])
	}
	return s.contactAt(sipheader.NameAddrOf(req, "To").URI.User, tx.Local(), secure)
}

// contactAt is the Contact of a user of ours for a peer that reaches us at local, a
// SIPS URI if secure.
func (s *Stack) contactAt(user string, local transport.Local, secure bool) *sip.ContactHeader {
	if s != nil && secure {
		local = s.secured(local)
	}
	return contactFor(user, local, secure)
}

// contactFor makes a Contact of an address of ours. Its transport is that of the
// address, a WebSocket over TLS being ws too (RFC 7118 5.2).
func contactFor(user string, local transport.Local, secure bool) *sip.ContactHeader {
	uri := sip.Uri{Scheme: "sip", User: user, Host: sipuri.Bracketed(local.Host), Port: local.Port}
	if secure {
		uri.Scheme = "sips"
	}
	if name := transportParam(local); name != "" {
		uri.UriParams.Add("transport", name)
	}
	return &sip.ContactHeader{Address: uri}
}

// transportParam is the transport that a Contact names; empty for UDP.
func transportParam(local transport.Local) string {
	switch name := strings.ToLower(local.Transport); name {
	case "udp":
		return ""
	case "wss":
		return "ws"
	default:
		return name
	}
}

// contactText is contactFor as it is written.
func contactText(user string, local transport.Local, secure bool) string {
	var room [128]byte
	text := append(room[:0], "<sip"...)
	if secure {
		text = append(text, 's')
	}
	text = append(text, ':')
	if user != "" {
		text = append(append(text, user...), '@')
	}
	text = append(text, sipuri.Bracketed(local.Host)...)
	if local.Port != 0 {
		text = strconv.AppendInt(append(text, ':'), int64(local.Port), 10)
	}
	if name := transportParam(local); name != "" {
		text = append(append(text, ";transport="...), name...)
	}
	return string(append(text, '>'))
}

// secured is an address of ours that a SIPS URI can name: that of a listener for TLS,
// if a peer sees us by another transport, as behind a proxy that ends the TLS.
func (s *Stack) secured(local transport.Local) transport.Local {
	if local.Transport == "TLS" || local.Transport == "WSS" {
		return local
	}
	for _, tc := range s.config.listeners() {
		if port := orDefault(tc.PublicPort, tc.Port); strings.EqualFold(tc.Protocol, "tls") && port != 0 {
			local.Transport, local.Port = "TLS", port
			local.Host = orDefault(strings.Trim(tc.PublicAddress, "[]"), local.Host)
			return local
		}
	}
	return local
}

// choseContactLocked records the application's Contact, unless it is nil.
func (d *Dialog) choseContactLocked(uri *sip.Uri) {
	if uri != nil {
		d.contact = &sip.ContactHeader{Address: *uri.Clone()}
	}
}

// customise applies the application's options to a response that makes or confirms the
// dialog. A Contact that they set is ours in all later messages of the call (RFC 6141
// 4.5).
func (d *Dialog) customise(res *sip.Response, opts []ResponseOpt) error {
	if len(opts) == 0 {
		return applyOpts(res, nil)
	}
	ours := sipheader.First(res, "Contact")
	before := contactNow(ours)
	if err := applyOpts(res, opts); err != nil {
		return err
	}
	chosen, err := takeContact(res, ours, &before)
	if err != nil || chosen == nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.contact = sip.HeaderClone(chosen)
	return nil
}

// takeContact leaves one Contact in a response that had ours: the one that the
// application has added or changed, which is returned.
func takeContact(res *sip.Response, ours sip.Header, before *contactBefore) (chosen sip.Header, err error) {
	var others []sip.Header
	for h := range sipheader.Named(res, "Contact") {
		if !before.is(h) {
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
		return nil, fmt.Errorf("%w: a Contact that is not one SIP URI (RFC 3261 12.1.1)", ErrInvalidArgument)
	}
	return others[0], nil
}

// contactBefore is what a Contact said before an application saw it.
type contactBefore struct {
	header sip.ContactHeader
	text   string // of one that is no ContactHeader
}

func contactNow(contact sip.Header) contactBefore {
	h, ok := contact.(*sip.ContactHeader)
	if !ok {
		return contactBefore{text: contact.Value()}
	}
	now := contactBefore{header: *h}
	now.header.Params, now.header.Address.UriParams = slices.Clone(h.Params), slices.Clone(h.Address.UriParams)
	now.header.Address.Headers = slices.Clone(h.Address.Headers)
	return now
}

// is reports whether a Contact says the same.
func (c *contactBefore) is(contact sip.Header) bool {
	h, ok := contact.(*sip.ContactHeader)
	if !ok {
		return contact.Value() == c.text
	}
	return c.text == "" && h.DisplayName == c.header.DisplayName && h.Address.Wildcard == c.header.Address.Wildcard &&
		sipmsg.SameURI(&h.Address, &c.header.Address) && slices.Equal(h.Params, c.header.Params)
}
