package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
)

// Update changes the session, or without an offer only refreshes the target, by
// UPDATE (RFC 3311): unlike a re-INVITE also before the call is answered, once
// the peer's tag is known, and the peer decides at once. It returns the answer
// that the 2xx brings, nil without an offer, and sends again after a 491, or a
// 500 or 503 with Retry-After, as ReInvite does. A peer that does not answer for
// TxTimeout loses the call (RFC 3261 12.2.1.2), unless StackConfig.KeepUnanswered is
// set.
//
// Errors: *StateError, ErrPending (another UPDATE, or an offer in either
// direction, is open, one is to come in the answer to a re-INVITE, an ACK waits for
// OnOffer, or an offer comes before reliable provisional responses have agreed upon
// a session), *ResponseError, ErrTimeout, ErrTransport, ErrTerminated, ctx's.
func (d *Dialog) Update(ctx context.Context, offer Body, headers ...Header) (result Body, err error) {
	defer naming("Update", &err)
	if ctx == nil {
		return nil, errNilContext("Update")
	}
	offer = ownBody(offer)
	if err := firstError(checkBody(offer), checkHeaders(headers, offer, checkHeader)); err != nil {
		return nil, err
	}
	return d.retrying(ctx, "Update", func() (Body, error) { return d.updateOnce(ctx, offer, headers) })
}

func (d *Dialog) updateOnce(ctx context.Context, offer Body, headers []Header) (Body, error) {
	w, err := d.sendUpdate(ctx, offer, headers)
	if err != nil {
		return nil, err
	}
	res, err := w.wait(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode >= 300:
		return nil, newResponseError(sip.UPDATE, res)
	case offer == nil:
		return nil, nil // a body answers nothing
	}
	return keptOrNil(sessionIn(res)), nil
}

// sendUpdate writes an UPDATE when no other one, and no offer, is open (RFC
// 3311 5.1).
func (d *Dialog) sendUpdate(ctx context.Context, offer Body, headers []Header) (*waiter, error) {
	if err := d.lockToSendIf(ctx, "UPDATE", func() error { return d.mayUpdateLocked(offer) }); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	s := d.currentLocked()
	req := s.nextRequestLocked(sip.UPDATE)
	req.AppendHeader(d.stack.allow(d.callbacksLocked().requests))
	req.AppendHeader(d.stack.supported())
	d.askTimerLocked(req)
	appendHeaders(req, headers)
	offer = s.negotiation.Numbered(offer)
	setBody(req, offer)
	out := &updateClient{d: d, fork: d.currentForkLocked(), target: s.Target(), offer: offer, waiter: newWaiter()}
	s.updateOut = out
	s.negotiation.SendOffer(out, offer, offeranswer.ByApplication)
	opt := s.optionsLocked()
	d.mutex.Unlock()

	x, err := d.newClientRequest(out.fork, opt, out.mayRepeatLocked)
	if err == nil {
		x.response, x.done = out.response, out.done
		err = x.send(ctx, req)
	}
	if err != nil {
		out.over(nil)
		return nil, err
	}
	return out.waiter, nil
}

func (d *Dialog) mayUpdateLocked(offer Body) error {
	s := d.currentLocked()
	switch {
	case d.ending != nil || !d.isEarlyLocked() && d.state != DialogStateEstablished:
		return &StateError{Op: "Update", State: d.state, Need: "Established state, or a peer that rings"}
	case d.ackWaits, s.updateOut != nil, offer != nil && (s.negotiation.State() != offeranswer.Stable || d.offerToComeLocked() || d.noSessionLocked()):
		return ErrPending
	}
	return nil
}

// isEarlyLocked reports whether there is an early dialog (RFC 3261 12.1) to send
// requests in.
func (d *Dialog) isEarlyLocked() bool {
	return d.state == DialogStateRinging && d.currentLocked().RemoteTag() != "" && !d.earlyDialogsEndedLocked()
}

// earlyDialogsEndedLocked reports whether no early dialog of our INVITE is left.
func (d *Dialog) earlyDialogsEndedLocked() bool {
	return d.phase == phaseInviting && (d.invite.current == nil || d.invite.current.ended)
}

// noSessionLocked reports whether reliable provisional responses to the INVITE,
// which is not answered, have brought no offer and answer yet (RFC 3311 5.1).
func (d *Dialog) noSessionLocked() bool {
	return (d.phase == phaseInviting || d.phase == phaseIncoming) && !d.currentLocked().negotiation.Agreed()
}

// updateClient is an UPDATE of ours that has no final answer.
type updateClient struct {
	d      *Dialog
	fork   *earlyDialog // nil outside the early dialogs of our INVITE
	target sip.Uri      // where it went
	offer  Body
	waiter *waiter
}

func (u *updateClient) response(res *sip.Response) {
	if res.IsProvisional() {
		return
	}
	if u.over(res) && !res.IsSuccess() {
		u.d.failed(u.fork, sip.UPDATE, res.StatusCode, res.Reason)
	}
	u.waiter.response(res)
}

func (u *updateClient) done(err error) {
	if err == nil {
		return
	}
	if u.over(nil) {
		u.d.unanswered(u.fork, sip.UPDATE, err)
	}
	u.waiter.done(err)
}

// mayRepeatLocked keeps an UPDATE in an early dialog that was left from going out
// once more in another.
func (u *updateClient) mayRepeatLocked() error {
	if u.d.currentLocked().updateOut != u {
		return ErrCanceled
	}
	return nil
}

// over takes the outcome, nil when there is no response, and lets another UPDATE
// begin. It reports false for one in an early dialog that is not the call's any
// more: what comes of it changes nothing but that.
func (u *updateClient) over(res *sip.Response) (ours bool) {
	u.d.mutex.Lock()
	defer u.d.mutex.Unlock()
	s := u.d.stateOfLocked(u.fork)
	ours = u.d.currentLocked().updateOut == u
	if s.updateOut == u {
		s.updateOut = nil
		if res != nil && res.IsSuccess() {
			u.acceptedLocked(s, res)
		}
		s.negotiation.Rollback(u)
	}
	u.d.tellIdentityLocked()
	return ours
}

// acceptedLocked takes a 2xx.
func (u *updateClient) acceptedLocked(s *dialogState, res *sip.Response) {
	d := u.d
	s.answeredAtLocked(u.target, res)
	s.negotiation.ReceiveAnswer(u)
	if d.state == DialogStateEstablished {
		d.agreeTimerLocked(res, sessiontimer.UAC, res)
	}
	if u.offer != nil {
		d.keepBodyLocked(bodyOf(res))
	}
}
