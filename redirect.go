package dialog

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/redirect"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/txn"
)

// redirects are the targets of an INVITE that begins a call (RFC 3261 8.1.3.4), and the
// route set to each of them. The dialog's mutex guards them.
type redirects struct {
	*redirect.Targets
	route []sip.Uri
}

// newRedirects returns nil where none is to be followed.
func newRedirects(limit int, target sip.Uri, route []sip.Uri) *redirects {
	if limit <= 0 {
		return nil
	}
	return &redirects{redirect.New(limit, target), route}
}

// nextTarget returns a function that sends the INVITE to the next target, when one has
// failed by a response or without one; nil when there is no other.
func (i *inviteClient) nextTarget(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions {
	i.d.mutex.Lock()
	defer i.d.mutex.Unlock()
	r := i.redirects
	if i.mayRepeatLocked() != nil || r == nil || !r.MayGoOn() {
		return nil
	}
	if res != nil {
		r.Learn(res.Status, contactsOf(res))
	}
	target, found := r.Next()
	if !found {
		return nil
	}
	return func(req *draft.Request) txn.RequestOptions { return i.retarget(req, target, r.route) }
}

func contactsOf(res *sipmsg.Message) (list []redirect.Contact) {
	for _, contact := range sipheader.AddressesOf(res, "Contact") {
		list = append(list, redirect.Contact{URI: contact.URI, Params: contact.Params})
	}
	return list
}

// retarget addresses an INVITE to the next target. Early dialogs and routes of the
// target before are forgotten. To, From and Call-ID stay.
func (i *inviteClient) retarget(req *draft.Request, target sip.Uri, route []sip.Uri) txn.RequestOptions {
	d := i.d
	both := d.lockBoth()
	release := i.leaveLocked(target, route)
	opt := d.currentLocked().aimLocked(req)
	both.unlock()
	release()
	return opt
}

// leaveLocked makes another target the dialog's, and ends the early dialogs of the one
// before. Both mutexes are held; the result is called without.
func (i *inviteClient) leaveLocked(target sip.Uri, route []sip.Uri) (release func()) {
	d := i.d
	release = i.dropLocked(nil)
	i.forgetEarlyLocked()
	old := d.keyLocked()
	next := &dialogState{d: d, State: d.currentLocked().Elsewhere(target, route), peerIdentity: i.invitedLocked()}
	next.negotiation.SendOffer(i, i.offer, offeranswer.ByApplication)
	d.setCurrentLocked(next)
	i.origin = nil
	if d.keyLocked() != old {
		d.stack.rekeyLocked(d, old)
	}
	return release
}

// aimLocked addresses an INVITE to the dialog's target.
func (s *dialogState) aimLocked(req *draft.Request) txn.RequestOptions {
	uri, routes := s.Path()
	req.SetURI(&uri)
	req.Remove("Route")
	for i := range routes {
		req.AddRoute(&routes[i])
	}
	return s.optionsLocked()
}
