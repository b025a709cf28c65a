package dialog

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/contact"
	"sipdialog.example/dialog/internal/sipheader"
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
	return d.stack.addressAt(d.local.NameAddr().URI.User, local, s.isSecureLocked()).Header()
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
	return d.stack.addressAt(d.local.User(), local, s.isSecureLocked()).Text()
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
	return s.addressAt(sipheader.NameAddrOf(req, "To").URI.User, tx.Local(), secure).Header()
}

// addressAt is the address of a user of ours for a peer that reaches us at local, for a
// SIPS URI if secure.
func (s *Stack) addressAt(user string, local transport.Local, secure bool) contact.Ours {
	if s != nil && secure {
		local = s.secured(local)
	}
	return contact.Ours{User: user, Host: local.Host, Port: local.Port, Transport: local.Transport, IsSIPS: secure}
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
	before := contact.Note(ours)
	if err := applyOpts(res, opts); err != nil {
		return err
	}
	chosen, err := before.Choose(res, ours)
	if err != nil || chosen == nil {
		return malformed(err)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.contact = sip.HeaderClone(chosen)
	return nil
}
