package dialog

import (
	"context"
	"runtime/debug"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// TakeoverRequest is an INVITE that names a call of ours.
type TakeoverRequest struct {
	// Invite is a copy of the INVITE; its Source is where it came from.
	Invite *sip.Request
	// Call is the call it names.
	Call *Dialog
	// Join is false when the INVITE is to replace the call, true when it is to
	// be joined to it.
	Join bool
}

// TakeoverHandler decides whether the sender of an INVITE may take over a call,
// or join it. The zero Answer, and every 2xx, lets it pass; 300 to 699 refuses
// it: 403, or 401 with a WWW-Authenticate header. The function runs on a
// goroutine of its own with no lock held, before the call is offered or the
// caller hears it ring. ctx ends when the caller gives up, and after TxTimeout,
// when the INVITE is answered 504; a panic is 500.
type TakeoverHandler func(ctx context.Context, r TakeoverRequest) Answer

// FromPeer reports whether the INVITE claims to be sent by the peer of the
// call it names, or on its behalf: its From, or its Referred-By, has the user
// and host of the peer (RFC 3891 3, 8; RFC 3892). It is a claim: nobody has
// checked it.
func (r TakeoverRequest) FromPeer() bool {
	if r.Invite == nil || r.Call == nil {
		return false
	}
	peer := r.Call.Info().Remote.URI
	return sameUser(addressIn(r.Invite, "From").uri, peer) || sameUser(addressIn(r.Invite, "Referred-By").uri, peer)
}

// sameUser compares what names a user in two URIs (RFC 3261 19.1.4: the user is
// case-sensitive, the host is not).
func sameUser(a, b sip.Uri) bool {
	return a.User == b.User && a.Host != "" && strings.EqualFold(a.Host, b.Host)
}

// authorizer is who decides on a takeover; nil: nobody has to.
func (c *StackConfig) authorizer(t *replacement) TakeoverHandler {
	switch {
	case t == nil:
		return nil
	case t.join:
		return c.AuthorizeJoin
	default:
		return c.AuthorizeReplaces
	}
}

// authorized asks the application whether the caller may have the call that its
// INVITE names, and answers the INVITE if not. It reports whether the call is to
// be offered.
func (d *Dialog) authorized(tx serverTx, t *replacement, ask TakeoverHandler) bool {
	wait := d.config().txTimeout()
	ctx, cancel := context.WithTimeout(d.Context(), wait)
	defer cancel()
	expiry := d.after(wait, func() {
		d.hangupUnanswered(&ending{cause: Cause{By: PartyTimeout, Method: "INVITE", Err: ErrTimeout}, status: sip.StatusGatewayTimeout})
	})
	defer expiry.Stop()
	a := d.askAuthorization(ctx, tx, t, ask)
	switch {
	case ctx.Err() != nil:
		a = Answer{Status: sip.StatusGatewayTimeout} // too late, whatever it is
	case a.Status == 0 || a.Status/100 == 2:
		a = Answer{Status: t.rejection()} // the named call may have gone meanwhile
	}
	if a.Status != 0 {
		d.decline(tx, a)
		return false
	}
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.pendingInvite == tx // its caller has not given up
}

// askAuthorization calls the application. Should that not return, the INVITE is
// refused all the same.
func (d *Dialog) askAuthorization(ctx context.Context, tx serverTx, t *replacement, ask TakeoverHandler) (a Answer) {
	returned := false
	defer func() {
		value := recover()
		if returned {
			return
		}
		d.stack.logPanic(d.log(), "authorisation of Replaces or Join", value, debug.Stack())
		a = Answer{Status: sip.StatusInternalServerError}
		d.decline(tx, a)
	}()
	a = ask(ctx, TakeoverRequest{Invite: ownRequest(tx.Message()), Call: t.call, Join: t.join})
	a.Body = ownBody(a.Body) // its methods are the application's too
	returned = true
	return a
}

// decline refuses an INVITE with an answer of the application's, unless it has
// one already.
func (d *Dialog) decline(tx serverTx, a Answer) {
	a = a.checked(d.log(), 300)
	if d.claim() {
		_, _ = d.reject(tx, a.response(tx, d.contactTo), Cause{By: PartyLocal, Method: "INVITE", Status: a.Status, Reason: a.Reason})
	}
}
