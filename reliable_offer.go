package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipmsg"
)

// handlePrack takes a PRACK (RFC 3262 3): 200 when it acknowledges the response
// that waits for it, else 481. The answer waits for nothing but the decision
// about an offer in the PRACK, which has two seconds.
func (d *Dialog) handlePrack(tx serverTx, req *sipmsg.Message) {
	ack, ok := rackOf(req)
	if !ok {
		d.stack.respond(tx, badRack(tx))
		return
	}
	d.mutex.Lock()
	p := d.incoming.reliable.acknowledged(ack)
	if p == nil {
		d.mutex.Unlock()
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	answer := d.takePrackLocked(tx, p, req)
	next := d.nextProvisionalLocked()
	d.mutex.Unlock()
	answer()
	if err := next(); err != nil {
		d.log().Debug("provisional response could not be sent", "error", err)
	}
}

func badRack(tx serverTx) *sip.Response {
	return tx.NewResponse(sip.StatusBadRequest, "RAck missing or malformed")
}

// takePrackLocked takes over what a PRACK brings besides (RFC 3262 5): the answer
// to our offer, or an offer once the INVITE's has been answered. What it returns
// answers the PRACK.
func (d *Dialog) takePrackLocked(tx serverTx, p *provisional, req *sipmsg.Message) (answer func()) {
	s := d.currentLocked()
	body, answersUs := sessionIn(req), s.negotiation.IsOpen(p)
	if p.body != nil {
		s.negotiation.SendAnswer(p.tx, p.body, offeranswer.ByApplication)
	}
	if body != nil {
		s.negotiation.ReceiveAnswer(p)
	}
	s.negotiation.Rollback(p)
	switch {
	case answersUs || body == nil || !offeranswer.IsSDP(body): // any other body is taken as in an ACK (RFC 3262 3)
		d.keepBodyLocked(bodyOf(req))
	case d.mayOfferInPrackLocked():
		s.updateIn = &updateServer{tx: tx, body: bodyOf(req), offer: body, prack: true, cancel: func() {}}
		s.negotiation.ReceiveOffer(s.updateIn, body)
		return d.answerUpdateLocked(s.updateIn)
	default:
		// Two offers at once: the PRACK gets its 200 all the same, and no answer.
		return func() {
			d.log().Debug("offer in a PRACK out of turn")
			d.answerPrack(tx, nil)
		}
	}
	return func() { d.answerPrack(tx, nil) }
}

// mayOfferInPrackLocked reports whether the INVITE's offer, or ours, was answered,
// and no other one, and no UPDATE, is open.
func (d *Dialog) mayOfferInPrackLocked() bool {
	s := d.currentLocked()
	return s.negotiation.Agreed() && s.negotiation.State() == offeranswer.Stable && s.updateIn == nil &&
		d.ending == nil && d.state != DialogStateTerminated
}

// answerPrack writes the 200 to a PRACK; then the INVITE may be accepted.
func (d *Dialog) answerPrack(tx serverTx, body Body) {
	res := tx.NewResponse(sip.StatusOK, "")
	setBody(res, body)
	d.stack.respond(tx, res)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.incoming.reliable.changed.Wake()
}

// acceptPrack answers the offer in a PRACK.
func (d *Dialog) acceptPrack(in *updateServer, answer Body, made offeranswer.Origin) {
	answer = ownBody(answer)
	defer in.cancel()
	d.mutex.Lock()
	if !d.claimUpdateLocked(in) {
		d.mutex.Unlock()
		return
	}
	s := d.currentLocked()
	answer = s.negotiation.Numbered(answer)
	s.negotiation.SendAnswer(in, answer, made)
	d.logAcceptedLocked(sip.PRACK, made)
	d.mutex.Unlock()
	d.answerPrack(in.tx, answer)
}

// refusePrack refuses the offer in a PRACK. The PRACK itself cannot be refused
// (RFC 3262 3): its 200 answers with every port 0, and our last session is
// offered anew, or the call ends (RFC 6337 2.3).
func (d *Dialog) refusePrack(in *updateServer) {
	answer, again := d.withoutMedia(in.offer)
	if !d.claimUpdate(in) {
		return
	}
	in.cancel()
	d.logRefused(sip.PRACK, sip.StatusNotAcceptableHere)
	d.mutex.Lock()
	d.currentLocked().negotiation.Sent(answer)
	d.mutex.Unlock()
	d.answerPrack(in.tx, answer)
	if d.State() == DialogStateTerminated {
		return
	}
	d.background(func() { d.offerAgain(again) })
}

// withoutMedia is the answer that refuses all of an offer, and our session as the
// offer to follow it; nil when there is none.
func (d *Dialog) withoutMedia(offer *SimpleBody) (answer, again Body) {
	d.mutex.RLock()
	standing, allowsUpdate := d.currentLocked().negotiation, d.incoming.reliable.allowsUpdate
	d.mutex.RUnlock()
	if answer = standing.Refusal(offer); answer == nil || !allowsUpdate {
		return answer, nil
	}
	standing.Sent(answer) // a copy's: what follows comes after it
	ours, err := standing.Offer()
	if err != nil {
		return answer, nil
	}
	return answer, ours
}

// offerAgain offers our session by UPDATE, and ends the call when that leads to
// nothing.
func (d *Dialog) offerAgain(offer Body) {
	if offer != nil {
		ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
		defer cancel()
		if _, err := d.Update(ctx, offer); err == nil {
			return
		}
	}
	e := offerRefusedBecause(Cause{By: PartyLocal, Method: "PRACK"})
	e.status = sip.StatusNotAcceptableHere
	d.hangup(e)
}
