package dialog

import (
	"context"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// TakeoverRequest is an INVITE that names a call of ours by Replaces or Join.
type TakeoverRequest struct {
	// Invite is a copy of the INVITE, with the sender's address as its Source.
	Invite *sip.Request
	// Call is the call it names.
	Call *Dialog
	// Join is false when the INVITE replaces the call, true when it joins it.
	Join bool
}

// TakeoverHandler decides whether the sender of an INVITE may replace or join a call.
// The zero Answer, and every 2xx, permits it; 300 to 699 refuses it: 403, or 401 with a
// WWW-Authenticate header. The function runs on a goroutine of its own with no lock
// held, before OnIncomingDialog and the 180. ctx ends when the caller cancels, and
// after TxTimeout, when the INVITE is answered 504; a panic is 500.
type TakeoverHandler func(ctx context.Context, r TakeoverRequest) Answer

// FromPeer reports whether the INVITE claims to be sent by, or on behalf of, the peer
// of the call that it names: its From, or its Referred-By, has the user and host of
// that peer (RFC 3891 3, 8; RFC 3892). The claim is not verified.
func (r TakeoverRequest) FromPeer() bool {
	if r.Invite == nil || r.Call == nil {
		return false
	}
	peer := r.Call.Info().Remote.URI
	return sameUser(addressIn(r.Invite, "From").uri, peer) || sameUser(addressIn(r.Invite, "Referred-By").uri, peer)
}

// sameUser reports whether two URIs name one user (RFC 3261 19.1.4: the user part is
// case-sensitive, the host is not).
func sameUser(a, b sip.Uri) bool {
	return a.User == b.User && a.Host != "" && strings.EqualFold(a.Host, b.Host)
}

// authorizer returns the function that decides on a replacement; nil when it is
// permitted.
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

// authorized asks the application whether the INVITE may replace or join the call that
// it names, and refuses the INVITE if not. It reports whether OnIncomingDialog is
// called.
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
	return d.incoming.tx == tx // its caller has not given up
}

// askAuthorization calls the application. If that does not return, the INVITE is
// refused.
func (d *Dialog) askAuthorization(ctx context.Context, tx serverTx, t *replacement, ask TakeoverHandler) (a Answer) {
	returned := false
	d.stack.guard(d.log, "authorisation of Replaces or Join", func() {
		a = ask(ctx, TakeoverRequest{Invite: ownRequest(tx.Message()), Call: t.call, Join: t.join})
		a.Body = ownBody(a.Body) // its methods are the application's too
		returned = true
	}, func() {
		if !returned {
			a = Answer{Status: sip.StatusInternalServerError}
			d.decline(tx, a)
		}
	})
	return a
}

// decline refuses an INVITE with an Answer of the application's, unless it was answered
// before.
func (d *Dialog) decline(tx serverTx, a Answer) {
	a = a.checked(d.log(), 300)
	if d.claim() {
		_, _ = d.reject(tx, a.response(tx, d.contactTo), Cause{By: PartyLocal, Method: "INVITE", Status: a.Status, Reason: a.Reason})
	}
}
