// Package outgoing makes requests of ours outside dialogs complete (RFC 3261 8.1.1): the
// headers that every request has, the route, and the addresses of ours that are known
// only once there is a flow.
package outgoing

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/capability"
	"sipdialog.example/dialog/internal/contact"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Defaults are what a request gets where it has nothing of its own.
type Defaults struct {
	// From is the sender, Agent the User-Agent.
	From  sipheader.NameAddr
	Agent string
	// Tag returns a new tag, CallID a new Call-ID.
	Tag, CallID func() string
}

// Complete adds the headers that are missing.
func (d Defaults) Complete(own *sip.Request) {
	if own.From() == nil {
		own.AppendHeader(d.From.From(d.Tag()))
	} else if !own.From().Params.Has("tag") {
		own.From().Params.Add("tag", d.Tag())
	}
	if own.To() == nil {
		own.AppendHeader(sipheader.NameAddr{URI: record(own)}.To(""))
	}
	if own.CallID() == nil {
		id := sip.CallIDHeader(d.CallID())
		own.AppendHeader(&id)
	}
	if own.CSeq() == nil {
		own.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: own.Method})
	}
	if sipheader.Value(own, "User-Agent") == "" {
		own.AppendHeader(sip.NewHeader("User-Agent", d.Agent))
	}
}

// record is the To of a request: in a REGISTER the address of record (RFC 3261 10.2).
func record(req *sip.Request) sip.Uri {
	record := *req.Recipient.Clone()
	if req.Method == sip.REGISTER {
		record = *req.From().Address.Clone()
	}
	record.Headers = nil
	return record
}

// To is the To of a call to target: it has no parameters and headers that set the route
// (RFC 3261 19.1.1).
func To(target sip.Uri) sip.Uri {
	to := *target.Clone()
	to.Headers = nil
	for _, name := range []string{"method", "transport", "maddr", "ttl", "lr"} {
		sipuri.RemoveParam(&to.UriParams, name)
	}
	return to
}

// Anonymous is the From of a sender who is not named (RFC 3323 4.1).
func Anonymous() sipheader.NameAddr {
	return sipheader.NameAddr{Display: "Anonymous", URI: sip.Uri{Scheme: "sip", User: "anonymous", Host: "anonymous.invalid"}}
}

// Caller is the From of a sender with that name and URI, which gets the scheme if it has
// none.
func Caller(name string, uri sip.Uri, scheme string) sipheader.NameAddr {
	own := *uri.Clone()
	if own.Scheme == "" {
		own.Scheme = scheme
	}
	return sipheader.NameAddr{Display: sipmsg.Escape(name), URI: own}
}

// Named is the From of a user with the name of the product in a User-Agent.
func Named(agent, scheme string) sipheader.NameAddr {
	product, _, _ := strings.Cut(agent, "/")
	return sipheader.NameAddr{URI: sip.Uri{Scheme: scheme, User: userToken(product)}}
}

// userToken keeps the characters that the user part of a URI may have (RFC 3261 25.1).
func userToken(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-_.!~*'()&=+$,", r) || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, s)
}

// Route is the route of a first request (RFC 3261 8.1.2): the one that was asked for, or,
// where that is nil, the one by the proxy, unless that is nil too.
func Route(asked []sip.Uri, proxy *sip.Uri) []sip.Uri {
	own := make([]sip.Uri, len(asked))
	for i := range asked {
		own[i] = *asked[i].Clone()
	}
	if asked == nil && proxy != nil {
		first := *proxy.Clone()
		if !sipuri.IsLoose(first) {
			first.UriParams.Add("lr", "")
		}
		own = append(own, first)
	}
	return own
}

// RouteBy adds the route by the proxy, unless that is nil or there is a route.
func RouteBy(proxy *sip.Uri, own *sip.Request) {
	if len(sipheader.AllNamed(own, "Route")) > 0 {
		return
	}
	for _, route := range Route(nil, proxy) {
		own.AppendHeader(&sip.RouteHeader{Address: route})
	}
}

// NextHop is the first hop of a request (RFC 3261 8.1.2).
func NextHop(req *sip.Request) sip.Uri {
	if route := sipheader.AddressOf(req, "Route").URI; route.Host != "" {
		return route
	}
	return *req.Recipient.Clone()
}

// FillHosts gives From, To and Contact the address by which the peer reaches us, which is
// at that host, and adds a Contact to a request that needs one. address returns the
// address of a user of ours, for a SIPS URI if secure.
func FillHosts(req *sip.Request, host string, address func(user string, secure bool) contact.Ours) {
	from := req.From()
	if sipuri.LacksHost(from.Address) {
		from.Address.Host = sipuri.Bracketed(host)
	}
	if to := req.To(); sipuri.LacksHost(to.Address) { // that of a REGISTER
		to.Address.Host = sipuri.Bracketed(host)
	}
	secure := sipuri.IsSIPS(req.Recipient) || sipuri.IsSIPS(sipheader.AddressOf(req, "Route").URI)
	for h := range sipheader.Named(req, "Contact") {
		if contact, ok := h.(*sip.ContactHeader); ok && contact.Address.Host == "" && !contact.Address.Wildcard {
			own := address(contact.Address.User, secure || sipuri.IsSIPS(contact.Address)).Header().Address
			own.UriParams = append(own.UriParams, contact.Address.UriParams...)
			contact.Address = own
		}
	}
	if capability.MakesDialog(req.Method) && sipheader.CountContacts(req) == 0 {
		req.AppendHeader(address(from.Address.User, secure).Header())
	}
}
