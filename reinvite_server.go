package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipmsg"
)

// reinviteServer is a re-INVITE of the peer's (RFC 3261 14.2) whose final
// answer is not decided. Its fields are set at construction.
type reinviteServer struct {
	tx serverTx
	// cancel ends the application's decision.
	cancel context.CancelFunc
}

// handleReInvite takes a re-INVITE, or tells the peer to wait (RFC 3261 14.2,
// RFC 5407 3.1.4, 3.1.5).
func (d *Dialog) handleReInvite(tx serverTx, req *sipmsg.Message) {
	ctx, cancel := d.decisionContext()
	in := &reinviteServer{tx: tx, cancel: cancel}
	body, offer := d.stack.bodiesOf(req)

	d.mutex.Lock()
	if refusal := d.refuseReInviteLocked(tx); refusal != nil {
		d.mutex.Unlock()
		cancel()
		d.stack.respond(tx, refusal)
		return
	}
	d.reinviteIn = in
	s := d.currentLocked()
	s.negotiation.ReceiveOffer(in, offer)
	d.keepBodyLocked(body)
	handler, ours := d.callbacksLocked().offer, s.negotiation
	d.mutex.Unlock()
	// Not before it is known here: an INVITE of ours that follows the 100 is a mistake
	// of ours (RFC 3261 14.1), one that does not merely crosses.
	tx.Trying()

	if handler == nil {
		d.answerReInvite(in, ours, offer)
		return
	}
	decide := offered{
		offer: offer, handler: handler,
		accept: func(answer Body) { d.acceptReInvite(in, answer, offeranswer.ByApplication) },
		refuse: func(how *Refusal) { d.refuseReInvite(in, how) },
	}
	if !d.stack.calls.Go(func() { d.decide(ctx, decide) }) {
		d.refuseReInvite(in, &Refusal{Status: sip.StatusServiceUnavailable})
	}
}

// answerReInvite answers one that nobody decides.
func (d *Dialog) answerReInvite(in *reinviteServer, ours offeranswer.Negotiation, offer *SimpleBody) {
	answer, err := defaultAnswer(&ours, in.tx.Message(), offer)
	if err != nil {
		d.refuseReInvite(in, refusalFor(err))
		return
	}
	d.acceptReInvite(in, answer, offeranswer.ByDefault)
}

// offerToComeLocked reports whether a re-INVITE without an offer, in either
// direction, is to bring one in its answer: until then nobody makes another in an
// UPDATE (RFC 6337 4.1, 4.2, figures 5 and 12).
func (d *Dialog) offerToComeLocked() bool {
	out := d.reinviteOut
	return d.reinviteIn != nil || out != nil && !out.reliable.offered && !out.reliable.negotiated
}

func (d *Dialog) refuseReInviteLocked(tx serverTx) *sip.Response {
	negotiation := d.currentLocked().negotiation.State()
	switch {
	case d.phase == phaseIncoming || d.reinviteIn != nil:
		return tooSoon(tx)
	case d.phase == phaseInviting || d.reinviteOut != nil || d.ackWaits || negotiation == offeranswer.HaveLocalOffer:
		return tx.NewResponse(sip.StatusRequestPending, "")
	case negotiation == offeranswer.HaveRemoteOffer: // that of an UPDATE
		return tooSoon(tx)
	}
	return nil
}

// claimReInvite decides who refuses the re-INVITE: exactly one caller.
func (d *Dialog) claimReInvite(in *reinviteServer) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.reinviteIn != in {
		return false
	}
	d.reinviteIn = nil
	d.currentLocked().negotiation.Rollback(in)
	return true
}

// acceptReInvite answers 200: the target refreshes (RFC 3261 12.2.2) and the
// 200 repeats until its ACK.
func (d *Dialog) acceptReInvite(in *reinviteServer, answer Body, made offeranswer.Origin) {
	req := in.tx.Message()
	res := d.newAnswer(in.tx)
	answer = ownBody(answer)
	defer in.cancel()

	d.mutex.Lock()
	if d.reinviteIn != in || d.state != DialogStateEstablished {
		d.mutex.Unlock()
		d.refuseReInvite(in, &Refusal{Status: sip.StatusRequestTerminated})
		return
	}
	d.reinviteIn = nil
	s := d.currentLocked()
	s.refreshTargetLocked(req)
	d.tellIdentityLocked()
	s.learnFlowLocked(in.tx)
	u := &retransmission{tx: in.tx, seq: cseq(req)}
	ours := s.negotiation.Numbered(answer)
	setBody(res, ours)
	if s.negotiation.IsOpen(in) {
		s.negotiation.SendAnswer(in, ours, made)
		d.logAcceptedLocked(sip.INVITE, made)
	} else {
		s.negotiation.SendOffer(u, ours, made)
	}
	d.agreeTimerLocked(res, sessiontimer.UAS, req)
	d.retransmitLocked(u)
	d.mutex.Unlock()
	d.stack.respond(in.tx, res)
}

// refuseReInvite answers with a failure: session and target stay.
func (d *Dialog) refuseReInvite(in *reinviteServer, how *Refusal) {
	if !d.claimReInvite(in) {
		return
	}
	in.cancel()
	d.logRefused(sip.INVITE, how.status())
	d.stack.refuseWith(in.tx, how)
}

// cancelReInvite answers a cancelled re-INVITE 487; the call goes on.
func (d *Dialog) cancelReInvite(tx serverTx) {
	d.mutex.RLock()
	in := d.reinviteIn
	d.mutex.RUnlock()
	if in != nil && in.tx == tx {
		d.refuseReInvite(in, &Refusal{Status: sip.StatusRequestTerminated})
	}
}
