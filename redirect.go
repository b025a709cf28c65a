package dialog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/txn"
)

// redirects are the targets of an INVITE that begins a call: the first one, and those
// of 3xx responses (RFC 3261 8.1.3.4). The dialog's mutex guards them.
type redirects struct {
	// left is how many more may be tried.
	left int
	// known are all targets so far: none is added twice. next are those not tried yet,
	// the best first. current is the one that is tried.
	known, next []sip.Uri
	current     sip.Uri
	// route is the route set of the INVITE, to each of them.
	route []sip.Uri
}

func newRedirects(limit int, target sip.Uri, route []sip.Uri) *redirects {
	return &redirects{left: limit, known: []sip.Uri{target}, current: target, route: route}
}

// nextTarget returns a function that sends the INVITE to the next target, when one has
// failed by a response or without one; nil when there is no other.
func (i *inviteClient) nextTarget(res *sip.Response) func(req *sip.Request) txn.RequestOptions {
	i.d.mutex.Lock()
	defer i.d.mutex.Unlock()
	r := i.redirects
	if i.mayRepeatLocked() != nil || r == nil || r.left <= 0 {
		return nil
	}
	if res != nil {
		r.learn(res)
	}
	if len(r.next) == 0 {
		return nil
	}
	r.current, r.next = r.next[0], r.next[1:]
	r.left--
	target := r.current
	return func(req *sip.Request) txn.RequestOptions { return i.retarget(req, target, r.route) }
}

// learn adds the targets of a response before the others: they replace the target that
// named them.
func (r *redirects) learn(res *sip.Response) {
	switch {
	case res.StatusCode >= 600:
		r.next = nil // RFC 3261 21.6: nobody anywhere else will do
		return
	case res.StatusCode > sip.StatusMovedTemporarily:
		return
	}
	var named []sip.Uri
	for _, target := range contactsByRank(res) {
		sipuri.RemoveParam(&target.UriParams, "method")
		target.Headers = nil
		if r.mayTry(target) {
			r.known, named = append(r.known, target), append(named, target)
		}
	}
	r.next = append(named, r.next...)
	r.next = r.next[:min(len(r.next), r.left)]
}

// mayTry reports whether a target is new, and does not lead from a SIPS URI to another.
func (r *redirects) mayTry(target sip.Uri) bool {
	if sipuri.IsSIPS(r.current) && !sipuri.IsSIPS(target) {
		return false
	}
	return !slices.ContainsFunc(r.known, func(known sip.Uri) bool { return sipuri.Same(known, target) })
}

// retarget addresses an INVITE to the next target. Early dialogs and routes of the
// target before are forgotten. To, From and Call-ID stay.
func (i *inviteClient) retarget(req *sip.Request, target sip.Uri, route []sip.Uri) txn.RequestOptions {
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
func (s *dialogState) aimLocked(req *sip.Request) txn.RequestOptions {
	uri, routes := s.Path()
	req.Recipient = uri
	removeHeaders(req, "Route")
	for _, route := range routes {
		req.AppendHeader(&sip.RouteHeader{Address: route})
	}
	return s.optionsLocked()
}

// contactsByRank returns the targets in a response, the one of the highest q first (RFC
// 3261 20.10). A target without q has 1; those of equal q keep their order.
func contactsByRank(res *sip.Response) []sip.Uri {
	type ranked struct {
		uri sip.Uri
		q   float64
	}
	var list []ranked
	for _, contact := range addressesIn(res, "Contact") {
		if sipuri.IsTarget(contact.uri) {
			list = append(list, ranked{contact.uri, rank(contact.params)})
		}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(b.q, a.q) })
	var uris []sip.Uri
	for _, r := range list {
		uris = append(uris, r.uri)
	}
	return uris
}

// rank reads a q parameter, from 0 to 1; 1 when it is missing or cannot be read.
func rank(params sip.HeaderParams) float64 {
	value, _ := sipuri.Param(params, "q")
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 1
	}
	return q
}
