package dialog

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"
)

// updateServer is an UPDATE of the peer's (RFC 3311 5.2) whose final answer is
// not decided. Its fields are set at construction.
type updateServer struct {
	tx     serverTx
	fork   *earlyDialog
	offer  *SimpleBody
	cancel context.CancelFunc
	// prack is true when it is a PRACK with an offer, which is decided alike
	// (RFC 3262 5).
	prack bool
}

// Update changes the session, or without an offer only refreshes the target, by
// UPDATE (RFC 3311): unlike a re-INVITE also before the call is answered, once
// the peer's tag is known, and the peer decides at once. It returns the answer
// that the 2xx brings, nil without an offer, and sends again after a 491, or a
// 500 or 503 with Retry-After, as ReInvite does.
//
// Errors: *StateError, ErrPending (another UPDATE, or an offer in either
// direction, is open, one is to come in the answer to a re-INVITE, an ACK waits for
// OnOffer, or an offer comes before reliable provisional responses have agreed upon
// a session), *ResponseError, ErrTimeout, ErrTransport, ErrTerminated, ctx's.
func (d *Dialog) Update(ctx context.Context, offer Body, headers ...Header) (Body, error) {
	if ctx == nil {
		return nil, errNilContext("Update")
	}
	offer = ownBody(offer)
	return d.retrying(ctx, "Update", func() (Body, error) { return d.updateOnce(ctx, offer, headers) })
}

func (d *Dialog) updateOnce(ctx context.Context, offer Body, headers []Header) (Body, error) {
	w, err := d.sendUpdate(ctx, offer, headers)
	if err != nil {
		return nil, err
	}
	res, err := w.wait(ctx, "UPDATE")
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode >= 300:
		return nil, newResponseError(sip.UPDATE, res)
	case offer == nil:
		return nil, nil // a body answers nothing
	}
	return keptOrNil(bodyOf(res)), nil
}

// sendUpdate writes an UPDATE when no other one, and no offer, is open (RFC
// 3311 5.1).
func (d *Dialog) sendUpdate(ctx context.Context, offer Body, headers []Header) (*waiter, error) {
	if err := d.lockInTurnIf(ctx, "UPDATE", func() error { return d.mayUpdateLocked(offer) }); err != nil {
		return nil, err
	}
	defer d.turn.release()
	req := d.nextRequestLocked(sip.UPDATE)
	req.AppendHeader(sip.NewHeader("Allow", d.config().allowed()))
	req.AppendHeader(sip.NewHeader("Supported", d.config().supported()))
	d.askTimerLocked(req)
	appendHeaders(req, headers)
	setBody(req, offer)
	out := &updateClient{d: d, fork: d.currentForkLocked(), target: *d.remoteTarget.Clone(), offer: offer, waiter: newWaiter()}
	d.updateOut = out
	d.session.offer(out, offer, byApplication)
	opt := d.optionsLocked()
	d.mutex.Unlock()

	x, err := d.exchangeIn(out.fork, opt, out.mayRepeatLocked)
	if err == nil {
		x.response, x.done = out.response, out.done
		err = x.send(ctx, req)
	}
	if err != nil {
		out.over(nil)
		return nil, fmt.Errorf("dialog: UPDATE: %w", err)
	}
	return out.waiter, nil
}

func (d *Dialog) mayUpdateLocked(offer Body) error {
	switch {
	case d.ending != nil || !d.isEarlyLocked() && d.state != DialogStateEstablished:
		return &StateError{Op: "Update", State: d.state, Need: "Established state, or a peer that rings"}
	case d.ackWaits, d.updateOut != nil, offer != nil && (d.session.open != noOffer || d.offerToComeLocked() || d.noSessionLocked()):
		return ErrPending
	}
	return nil
}

// isEarlyLocked reports whether there is an early dialog (RFC 3261 12.1) to send
// requests in.
func (d *Dialog) isEarlyLocked() bool {
	return d.state == DialogStateRinging && d.remoteTag != "" && !d.legEndedLocked()
}

// legEndedLocked reports whether no early dialog of our INVITE is left.
func (d *Dialog) legEndedLocked() bool {
	return d.phase == phaseInviting && (d.invite.current == nil || d.invite.current.ended)
}

// noSessionLocked reports whether reliable provisional responses to the INVITE,
// which is not answered, have brought no offer and answer yet (RFC 3311 5.1).
func (d *Dialog) noSessionLocked() bool {
	return (d.phase == phaseInviting || d.phase == phaseOffered) && !d.session.agreed
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
		u.d.failedIn(u.fork, sip.UPDATE, res.StatusCode, res.Reason)
	}
	u.waiter.response(res)
}

func (u *updateClient) done(err error) {
	if err == nil {
		return
	}
	if u.over(nil) {
		u.d.unansweredIn(u.fork, sip.UPDATE, err)
	}
	u.waiter.done(err)
}

// mayRepeatLocked keeps an UPDATE in an early dialog that was left from going out
// once more in another.
func (u *updateClient) mayRepeatLocked() error {
	if u.d.updateOut != u {
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
	ours = u.d.updateOut == u
	u.d.inForkLocked(u.fork, func() {
		if u.d.updateOut != u {
			return
		}
		u.d.updateOut = nil
		if res != nil && res.IsSuccess() {
			u.acceptedLocked(res)
		}
		u.d.session.rollback(u)
	})
	return ours
}

// acceptedLocked takes a 2xx.
func (u *updateClient) acceptedLocked(res *sip.Response) {
	d := u.d
	d.answeredAtLocked(u.target, res)
	d.session.answered(u)
	if d.state == DialogStateEstablished {
		d.agreeTimerLocked(res, false, res)
	}
	if u.offer != nil {
		d.keepBodyLocked(bodyOf(res))
	}
}

// refreshTargetLocked takes over the target that a 2xx to a re-INVITE or UPDATE,
// or such a request itself, names (RFC 3261 12.2.1.2, 12.2.2), and what else it
// says of the peer.
func (d *Dialog) refreshTargetLocked(msg sip.Message) {
	if targets := contacts(msg); len(targets) > 0 {
		d.remoteTarget = targets[0]
	}
	d.learnPackagesLocked(msg)
}

// answeredAtLocked is refreshTargetLocked for the 2xx to a request of ours that
// went to target. Where the peer has moved since by a request of its own, a 2xx
// that names the old target left before that: who can send a request moves by it,
// not by a response (RFC 6141 4.8).
func (d *Dialog) answeredAtLocked(target sip.Uri, res *sip.Response) {
	now := d.remoteTarget
	d.refreshTargetLocked(res)
	if !sameURI(now, target) && sameURI(d.remoteTarget, target) {
		d.remoteTarget = now
	}
}

// handleUpdate takes an UPDATE (RFC 3311 5.2). An offer in it is decided within
// two seconds, or refused with 504: a non-INVITE cannot wait longer.
func (d *Dialog) handleUpdate(tx serverTx, req *sip.Request, e *earlyDialog) {
	in := &updateServer{tx: tx, fork: e, offer: bodyOf(req), cancel: func() {}}
	d.mutex.Lock()
	if refusal := d.beginUpdateLocked(in); refusal != nil {
		d.mutex.Unlock()
		d.stack.respond(tx, refusal)
		return
	}
	answer := d.answerUpdateLocked(in)
	d.mutex.Unlock()
	answer()
}

// answerUpdateLocked returns what answers an UPDATE, or a PRACK with an offer, or
// has the application decide; it is called without locks.
func (d *Dialog) answerUpdateLocked(in *updateServer) (answer func()) {
	var ctx context.Context
	handler := d.offerHandler
	if in.offer != nil && handler != nil {
		ctx, in.cancel = context.WithTimeout(context.Background(), decisionTime)
	}
	ours := d.sessionLocked(in.fork)
	d.keepBodyLocked(in.offer)
	return func() {
		switch {
		case in.offer == nil:
			d.acceptUpdate(in, nil, byDefault)
		case handler == nil:
			d.answerUpdate(in, answerToRefresh(in.tx.Request(), ours.answerTo(in.offer), ours.local))
		case !d.stack.calls.Go(func() { d.decideUpdate(ctx, in, handler) }):
			d.refuseUpdate(in, sip.StatusServiceUnavailable)
		}
	}
}

// answerUpdate answers an offer that nobody decides. The 200 to an UPDATE has to
// answer it (RFC 3311 5.2): where that cannot be, the offer is refused.
func (d *Dialog) answerUpdate(in *updateServer, answer Body) {
	if answer == nil && isSDP(in.offer) && !in.prack {
		d.refuseUpdate(in, sip.StatusNotAcceptableHere)
		return
	}
	d.acceptUpdate(in, answer, byDefault)
}

// beginUpdateLocked opens an UPDATE, or returns why not.
func (d *Dialog) beginUpdateLocked(in *updateServer) (refusal *sip.Response) {
	d.inForkLocked(in.fork, func() {
		if refusal = d.refuseUpdateLocked(in); refusal == nil {
			d.updateIn = in
			d.session.receive(in, in.offer)
		}
	})
	return refusal
}

func (d *Dialog) refuseUpdateLocked(in *updateServer) *sip.Response {
	switch {
	case d.updateIn != nil, in.offer != nil && (d.session.open == theirOffer || d.reinviteIn != nil):
		return tooSoon(in.tx)
	case in.offer != nil && d.session.open == ourOffer:
		return in.tx.NewResponse(sip.StatusRequestPending, "")
	}
	return nil
}

// decideUpdate asks the application, on a goroutine of its own.
func (d *Dialog) decideUpdate(ctx context.Context, in *updateServer, handler OfferHandler) {
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.stack.tasks.Run(func() { d.refuseUpdate(in, sip.StatusGatewayTimeout) })
		}
	})
	defer stop()
	answer, err := Body(nil), error(ErrPanic)
	defer func() {
		switch {
		case ctx.Err() != nil:
			d.refuseUpdate(in, sip.StatusGatewayTimeout) // too late, whatever it was
		case err == nil:
			d.acceptUpdate(in, answer, byApplication)
		case errors.Is(err, ErrPanic):
			d.refuseUpdate(in, sip.StatusInternalServerError)
		default:
			d.refuseUpdate(in, sip.StatusNotAcceptableHere)
		}
	}()
	answer, err = d.consult(ctx, handler, in.offer)
}

// claimUpdate decides who refuses the UPDATE: exactly one caller.
func (d *Dialog) claimUpdate(in *updateServer) (ours bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if ours = d.claimUpdateLocked(in); ours {
		d.inForkLocked(in.fork, func() { d.session.rollback(in) })
	}
	return ours
}

// claimUpdateLocked is that for whoever answers it either way.
func (d *Dialog) claimUpdateLocked(in *updateServer) (ours bool) {
	d.inForkLocked(in.fork, func() {
		if ours = d.updateIn == in; ours {
			d.updateIn = nil
		}
	})
	return ours
}

func (d *Dialog) acceptUpdate(in *updateServer, answer Body, made author) {
	if in.prack {
		d.acceptPrack(in, answer, made)
		return
	}
	res, _ := d.newAnswer(in.tx, nil)
	setBody(res, answer)
	defer in.cancel()
	d.mutex.Lock()
	if !d.claimUpdateLocked(in) {
		d.mutex.Unlock()
		return
	}
	d.inForkLocked(in.fork, func() {
		d.refreshTargetLocked(in.tx.Request())
		d.cameByLocked(in.tx)
		d.session.answer(in, keptOrNil(bodyOf(res)), made)
	})
	if d.state == DialogStateEstablished {
		d.agreeTimerLocked(res, true, in.tx.Request())
	}
	d.mutex.Unlock()
	d.stack.respond(in.tx, res)
}

// refuseUpdate answers with a failure: session and target stay.
func (d *Dialog) refuseUpdate(in *updateServer, code int) {
	if in.prack {
		d.refusePrack(in)
		return
	}
	if !d.claimUpdate(in) {
		return
	}
	in.cancel()
	d.stack.answerWith(in.tx, code, offerRefused(code)...)
}

// offerRefused is the Warning that goes with a 488 (RFC 3261 20.43: 399 is the
// miscellaneous one).
func offerRefused(code int) []sip.Header {
	if code != sip.StatusNotAcceptableHere {
		return nil
	}
	return []sip.Header{sip.NewHeader("Warning", `399 dialog "offer refused"`)}
}
