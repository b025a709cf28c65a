package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Update changes the session by UPDATE (RFC 3311), or only refreshes the target if offer
// is nil. Unlike a re-INVITE it also works before the call is answered, once the peer's
// tag is known, and the peer decides at once. Update returns the answer in the 2xx, nil
// without an offer. After a 491, or a 500 or 503 with Retry-After, the UPDATE is sent
// again, as for ReInvite. If the peer does not respond for TxTimeout, the call ends (RFC
// 3261 12.2.1.2), unless StackConfig.KeepUnanswered is set.
//
// Errors: *StateError, ErrPending (another UPDATE, or an offer in either direction, is
// open; an offer will come in the response to a re-INVITE; an ACK waits for OnOffer; or
// the offer is made before reliable provisional responses have established a session),
// *ResponseError, ErrTimeout, ErrTransport, ErrTerminated, that of ctx.
func (d *Dialog) Update(ctx context.Context, offer Body, headers ...Header) (result Body, err error) {
	defer naming("Update", &err)
	if ctx == nil {
		return nil, errNilContext("Update")
	}
	return d.updateFork(ctx, "", offer, headers)
}

// UpdateFork is Update in one of several early dialogs, each of which has its own session
// (RFC 3261 12.1, RFC 3311 5.1): fork is the name of [WithFork] for an incoming call, and
// ForkInfo.RemoteTag for an outgoing one, or empty for the early dialog of Update. A failure
// that would end the call ends the early dialog only, while there are others.
//
// Errors: those of Update; ErrInvalidArgument (no such early dialog), ErrTerminated (it has
// ended).
func (d *Dialog) UpdateFork(ctx context.Context, fork string, offer Body, headers ...Header) (result Body, err error) {
	defer naming("UpdateFork", &err)
	if ctx == nil {
		return nil, errNilContext("UpdateFork")
	}
	return d.updateFork(ctx, fork, offer, headers)
}

func (d *Dialog) updateFork(ctx context.Context, fork string, offer Body, headers []Header) (Body, error) {
	offer = ownBody(offer)
	if err := firstError(checkBody(offer), checkHeaders(headers, offer, checkHeader)); err != nil {
		return nil, err
	}
	return d.retrying(ctx, "Update", func() (Body, error) { return d.updateOnce(ctx, fork, offer, headers) })
}

func (d *Dialog) updateOnce(ctx context.Context, fork string, offer Body, headers []Header) (Body, error) {
	w, err := d.sendUpdate(ctx, fork, offer, headers)
	if err != nil {
		return nil, err
	}
	res, err := w.Wait(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case res.Status >= 300:
		return nil, newResponseError(sip.UPDATE, res)
	case offer == nil:
		return nil, nil // a body answers nothing
	}
	return receivedSession(res), nil
}

// sendUpdate writes an UPDATE when no other one, and no offer, is open (RFC
// 3311 5.1).
func (d *Dialog) sendUpdate(ctx context.Context, fork string, offer Body, headers []Header) (*retry.Waiter, error) {
	var e *earlyDialog
	if err := d.lockToSendIf(ctx, "UPDATE", func() (err error) {
		if e, err = d.namedForkLocked(fork); err != nil {
			return err
		}
		return d.mayUpdateLocked(d.stateOfLocked(e), offer)
	}); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	s := d.stateOfLocked(e)
	req, err := s.nextRequestLocked(sip.UPDATE)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	req.AddHeader(d.stack.allow(d.handlersLocked()))
	req.AddHeader(d.stack.supported())
	d.askTimerLocked(req)
	addHeaders(req, headers)
	offer = s.negotiation.Numbered(offer)
	putBody(req, offer)
	out := &updateClient{d: d, fork: e, target: s.Target(), offer: offer, waiter: retry.NewWaiter(callError)}
	s.updateOut = out
	s.negotiation.SendOffer(out, offer, offeranswer.ByApplication)
	err = s.unlockAndSend(ctx, req, out.fork, out.mayRepeatLocked, func(x *retry.Request) {
		x.OnResponse, x.OnDone = out.response, out.done
	})
	if err != nil {
		out.over(nil)
		return nil, err
	}
	return out.waiter, nil
}

func (d *Dialog) mayUpdateLocked(s *dialogState, offer Body) error {
	switch {
	case d.ending != nil || !d.isEarlyLocked() && d.state != DialogStateEstablished:
		return &StateError{Op: "Update", State: d.state, Need: "Established state or an early dialog"}
	case d.ackWaits, s.updateOut != nil, offer != nil && (s.negotiation.State() != offeranswer.Stable || d.offerToComeLocked() || s.lacksSessionLocked()):
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
	if d.phase != phaseInviting {
		return false
	}
	current := d.invite.forks.Current()
	return current == nil || current.Ended()
}

// lacksSessionLocked reports whether reliable provisional responses to the INVITE,
// which is not answered, have brought no offer and answer yet (RFC 3311 5.1).
func (s *dialogState) lacksSessionLocked() bool {
	return (s.d.phase == phaseInviting || s.d.phase == phaseIncoming) && !s.negotiation.Agreed()
}

// updateClient is an UPDATE of ours that has no final response.
type updateClient struct {
	d      *Dialog
	fork   *earlyDialog // nil outside early dialogs, and in that of the automatic 180
	target sip.Uri      // where it went
	offer  Body
	waiter *retry.Waiter
}

func (u *updateClient) response(res *sipmsg.Message) {
	if res.IsProvisional() {
		return
	}
	if u.over(res) && !res.IsSuccess() {
		u.d.failed(u.fork, sip.UPDATE, res.Status, res.Reason)
	}
	u.waiter.Response(res)
}

func (u *updateClient) done(err error) {
	if err == nil {
		return
	}
	if u.over(nil) {
		u.d.unanswered(u.fork, sip.UPDATE, err)
	}
	u.waiter.Done(err)
}

// mayRepeatLocked keeps an UPDATE in an early dialog that was left from going out
// once more in another.
func (u *updateClient) mayRepeatLocked() error {
	if u.d.stateOfLocked(u.fork).updateOut != u || u.fork != nil && u.fork.Ended() {
		return ErrCanceled
	}
	return nil
}

// over handles the outcome, nil if there is no response, and lets another UPDATE begin. It
// reports false for an UPDATE in an early dialog that has ended: nothing depends on it.
func (u *updateClient) over(res *sipmsg.Message) (ours bool) {
	u.d.mutex.Lock()
	defer u.d.mutex.Unlock()
	s := u.d.stateOfLocked(u.fork)
	ours = s.updateOut == u && !u.fork.isGone()
	if s.updateOut == u {
		s.updateOut = nil
		if res != nil && res.IsSuccess() {
			u.acceptedLocked(s, res)
		}
		s.rollbackLocked(u, receivedAs(sip.UPDATE, res))
	}
	u.d.tellIdentityLocked()
	return ours
}

// acceptedLocked handles a 2xx.
func (u *updateClient) acceptedLocked(s *dialogState, res *sipmsg.Message) {
	d := u.d
	s.answeredAtLocked(u.target, res)
	body, session := bodiesIn(res)
	s.takeAnswerLocked(u, session, receivedAs(sip.UPDATE, res))
	if d.state == DialogStateEstablished {
		d.changedLocked()
		d.agreeTimerLocked(res, sessiontimer.UAC, res)
	}
	if u.offer != nil {
		d.keepBodyLocked(body)
	}
}

// updateServer is an UPDATE of the peer (RFC 3311 5.2) whose final response is
// not decided. Its fields are set at construction, but for flow.
type updateServer struct {
	tx   serverTx
	fork *earlyDialog
	// body is its body, offer the session description in the body.
	body, offer *SimpleBody
	cancel      context.CancelFunc
	// prack is true when it is a PRACK with an offer, which is decided alike
	// (RFC 3262 5).
	prack bool
	// flow is as a reinviteServer's.
	flow *transport.Flow
}

// moveLocked has its answer go where the peer is now.
func (in *updateServer) moveLocked(f *transport.Flow) {
	in.flow = f
	in.tx.ReplyBy(f)
}

// handleUpdate handles an UPDATE (RFC 3311 5.2). An offer in it is decided within
// two seconds, or refused with 504: a non-INVITE cannot wait longer.
func (d *Dialog) handleUpdate(tx serverTx, req *sipmsg.Message, e *earlyDialog) {
	in := &updateServer{tx: tx, fork: e, cancel: func() {}, flow: tx.Flow()}
	in.body, in.offer = d.stack.bodiesOf(req)
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

// answerUpdateLocked returns a function that answers an UPDATE, or a PRACK with an offer,
// or calls the application for the decision. It is called without locks.
func (d *Dialog) answerUpdateLocked(in *updateServer) (answer func()) {
	var ctx context.Context
	handler := d.offerDeciderLocked().decide
	var request *OfferRequest
	if in.offer != nil && handler != nil {
		request = d.stateOfLocked(in.fork).offerRequestLocked(in.tx.Message().Method, in.tx.Message(), in.offer)
		ctx, in.cancel = context.WithTimeout(context.Background(), decisionTime)
	}
	ours := d.stateOfLocked(in.fork).negotiation
	d.keepOfferLocked(in.body)
	return func() {
		switch {
		case in.offer == nil:
			d.acceptUpdate(in, nil, offeranswer.ByDefault)
		case handler == nil:
			d.answerUpdate(in, ours)
		case !d.stack.calls.Go(func() { d.decide(ctx, d.updateOffered(in, handler, request)) }):
			d.refuseUpdate(in, &Refusal{Status: sip.StatusServiceUnavailable})
		}
	}
}

// answerUpdate answers an offer that no callback decides. The 200 to an UPDATE must have
// an answer (RFC 3311 5.2); if none is possible, the offer is refused. A PRACK cannot be
// refused (RFC 3262 3): an unreadable offer in it gets a 200 without an answer.
func (d *Dialog) answerUpdate(in *updateServer, ours offeranswer.Negotiation) {
	answer, err := defaultAnswer(&ours, in.tx.Message(), in.offer)
	switch {
	case in.prack && errors.Is(err, sdp.ErrUnreadable):
		d.acceptUpdate(in, nil, offeranswer.ByDefault)
	case err != nil:
		d.refuseUpdate(in, refusalFor(err))
	case answer == nil && offeranswer.IsSDP(in.offer) && !in.prack:
		d.refuseUpdate(in, &Refusal{Status: sip.StatusNotAcceptableHere})
	default:
		d.acceptUpdate(in, answer, offeranswer.ByDefault)
	}
}

// beginUpdateLocked opens an UPDATE, or returns why not.
func (d *Dialog) beginUpdateLocked(in *updateServer) (refusal *sip.Response) {
	s := d.stateOfLocked(in.fork)
	if refusal = s.refuseUpdateLocked(in); refusal == nil {
		s.updateIn = in
		s.negotiation.ReceiveOffer(in, in.offer)
	}
	return refusal
}

func (s *dialogState) refuseUpdateLocked(in *updateServer) *sip.Response {
	switch {
	case s.updateIn != nil, in.offer != nil && (s.negotiation.State() == offeranswer.HaveRemoteOffer || s.d.reinviteIn != nil || s.d.isHoldingLocked()):
		return tooSoon(in.tx)
	case in.offer != nil && s.negotiation.State() == offeranswer.HaveLocalOffer:
		return in.tx.NewResponse(sip.StatusRequestPending, "")
	}
	return nil
}

func (d *Dialog) updateOffered(in *updateServer, handler OfferRequestHandler, r *OfferRequest) offered {
	return offered{
		request: r, handler: handler,
		accept: func(answer Body) { d.acceptUpdate(in, answer, offeranswer.ByApplication) },
		refuse: func(how *Refusal) { d.refuseUpdate(in, how) },
	}
}

// claimUpdate decides which caller refuses the UPDATE, with that status: exactly one gets
// true.
func (d *Dialog) claimUpdate(in *updateServer, status int) (ours bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if ours = d.claimUpdateLocked(in); ours {
		d.stateOfLocked(in.fork).rollbackLocked(in, sentBy(in.tx.Message().Method, status))
	}
	return ours
}

// claimUpdateLocked decides which caller answers the UPDATE, with a 2xx or a refusal.
func (d *Dialog) claimUpdateLocked(in *updateServer) (ours bool) {
	s := d.stateOfLocked(in.fork)
	if ours = s.updateIn == in; ours {
		s.updateIn = nil
	}
	if ours && in.prack {
		d.provisionalsLocked().writing++ // until answerPrack has written
	}
	return ours
}

func (d *Dialog) acceptUpdate(in *updateServer, answer Body, made offeranswer.Origin) {
	if in.prack {
		d.acceptPrack(in, answer, made)
		return
	}
	res := d.newAnswer(in.tx)
	answer = ownBody(answer)
	defer in.cancel()
	d.mutex.Lock()
	if !d.claimUpdateLocked(in) {
		d.mutex.Unlock()
		return
	}
	s := d.stateOfLocked(in.fork)
	s.refreshTargetLocked(in.tx.Message())
	s.learnFlowLocked(in.tx.Message(), in.flow)
	ours := s.negotiation.Numbered(answer)
	setBody(res, ours)
	s.giveAnswerLocked(in, ours, made, sentBy(sip.UPDATE, sip.StatusOK))
	d.tellIdentityLocked()
	if in.offer != nil {
		d.logAcceptedLocked(sip.UPDATE, made)
	}
	if d.state == DialogStateEstablished {
		d.agreeTimerLocked(res, sessiontimer.UAS, in.tx.Message())
	}
	held := d.saveAnswerLocked()
	d.mutex.Unlock()
	if !held {
		d.stack.respond(in.tx, res)
		return
	}
	d.respondWhenSaved(in.tx, res, func() bool { d.awaitSaved(); return d.State() != DialogStateTerminated })
}

// refuseUpdate answers with a failure: session and target stay.
func (d *Dialog) refuseUpdate(in *updateServer, how *Refusal) {
	if in.prack {
		d.refusePrack(in)
		return
	}
	if !d.claimUpdate(in, how.status()) {
		return
	}
	in.cancel()
	d.logRefused(sip.UPDATE, how.status())
	d.stack.refuseWith(in.tx, how)
}
