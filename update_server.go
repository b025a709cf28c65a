package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipmsg"
)

// updateServer is an UPDATE of the peer's (RFC 3311 5.2) whose final answer is
// not decided. Its fields are set at construction.
type updateServer struct {
	tx   serverTx
	fork *earlyDialog
	// body is what it carries, offer the session description in that.
	body, offer *SimpleBody
	cancel      context.CancelFunc
	// prack is true when it is a PRACK with an offer, which is decided alike
	// (RFC 3262 5).
	prack bool
}

// handleUpdate takes an UPDATE (RFC 3311 5.2). An offer in it is decided within
// two seconds, or refused with 504: a non-INVITE cannot wait longer.
func (d *Dialog) handleUpdate(tx serverTx, req *sipmsg.Message, e *earlyDialog) {
	in := &updateServer{tx: tx, fork: e, cancel: func() {}}
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

// answerUpdateLocked returns what answers an UPDATE, or a PRACK with an offer, or
// has the application decide; it is called without locks.
func (d *Dialog) answerUpdateLocked(in *updateServer) (answer func()) {
	var ctx context.Context
	handler := d.callbacksLocked().offer
	if in.offer != nil && handler != nil {
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
		case !d.stack.calls.Go(func() { d.decide(ctx, d.updateOffered(in, handler)) }):
			d.refuseUpdate(in, &Refusal{Status: sip.StatusServiceUnavailable})
		}
	}
}

// answerUpdate answers an offer that nobody decides. The 200 to an UPDATE has to
// answer it (RFC 3311 5.2): where that cannot be, the offer is refused. A PRACK cannot
// be (RFC 3262 3): what cannot be read in it gets a 200 without an answer.
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
	case s.updateIn != nil, in.offer != nil && (s.negotiation.State() == offeranswer.HaveRemoteOffer || s.d.reinviteIn != nil):
		return tooSoon(in.tx)
	case in.offer != nil && s.negotiation.State() == offeranswer.HaveLocalOffer:
		return in.tx.NewResponse(sip.StatusRequestPending, "")
	}
	return nil
}

func (d *Dialog) updateOffered(in *updateServer, handler OfferHandler) offered {
	return offered{
		offer: in.offer, handler: handler,
		accept: func(answer Body) { d.acceptUpdate(in, answer, offeranswer.ByApplication) },
		refuse: func(how *Refusal) { d.refuseUpdate(in, how) },
	}
}

// claimUpdate decides who refuses the UPDATE: exactly one caller.
func (d *Dialog) claimUpdate(in *updateServer) (ours bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if ours = d.claimUpdateLocked(in); ours {
		d.stateOfLocked(in.fork).negotiation.Rollback(in)
	}
	return ours
}

// claimUpdateLocked is that for whoever answers it either way.
func (d *Dialog) claimUpdateLocked(in *updateServer) (ours bool) {
	s := d.stateOfLocked(in.fork)
	if ours = s.updateIn == in; ours {
		s.updateIn = nil
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
	s.learnFlowLocked(in.tx)
	ours := s.negotiation.Numbered(answer)
	setBody(res, ours)
	s.negotiation.SendAnswer(in, ours, made)
	d.tellIdentityLocked()
	if in.offer != nil {
		d.logAcceptedLocked(sip.UPDATE, made)
	}
	if d.state == DialogStateEstablished {
		d.agreeTimerLocked(res, sessiontimer.UAS, in.tx.Message())
	}
	d.mutex.Unlock()
	d.stack.respond(in.tx, res)
}

// refuseUpdate answers with a failure: session and target stay.
func (d *Dialog) refuseUpdate(in *updateServer, how *Refusal) {
	if in.prack {
		d.refusePrack(in)
		return
	}
	if !d.claimUpdate(in) {
		return
	}
	in.cancel()
	d.logRefused(sip.UPDATE, how.status())
	d.stack.refuseWith(in.tx, how)
}
