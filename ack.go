package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/txn"
)

// ackSender sends the ACK to the 2xx of one INVITE of ours, and the same
// bytes again for each repetition (RFC 3261 13.2.2.4). Its fields are guarded
// by the dialog's mutex.
type ackSender struct {
	d *Dialog
	// seq and credentials are those of the INVITE: the ACK has the same (RFC
	// 3261 13.2.2.4, 22.1), these as lines.
	seq         uint32
	credentials string
	ack         invite.ACK[ackTx, Body]
}

// leaving records the CSeq and credentials of the INVITE that leaves, which its ACK
// repeats.
func (a *ackSender) leaving(req *draft.Request) {
	a.d.mutex.Lock()
	defer a.d.mutex.Unlock()
	a.seq, a.credentials = req.CSeq(), req.Lines(retry.CredentialHeaders[:]...)
}

// answerOffer acknowledges a 2xx, and then calls then. An offer in the 2xx is decided
// first, by OnOffer, else by our session. Where it is refused the call ends after the
// ACK (RFC 3261 13.2.2.4). ours is the offer of the INVITE.
func (a *ackSender) answerOffer(ours Body, res *sipmsg.Message, then func()) {
	handler, request, answer, err := a.undecided(ours, res)
	if handler == nil {
		a.acknowledgeWith(answer, offeranswer.ByDefault, err, then)
		return
	}
	a.d.finalGoodbye(func() { // a hang-up ends the wait: ACK and BYE follow at once
		answer, made, err := a.d.decideLate(sip.ACK, handler, request, nil)
		a.acknowledgeWith(answer, made, err, then)
	})
}

// acknowledgeWith is acknowledge, and ends the call after the ACK when err refuses the
// offer.
func (a *ackSender) acknowledgeWith(answer Body, made offeranswer.Origin, err error, then func()) {
	if err != nil {
		a.d.hangup(offerRefusedBecause(Cause{By: PartyLocal, Method: "BYE", Err: err}))
	}
	a.acknowledge(answer, made, then)
}

// undecided opens the offer in the 2xx, if there is one. It returns the handler that
// decides it, or the answer when there is none: our session, or, in a call that ends, a
// refusal.
func (a *ackSender) undecided(ours Body, res *sipmsg.Message) (handler OfferRequestHandler, r *OfferRequest, answer Body, err error) {
	d := a.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s := d.currentLocked()
	offer := offerIn2xx(ours, res)
	switch {
	case offer == nil:
		return nil, nil, nil, nil
	case d.ending != nil || d.state == DialogStateTerminated:
		return nil, nil, s.negotiation.Refusal(offer), nil
	}
	s.negotiation.ReceiveOffer(a, offer)
	if handler = d.offerDeciderLocked().decide; handler != nil {
		d.ackWaits = true
		return handler, s.offerRequestLocked(sip.INVITE, res, offer), nil, nil
	}
	answer, err = s.negotiation.AnswerOrRefusal(offer)
	return nil, nil, answer, err
}

// offerIn2xx is the session in a 2xx where that is an offer: the INVITE had none.
func offerIn2xx(ours Body, res *sipmsg.Message) *SimpleBody {
	if !isNilBody(ours) {
		return nil
	}
	return sessionIn(res)
}

// acknowledge sends the ACK, with the answer to an offer in the 2xx if there is one,
// and then calls then. A look-up or a dial is done in the background, so that other
// messages of the call, a BYE above all, do not wait for it. When it fails the peer
// repeats its 2xx, and the ACK is tried again.
func (a *ackSender) acknowledge(body Body, made offeranswer.Origin, then func()) {
	body = a.d.numbered(body)
	held := a.hold(body, made)
	if !held {
		ack, err := a.send(body, true)
		if !errors.Is(err, txn.ErrWouldWait) {
			a.acknowledged(ack, err, body, made)
			then()
			return
		}
	}
	a.d.mutex.Lock()
	a.ack.Begin()
	a.d.mutex.Unlock()
	a.d.finalGoodbye(func() {
		if held {
			a.d.awaitSaved()
		}
		ack, err := a.send(body, false)
		a.acknowledged(ack, err, body, made)
		then()
	})
}

// hold reports whether the ACK waits until the call is saved, with the session that the ACK
// agrees upon.
func (a *ackSender) hold(body Body, made offeranswer.Origin) bool {
	d := a.d
	if d.writer() == nil {
		return false
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s := d.currentLocked()
	before := s.negotiation.Local()
	d.saved.ackAnswers = !isNilBody(body)
	if s.giveAnswerLocked(a, body, made, sentBy(sip.ACK, 0)); s.negotiation.Local() != before {
		d.changedLocked()
	}
	return d.answersSavedLocked()
}

// acknowledged keeps an ACK that was sent, or could not be.
func (a *ackSender) acknowledged(ack ackTx, err error, body Body, made offeranswer.Origin) {
	if err != nil {
		a.d.log().Debug("ACK could not be sent", "error", err)
	}
	a.d.mutex.Lock()
	defer a.d.mutex.Unlock()
	a.ack.Sent(ack, ack != nil, body)
	a.d.ackWaits = false
	a.d.currentLocked().giveAnswerLocked(a, body, made, sentBy(sip.ACK, 0))
}

// send writes the ACK; with now it does not wait.
func (a *ackSender) send(body Body, now bool) (ackTx, error) {
	d := a.d
	d.mutex.RLock()
	s := d.currentLocked()
	req := s.requestLocked(s.Ack(a.seq))
	req.AddLines(a.credentials)
	opt := s.optionsLocked()
	d.mutex.RUnlock()
	opt.NoWait = now
	putBody(req, body)

	layer, err := d.transactionLayer()
	if err != nil {
		return nil, err
	}
	// A repeated 2xx leads to another attempt. Messages after the ACK wait as long: a BYE
	// must not overtake it, and mostly uses the same route.
	ctx := d.baseContext()
	if !now {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.config().timers().T2)
		defer cancel()
	}
	return layer.SendAck(ctx, req, opt)
}

// acknowledgeAgain answers a repeated 2xx. There is nothing to repeat while the ACK
// waits for the application's answer, or is being sent. An ACK that could not be sent
// is not tried again once the call has ended on both sides.
func (a *ackSender) acknowledgeAgain() {
	a.d.mutex.RLock()
	does, ack, body := a.ack.Again(a.d.ackWaits || a.d.phase == phaseCleared)
	flow := a.d.currentLocked().natFlowLocked()
	a.d.mutex.RUnlock()
	switch does {
	case invite.Resend:
		resend := ack.Resend
		if flow != nil {
			resend = func() error { return ack.ResendBy(flow) }
		}
		if err := resend(); err != nil {
			a.d.log().Debug("ACK could not be repeated", "error", err)
		}
	case invite.Resume:
		a.acknowledge(body, offeranswer.ByDefault, func() {})
	}
}

// acknowledgeUnmatched answers a 2xx to an INVITE that another process has sent for a call
// which was restored (RFC 3261 13.2.2.4). That ACK had our session if it was the answer.
func (d *Dialog) acknowledgeUnmatched(seq uint32) {
	d.mutex.RLock()
	s := d.currentLocked()
	may := d.isRestoredLocked() && d.state == DialogStateEstablished && d.ending == nil && seq <= s.LocalSeq()
	var answer Body
	if d.saved != nil && d.saved.ackAnswers {
		answer = s.negotiation.Local()
	}
	d.mutex.RUnlock()
	if !may {
		return
	}
	d.background(func() {
		if _, err := (&ackSender{d: d, seq: seq}).send(answer, false); err != nil {
			d.log().Debug("ACK could not be sent", "error", err)
		}
	})
}

// isRestoredLocked reports whether the call was not made here.
func (d *Dialog) isRestoredLocked() bool { return d.invite == nil && d.arrived == nil }
