package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// reinviteClient is a re-INVITE of ours (RFC 3261 14.1). Its fields are
// guarded by the dialog's mutex.
type reinviteClient struct {
	ackSender
	tx    clientTx
	offer Body
	// target is where it went.
	target sip.Uri
	// canceled is true once the application gave it up; reasons are those of the CANCEL.
	canceled bool
	reasons  []sip.Header
	limit    *deadline.Func
	// final is closed once err, the outcome, stands.
	final chan struct{}
	ended bool
	err   error
	// taken is true once a 2xx has come. body is the session description in it, or in a
	// reliable provisional response before it.
	taken bool
	body  *SimpleBody
	// before is our session before it, reliable takes the provisional responses
	// that are sent reliably.
	before   offeranswer.Negotiation
	reliable *reliableClient
}

// sendReInvite writes a re-INVITE when no other INVITE is open.
func (d *Dialog) sendReInvite(ctx context.Context, opts InviteOpts, build offerBuilder) (*reinviteClient, error) {
	if err := d.lockToSend(ctx, "ReInvite"); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	if err := d.mayInviteLocked(); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	s := d.currentLocked()
	if err := build.intoLocked(&opts, &s.negotiation); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	flow, err := d.stack.usableFlow(opts.Flow, s.Hop())
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	req, err := s.newInviteLocked(opts)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	d.takeFlowLocked(flow)
	d.choseContactLocked(opts.Contact)
	re := s.newReInviteLocked(opts)
	err = s.unlockAndSend(ctx, req, nil, re.mayRepeatLocked, func(x *retry.Request) {
		x.Prepared, x.Leaving, x.Sent = re.prepared, re.leaving, re.written
		x.OnResponse, x.OnDone = re.response, re.done
	})
	if err != nil {
		d.mutex.Lock()
		re.endLocked(err)
		d.mutex.Unlock()
		return nil, err
	}
	return re, nil
}

// newReInviteLocked opens a re-INVITE, and its offer.
func (s *dialogState) newReInviteLocked(opts InviteOpts) *reinviteClient {
	d := s.d
	re := &reinviteClient{
		ackSender: ackSender{d: d}, offer: offeranswer.Description(opts.Body), final: make(chan struct{}),
		target: s.Target(), before: s.negotiation,
	}
	re.reliable = &reliableClient{d: d, carrier: re, offered: !isNilBody(re.offer), propose: opts.PrackOffer}
	d.reinviteOut = re
	s.negotiation.SendOffer(re, re.offer, offeranswer.ByApplication)
	return re
}

// prepared begins a re-INVITE. If an earlier one was refused after reliable responses,
// those responses are over: the next ones are numbered anew (RFC 3262 3), and the offer is
// open again.
func (re *reinviteClient) prepared(*draft.Request) {
	d, r := re.d, re.reliable
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !r.order.Started() {
		return
	}
	r.answered = true
	re.reliable = &reliableClient{d: d, carrier: re, offered: r.offered, propose: r.propose}
	re.body = nil
	d.currentLocked().negotiation.SendOffer(re, re.offer, offeranswer.ByApplication)
}

// mayRepeatLocked returns an error for a cancelled re-INVITE, which is not sent again.
func (re *reinviteClient) mayRepeatLocked() error {
	if re.canceled || re.ended || re.d.ending != nil {
		return ErrCanceled
	}
	return nil
}

// mayInviteLocked refuses a second INVITE, in either direction (RFC 3261 14.1),
// and one while an offer is open: a re-INVITE brings one, here or in its 2xx.
func (d *Dialog) mayInviteLocked() error {
	if d.reinviteOut != nil || d.reinviteIn != nil || d.isHoldingLocked() || d.currentLocked().negotiation.State() != offeranswer.Stable {
		return ErrPending
	}
	return nil
}

// written is inviteClient.inviteWritten for a re-INVITE.
func (re *reinviteClient) written(tx clientTx) {
	re.d.mutex.Lock()
	if re.tx == tx {
		re.d.mutex.Unlock()
		return
	}
	re.tx = tx
	over := re.canceled || re.ended
	if limit := re.d.config().ringingLimit(); limit > 0 && !over && re.limit == nil {
		re.limit = re.d.after(limit, re.expire)
	}
	reasons := re.reasons
	re.d.mutex.Unlock()
	if over {
		tx.Cancel(reasons...)
	}
}

// expire cancels a re-INVITE that the peer leaves undecided.
func (re *reinviteClient) expire() {
	re.d.mutex.Lock()
	re.endLocked(ErrTimeout)
	re.d.mutex.Unlock()
	re.cancel(nil)
}

// cancel cancels the re-INVITE, and says why; the call continues.
func (re *reinviteClient) cancel(reasons []sip.Header) {
	re.d.mutex.Lock()
	re.canceled, re.reasons = true, reasons
	tx := re.tx
	re.d.mutex.Unlock()
	if tx != nil {
		tx.Cancel(reasons...)
	}
}

// endLocked sets the outcome, once. The re-INVITE stays open on the wire until
// its final response; see closeLocked.
func (re *reinviteClient) endLocked(err error) {
	if !re.ended {
		re.ended, re.err = true, err
		stopTimer(re.limit)
		close(re.final)
	}
	if re.tx == nil {
		re.closeLocked(sessionMessage{})
	}
}

// outcome returns the result of a re-INVITE that has ended. Responses after the ringing
// limit may still change it.
func (re *reinviteClient) outcome() (Body, error) {
	re.d.mutex.RLock()
	defer re.d.mutex.RUnlock()
	return keptOrNil(re.body), re.err
}

// closeLocked lets another INVITE begin. An offer without an answer, which by has ended, is
// rolled back.
func (re *reinviteClient) closeLocked(by sessionMessage) {
	re.d.currentLocked().rollbackLocked(re, by)
	re.reliable.answered = true
	if re.d.reinviteOut == re {
		re.d.reinviteOut = nil
	}
}

func (re *reinviteClient) response(res *sipmsg.Message) {
	switch {
	case res.IsProvisional():
		re.provisional(res)
	case res.IsSuccess():
		re.success(res)
	default:
		re.refused(res)
	}
}

// provisional handles a 101 to 199. Only one that is sent reliably changes anything:
// the target, and the session (RFC 6141 3.3, 4.3).
func (re *reinviteClient) provisional(res *sipmsg.Message) {
	re.d.mutex.Lock()
	then := re.provisionalLocked(res)
	re.d.mutex.Unlock()
	then()
}

func (re *reinviteClient) provisionalLocked(res *sipmsg.Message) (then func()) {
	d, r := re.d, re.reliable
	switch {
	case r.answered || d.rseqOf(res) == 0:
		return func() {}
	case !r.inOrderLocked(res):
		return r.repeatedLocked(res)
	}
	d.currentLocked().answeredAtLocked(re.target, res)
	d.tellIdentityLocked()
	then = r.acknowledgeLocked(res)
	if r.negotiated && re.body == nil {
		re.body = sessionIn(res)
	}
	d.keepBodyLocked(bodyOf(res))
	return then
}

// success handles a 2xx: the target refreshes (RFC 3261 12.2.1.2), the ACK
// leaves, and the body goes to OnBody.
func (re *reinviteClient) success(res *sipmsg.Message) {
	d := re.d
	if re.isRepeated() {
		re.acknowledgeAgain()
		return
	}
	// Before OnBody gets the body, so that none of its requests overtakes the ACK.
	d.sendSlot.Join()
	d.mutex.Lock()
	re.taken, re.reliable.answered = true, true
	d.currentLocked().answeredAtLocked(re.target, res)
	d.tellIdentityLocked()
	agreed := re.reliable.negotiated
	body, session := bodiesIn(res)
	if !agreed { // else it stands
		re.body = session.within(body)
	}
	d.keepBodyLocked(body)
	d.currentLocked().takeAnswerLocked(re, session, receivedAs(sip.INVITE, res))
	d.changedLocked()
	d.agreeTimerLocked(res, sessiontimer.UAC, res)
	d.mutex.Unlock()
	if agreed { // no session is in the 2xx (RFC 3262 5)
		re.acknowledge(nil, offeranswer.ByDefault, re.succeeded)
		return
	}
	re.answerOffer(re.offer, res, re.succeeded)
}

func (re *reinviteClient) isRepeated() bool {
	re.d.mutex.RLock()
	defer re.d.mutex.RUnlock()
	return re.taken
}

// succeeded runs after the ACK.
func (re *reinviteClient) succeeded() {
	d := re.d
	d.mutex.Lock()
	re.closeLocked(sessionMessage{})
	re.endLocked(nil)
	d.mutex.Unlock()
	d.sendSlot.Release()
}

// refused handles a final response of 300 or more: session and target do not change (RFC
// 3261 14.1), except for earlier changes by reliable responses.
func (re *reinviteClient) refused(res *sipmsg.Message) {
	d := re.d
	d.mutex.Lock()
	taken := re.taken
	if !taken {
		re.closeLocked(receivedAs(sip.INVITE, res))
		re.endLocked(newResponseError(sip.INVITE, res))
	}
	undone, stands := !taken && re.reliable.negotiated, d.currentLocked().negotiation.Local()
	d.mutex.Unlock()
	if !taken {
		d.failed(nil, sip.INVITE, res.Status, res.Reason)
	}
	if undone {
		d.background(func() { re.restore(stands) })
	}
}

// restore offers the session from before a re-INVITE that was refused after a reliable
// response had changed the session to stands: the two ends may disagree about the session
// (RFC 6141 3.4). It does nothing if they have negotiated another one meanwhile.
func (re *reinviteClient) restore(stands Body) {
	d := re.d
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
	defer cancel()
	_, err := d.renegotiate(ctx, InviteOpts{}, func(now *offeranswer.Negotiation) (Body, error) {
		if now.Local() != stands {
			return nil, errAgreedAnew
		}
		return re.before.OfferAfter(now)
	})
	if err != nil && !errors.Is(err, errAgreedAnew) {
		d.log().Debug("session could not be restored", "error", err)
	}
}

// errAgreedAnew says that there is nothing to restore. Only restore uses it.
var errAgreedAnew = errors.New("dialog: the session has changed")

// done follows the last response.
func (re *reinviteClient) done(err error) {
	d := re.d
	d.mutex.Lock()
	re.ack.Forget()
	re.reliable.answered = true
	unanswered := err != nil && !re.taken
	if unanswered {
		re.closeLocked(sessionMessage{})
		re.endLocked(callError(err))
	}
	d.mutex.Unlock()
	if unanswered {
		d.unanswered(nil, sip.INVITE, err)
	}
}

// reinviteServer is a re-INVITE of the peer (RFC 3261 14.2) whose final
// answer is not decided. Its fields are set at construction, but for flow.
type reinviteServer struct {
	tx serverTx
	// cancel ends the application's decision.
	cancel context.CancelCauseFunc
	// flow is the one by which it came, or the call has moved to since. The dialog's mutex
	// guards it.
	flow *transport.Flow
}

// moveLocked has its answer go where the peer is now.
func (in *reinviteServer) moveLocked(f *transport.Flow) {
	in.flow = f
	in.tx.ReplyBy(f)
}

// handleReInvite handles a re-INVITE, or asks the peer to wait (RFC 3261 14.2,
// RFC 5407 3.1.4, 3.1.5).
func (d *Dialog) handleReInvite(tx serverTx, req *sipmsg.Message) {
	ctx, cancel := d.decisionContext()
	in := &reinviteServer{tx: tx, cancel: cancel, flow: tx.Flow()}
	body, offer := d.stack.bodiesOf(req)

	d.mutex.Lock()
	if refusal := d.refuseReInviteLocked(tx); refusal != nil {
		d.mutex.Unlock()
		cancel(nil)
		d.stack.respond(tx, refusal)
		return
	}
	d.reinviteIn = in
	s := d.currentLocked()
	s.negotiation.ReceiveOffer(in, offer)
	d.keepBodyLocked(body)
	handler, ours := d.offerDeciderLocked().decide, s.negotiation
	var request *OfferRequest
	if handler != nil {
		request = s.offerRequestLocked(sip.INVITE, req, offer)
	}
	d.mutex.Unlock()
	// Not before it is known here: an INVITE of ours that follows the 100 is a mistake
	// of ours (RFC 3261 14.1), one that does not merely crosses.
	tx.Trying()

	if handler == nil {
		d.answerReInvite(in, ours, offer)
		return
	}
	decide := offered{
		request: request, handler: handler,
		accept: func(answer Body) { d.acceptReInvite(in, answer, offeranswer.ByApplication) },
		refuse: func(how *Refusal) { d.refuseReInvite(in, how) },
	}
	if !d.stack.calls.Go(func() { d.decide(ctx, decide) }) {
		d.refuseReInvite(in, &Refusal{Status: sip.StatusServiceUnavailable})
	}
}

// answerReInvite answers a re-INVITE that no callback decides.
func (d *Dialog) answerReInvite(in *reinviteServer, ours offeranswer.Negotiation, offer *SimpleBody) {
	answer, err := defaultAnswer(&ours, in.tx.Message(), offer)
	if err != nil {
		d.refuseReInvite(in, refusalFor(err))
		return
	}
	d.acceptReInvite(in, answer, offeranswer.ByDefault)
}

// offerToComeLocked reports whether a re-INVITE without an offer is open, in either
// direction, so that its response will have the offer. Until then an UPDATE must not have
// another (RFC 6337 4.1, 4.2, figures 5 and 12).
func (d *Dialog) offerToComeLocked() bool {
	out := d.reinviteOut
	return d.reinviteIn != nil || d.isHoldingLocked() || out != nil && !out.reliable.offered && !out.reliable.negotiated
}

func (d *Dialog) refuseReInviteLocked(tx serverTx) *sip.Response {
	negotiation := d.currentLocked().negotiation.State()
	switch {
	case d.phase == phaseIncoming || d.reinviteIn != nil:
		return tooSoon(tx)
	case d.isHoldingLocked(): // its 200 has not left
		return tooSoon(tx)
	case d.phase == phaseInviting || d.reinviteOut != nil || d.ackWaits || negotiation == offeranswer.HaveLocalOffer:
		return tx.NewResponse(sip.StatusRequestPending, "")
	case negotiation == offeranswer.HaveRemoteOffer: // that of an UPDATE
		return tooSoon(tx)
	}
	return nil
}

// claimReInvite decides which caller refuses the re-INVITE, with that status: exactly one
// gets true.
func (d *Dialog) claimReInvite(in *reinviteServer, status int) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.reinviteIn != in {
		return false
	}
	d.reinviteIn = nil
	d.currentLocked().rollbackLocked(in, sentBy(sip.INVITE, status))
	d.currentLocked().awaitedLocked().closeLocked(nil, ErrCanceled) // we have offered nothing
	return true
}

// acceptReInvite answers 200: the target refreshes (RFC 3261 12.2.2) and the
// 200 repeats until its ACK.
func (d *Dialog) acceptReInvite(in *reinviteServer, answer Body, made offeranswer.Origin) {
	req := in.tx.Message()
	res := d.newAnswer(in.tx)
	answer = ownBody(answer)
	defer in.cancel(nil)

	d.mutex.Lock()
	if d.reinviteIn != in || d.state != DialogStateEstablished {
		d.mutex.Unlock()
		d.refuseReInvite(in, &Refusal{Status: sip.StatusRequestTerminated})
		return
	}
	d.reinviteIn = nil
	s := d.currentLocked()
	before := unanswered{in: in, target: s.Target(), negotiation: s.negotiation, timer: d.timer}
	s.refreshTargetLocked(req)
	d.tellIdentityLocked()
	s.learnFlowLocked(req, in.flow)
	u := &retransmission{tx: in.tx, Repetition: invite.Repetition{Seq: sipheader.CSeq(req)}}
	ours := s.negotiation.Numbered(answer)
	setBody(res, ours)
	if s.negotiation.IsOpen(in) {
		s.giveAnswerLocked(in, ours, made, sentBy(sip.INVITE, sip.StatusOK))
		d.logAcceptedLocked(sip.INVITE, made)
	} else {
		s.negotiation.SendOffer(u, ours, made)
		s.offeredLocked(u)
	}
	d.agreeTimerLocked(res, sessiontimer.UAS, req)
	d.retransmitLocked(u)
	held := d.saveAnswerLocked()
	if held {
		u.hold(before)
	}
	d.mutex.Unlock()
	if !held {
		d.stack.respond(in.tx, res)
		return
	}
	d.respondWhenSaved(in.tx, res, func() bool { return d.letGo(u) })
}

// unanswered is a call as a re-INVITE of the peer has found it.
type unanswered struct {
	in          *reinviteServer
	target      sip.Uri
	negotiation offeranswer.Negotiation
	timer       sessionTimer
	// superseded is true once another message has agreed upon target and timer.
	superseded bool
}

// hold keeps the 2xx to a re-INVITE back.
func (u *retransmission) hold(before unanswered) {
	u.Hold()
	u.before = &before
}

func (u *retransmission) supersede() {
	if u.before != nil {
		u.before.superseded = true
	}
}

// undoLocked takes back what a re-INVITE has changed whose 2xx has not left: it is refused, and
// the session, its timer and the target are as before it (RFC 3261 9.2, 12.2.2, 14.1). An UPDATE
// since then has agreed upon target and timer anew.
func (d *Dialog) undoLocked(u *retransmission) {
	s, before, remote := d.currentLocked(), u.before, d.currentLocked().negotiation.Remote()
	s.negotiation.Undo(before.negotiation)
	if s.negotiation.Remote() != remote {
		s.countRemoteLocked(remote)
	}
	s.rollbackLocked(before.in, sentBy(sip.INVITE, sip.StatusRequestTerminated))
	if !before.superseded {
		s.Refresh([]sip.Uri{before.target})
		d.stopSessionLocked()
		d.timer = before.timer
		d.startSessionLocked()
	}
	d.stopRetransmissionLocked(u)
	d.changedIfKeptLocked()
}

// refuseReInvite answers with a failure: session and target stay.
func (d *Dialog) refuseReInvite(in *reinviteServer, how *Refusal) { d.undoReInvite(in, how, nil) }

// undoReInvite is refuseReInvite; why ends the context of the application's decision.
func (d *Dialog) undoReInvite(in *reinviteServer, how *Refusal, why error) {
	if !d.claimReInvite(in, how.status()) {
		return
	}
	in.cancel(why)
	d.logRefused(sip.INVITE, how.status())
	d.stack.refuseWith(in.tx, how)
}

// cancelReInvite answers a cancelled re-INVITE with 487; the call continues. The decision's
// context ends with the peer's reasons, which a re-INVITE that it has in turn sent passes on.
func (d *Dialog) cancelReInvite(tx serverTx, reasons []Reason) {
	d.mutex.RLock()
	in := d.reinviteIn
	d.mutex.RUnlock()
	if in != nil && in.tx == tx {
		d.undoReInvite(in, &Refusal{Status: sip.StatusRequestTerminated}, &ReasonError{Reasons: reasons})
	}
}
