package dialog

import (
	"context"
	"fmt"
	"slices"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// callOutcome is the outcome of a call of ours, for which WaitAnswer waits.
type callOutcome struct {
	known bool
	err   error
	// ready is opened when known becomes true.
	ready latch.Latch
}

// inviteClient is the INVITE of ours that begins a call. Its fields are
// guarded by the dialog's mutex.
type inviteClient struct {
	ackSender
	// tx is nil until the INVITE has been written.
	tx clientTx
	// offer is the body that was sent, if any.
	offer Body
	// forks are the early dialogs, and the calls of further forks. origin is the state of
	// the call before the first.
	forks  invite.Forks[*earlyDialog, *Dialog]
	origin *dialogState
	// choose is InviteOpts.Choose, choices are the 2xx that wait for it, choiceLimit ends
	// its time. noForkCause is why a 2xx was not taken.
	choose      func(ForkInfo) bool
	choices     invite.Choices[*sipmsg.Message]
	choiceLimit *deadline.Func
	noForkCause *Cause
	// propose is InviteOpts.PrackOffer.
	propose func(context.Context, ForkInfo) Body
	// redirects are the targets of 3xx responses; nil where none are followed, and once no
	// more can come.
	redirects *redirects
}

// outcomeKnown returns a channel that is closed once the call has an outcome.
func (d *Dialog) outcomeKnown() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.state == DialogStateEstablished {
		d.setOutcomeLocked(nil)
	}
	return d.callOutcome.ready.C()
}

// setOutcomeLocked sets the outcome, once.
func (d *Dialog) setOutcomeLocked(err error) {
	if d.callOutcome.known {
		return
	}
	d.callOutcome.known, d.callOutcome.err = true, err
	d.callOutcome.ready.Open()
}

func (d *Dialog) outcome() error {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.callOutcome.err
}

// sendInvite writes the INVITE of a new call. A failure ends the dialog.
func (d *Dialog) sendInvite(ctx context.Context, opts InviteOpts) error {
	delivered, err := d.writeInvite(ctx, opts)
	d.waitDelivered(ctx, delivered)
	return err
}

func (d *Dialog) writeInvite(ctx context.Context, opts InviteOpts) (<-chan struct{}, error) {
	if err := d.sendSlot.Acquire(ctx); err != nil {
		d.clear(causeOf(sip.INVITE, err))
		return nil, err
	}
	defer d.sendSlot.Release()

	d.mutex.Lock()
	if e := d.ending; e != nil || d.state == DialogStateTerminated {
		// Setup, or Shutdown, came before the INVITE.
		cause := d.causeLocked()
		if e != nil {
			cause = e.cause
		}
		d.mutex.Unlock()
		return nil, cause.answerError()
	}
	s := d.currentLocked()
	req, err := s.newInviteLocked(opts)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	opts.nameCalls(req)
	if opts.Anonymous {
		req.Add("Privacy", "id")
	}
	i := &inviteClient{ackSender: ackSender{d: d}, offer: offeranswer.Description(opts.Body), choose: opts.Choose, propose: opts.PrackOffer}
	i.redirects = newRedirects(opts.FollowRedirects, s.Target(), s.RouteSet())
	d.invite = i
	d.phase = phaseInviting
	s.negotiation.SendOffer(i, i.offer, offeranswer.ByApplication)
	delivered, _ := d.setStateLocked(DialogStateTrying)
	d.limitLocked()
	err = s.unlockAndSend(ctx, req, nil, i.mayRepeatLocked, func(x *retry.Request) {
		x.Prepared, x.Leaving, x.Sent = i.prepared, i.leaving, i.inviteWritten
		x.OnResponse, x.OnDone = d.inviteResponse, i.ended
		x.Alternatives = i.nextTarget
	})
	if err != nil {
		d.clear(causeOf(sip.INVITE, err))
	}
	return delivered, err
}

// mayRepeatLocked returns an error when the call was cancelled: its INVITE is not sent
// again.
func (i *inviteClient) mayRepeatLocked() error {
	if i.d.ending != nil || i.d.phase != phaseInviting {
		return ErrCanceled
	}
	return nil
}

// newInviteLocked builds an INVITE, the first or a later one (RFC 3261 13.2.1).
func (s *dialogState) newInviteLocked(opts InviteOpts) (*draft.Request, error) {
	d := s.d
	req, err := s.nextRequestLocked(sip.INVITE)
	if err != nil {
		return nil, err
	}
	if opts.MaxForwards > 0 || opts.LastHop {
		req.SetMaxForwards(opts.MaxForwards)
	}
	req.AddHeader(d.stack.allow(d.handlersLocked()))
	if s.RemoteTag() == "" { // the first
		req.Add("Supported", d.config().rulesFor(opts).Supported()+", "+tagEarlyDialogTerminated)
		d.config().requireReliable(req)
	} else {
		req.AddHeader(d.stack.supported())
	}
	d.askTimerLocked(req)
	d.askPackages(req)
	addHeaders(req, opts.Headers)
	putBody(req, withToken(opts.Body, opts.token))
	return req, nil
}

// limitLocked starts the ringing limit.
func (d *Dialog) limitLocked() {
	if limit := d.config().ringingLimit(); limit > 0 {
		d.ringing.limit = d.onTime(limit, (*Dialog).rangTooLong)
	}
}

// rangTooLong ends a call at the ringing limit, as a proxy does when its Timer C fires
// (RFC 3261 16.8).
func (d *Dialog) rangTooLong() {
	d.hangupUnanswered(&ending{
		cause:   Cause{By: PartyTimeout, Method: "INVITE", Err: ErrTimeout},
		reasons: reasonHeaders("", []Reason{{Protocol: "SIP", Cause: sip.StatusRequestTimeout, Text: "no answer"}}),
	})
}

// prepared begins an INVITE: the early dialogs of the one that was refused before have
// ended (RFC 3261 13.2.2.3).
func (i *inviteClient) prepared(*draft.Request) {
	i.d.mutex.Lock()
	open := i.closeForksLocked()
	if current := i.forks.Current(); current != nil {
		next := *current.state // its own is that of who answers a request in it
		next.negotiation, next.updateOut, next.updateIn = offeranswer.Negotiation{}, nil, nil
		next.negotiation.SendOffer(i, i.offer, offeranswer.ByApplication)
		i.d.setCurrentLocked(&next)
	}
	i.forks.Restart()
	i.d.mutex.Unlock()
	i.d.refuseUpdates(open)
}

// inviteWritten keeps the transaction, the first time that it is reported. A call that
// was cancelled while the INVITE was being written sends its CANCEL now.
func (i *inviteClient) inviteWritten(tx clientTx) {
	i.d.mutex.Lock()
	if i.tx == tx {
		i.d.mutex.Unlock()
		return
	}
	i.tx = tx
	cancel := func() {}
	if i.d.ending != nil {
		cancel = i.cancelLocked()
	}
	i.d.mutex.Unlock()
	cancel()
}

// cancelLocked returns a function that cancels the INVITE. It is called without locks.
func (i *inviteClient) cancelLocked() func() {
	tx := i.tx
	if tx == nil {
		return func() {}
	}
	if id, answered := i.choices.Pending(); answered {
		return func() { i.chosen(id, true) }
	}
	extra := i.d.ending.reasons
	return func() { tx.Cancel(extra...) }
}

// processResponse handles a response to the INVITE that began the call: the peer's target
// and identity, the state, the ACK, and the outcome (RFC 3261 13.2.2).
func (d *Dialog) processResponse(res *sip.Response) error {
	if res == nil {
		return fmt.Errorf("%w: no response", ErrMalformed)
	}
	d.inviteResponse(received(res))
	return nil
}

// inviteResponse is processResponse for a response as it came.
func (d *Dialog) inviteResponse(res *sipmsg.Message) {
	d.reportReferred(res)
	i := d.invitation()
	i.keep(res)
	switch {
	case res.Status == sip.StatusTrying:
	case res.IsProvisional():
		i.provisional(res)
	case res.IsSuccess():
		i.success(res)
	default:
		i.refused(res)
	}
}

// keep stores the latest response for Dialog.Response, up to the first 2xx.
func (i *inviteClient) keep(res *sipmsg.Message) {
	if res.Status == sip.StatusTrying {
		return
	}
	i.d.mutex.Lock()
	defer i.d.mutex.Unlock()
	if !i.forks.Won() && i.d.state != DialogStateTerminated {
		i.d.keepResponseLocked(res.Keep())
	}
}

func (d *Dialog) invitation() *inviteClient {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.invite == nil {
		d.invite = &inviteClient{ackSender: ackSender{d: d, seq: d.currentLocked().LocalSeq()}}
	}
	return d.invite
}

// provisional handles a 101 to 199 (RFC 3261 13.2.2.1): each To tag makes an early
// dialog.
func (i *inviteClient) provisional(res *sipmsg.Message) {
	both := i.d.lockBoth()
	then := i.provisionalLocked(res)
	i.d.tellIdentityLocked()
	both.unlock()
	then()
}

func (i *inviteClient) provisionalLocked(res *sipmsg.Message) (then func()) {
	d, nothing := i.d, func() {}
	if d.phase == phaseCleared {
		return nothing
	}
	r := invite.Response{Tag: sipheader.ToTag(res), Status: res.Status, Reliable: d.rseqOf(res) != 0}
	e, belongs := i.forks.Provisional(r)
	switch belongs {
	case invite.Nowhere:
		return nothing
	case invite.Outside:
		d.setStateLocked(DialogStateRinging)
		if r.Tag == "" { // of RFC 2543
			d.keepBodyLocked(bodyOf(res))
		}
		return nothing
	case invite.Begins:
		e = i.addForkLocked(r.Tag)
	}
	if !e.inOrderLocked(res) {
		return e.repeatedLocked(res)
	}
	e.learnFromLocked(res, e.Hear(r.Status, r.Reliable))
	begin := e.acknowledgeLocked(res)
	if r.Status == invite.StatusTerminated {
		e.reasons = reasonsOf(res)
		open := d.performLocked(i.forks.End(e, nil))
		return func() { d.refuseUpdates(open); begin() }
	}
	if !e.Ended() {
		d.setStateLocked(DialogStateRinging)
	}
	var few [1]forkEffect
	d.performLocked(i.forks.Rang(e, few[:0]))
	d.keepBodyLocked(bodyOf(res))
	d.tellForkLocked(e, res)
	d.tellSessionLocked(receivedAs(sip.INVITE, res)) // the early dialog may be the current one only now
	return begin
}

// success handles a 2xx (RFC 3261 13.2.2.4). The first makes the call, unless Choose
// takes another one. A repetition gets the same ACK again. The 2xx of another fork is
// released.
func (i *inviteClient) success(res *sipmsg.Message) {
	i.d.mutex.Lock()
	kind := i.forks.Success(sipheader.ToTag(res), i.d.phase == phaseCleared) // by a Shutdown in haste
	choosing, chooses := invite.Wait, false
	switch kind {
	case invite.First:
		choosing, chooses = i.chooseLocked(res)
	case invite.HungUp: // or it does not know of its early dialog any more
		i.noForkCause = &Cause{By: PartyRemote, Method: "BYE", Reasons: slices.Clone(i.forks.Find(sipheader.ToTag(res)).reasons)}
	}
	i.d.mutex.Unlock()
	switch {
	case kind == invite.Repeated:
		i.acknowledgeAgain()
	case kind != invite.First, chooses && choosing == invite.Decline:
		i.releaseFork(res)
	case !chooses:
		i.accept(res)
	case choosing == invite.Ask:
		i.askChoose()
	}
}

// accept makes the call of a 2xx: the dialog is that of the fork from here on.
func (i *inviteClient) accept(res *sipmsg.Message) {
	d := i.d
	both := d.lockBoth()
	if i.forks.Won() || d.phase == phaseCleared { // meanwhile: by this 2xx, by another, or in haste
		both.unlock()
		i.success(res)
		return
	}
	e := i.answeredByLocked(res)
	var few [4]forkEffect
	open := d.performLocked(i.forks.Win(e, few[:0]))
	if d.phase == phaseInviting {
		d.phase = phaseAwaitingACK
	}
	body, session := bodiesIn(res)
	d.keepBodyLocked(body)
	d.tellForkLocked(e, res)
	d.tellIdentityLocked()
	e.state.takeAnswerLocked(i, session, receivedAs(sip.INVITE, res))
	d.changedLocked()
	d.agreeTimerLocked(res, sessiontimer.UAC, res)
	// Established is entered once the ACK has left, so that nothing a callback
	// sends can overtake it.
	d.sendSlot.Join()
	both.unlock()
	d.refuseUpdates(open)
	if !sipheader.ReadsRoutes(res) { // the ACK leaves all the same, by the way that can be read
		d.hangup(&ending{cause: Cause{By: PartyLocal, Method: "BYE", Err: fmt.Errorf("%w: Record-Route", ErrMalformed)}})
	}
	if e.negotiated { // no session is in the 2xx (RFC 3262 5)
		i.acknowledge(nil, offeranswer.ByDefault, i.established)
		return
	}
	i.answerOffer(i.offer, res, i.established)
}

// established follows the ACK: the call is established, or, when it was cancelled
// before, the BYE follows (RFC 3261 9.1, 15).
func (i *inviteClient) established() {
	d := i.d
	d.mutex.Lock()
	release := func() {}
	switch {
	case d.phase == phaseCleared:
	case d.ending != nil:
		d.phase = phaseBye
		release = func() { d.spawnBye() }
	default:
		d.phase = phaseConfirmed
		d.stopRingingLocked()
		d.setStateLocked(DialogStateEstablished)
		d.setOutcomeLocked(nil)
	}
	d.mutex.Unlock()
	d.sendSlot.Release()
	release()
}

// refused handles a final response of 300 or more, which ends the call.
func (i *inviteClient) refused(res *sipmsg.Message) {
	i.d.mutex.RLock()
	won := i.forks.Won()
	i.d.mutex.RUnlock()
	if won {
		return // another fork's, late
	}
	i.d.clear(Cause{
		By: PartyRemote, Method: "INVITE", Status: res.Status, Reason: res.Reason, Reasons: reasonsOf(res),
		Err: newResponseError(sip.INVITE, res),
	})
}

// ended follows the last response to the INVITE.
func (i *inviteClient) ended(err error) {
	i.d.mutex.Lock()
	won := i.forks.Won()
	if !won && i.choices.Close() { // it ends when the last is decided
		i.d.mutex.Unlock()
		return
	}
	noFork := i.noForkCause
	i.ack.Forget()
	if won {
		// The INVITE can no longer be cancelled: its remaining state would otherwise be
		// kept as long as the call.
		i.forks.Over()
		i.tx, i.offer, i.redirects, i.choose, i.propose, i.origin = nil, nil, nil, nil, nil, nil
		if i.d.state != DialogStateTerminated {
			state := i.d.currentLocked()
			i.d.local, state.remote = i.d.local.AsText(), state.remote.AsText()
		}
	}
	i.d.mutex.Unlock()
	if won {
		return
	}
	if err != nil || noFork == nil {
		i.d.clear(causeOf(sip.INVITE, err))
		return
	}
	i.d.clear(*noFork)
}

// releaseFork ends the dialog of a further fork's 2xx: ACK, then BYE (RFC 3261
// 13.2.2.4). That dialog is a call of its own, which the application does not see. A
// repetition of the 2xx finds it, and gets its ACK again.
func (i *inviteClient) releaseFork(res *sipmsg.Message) {
	fork, isNew := i.fork(res)
	switch {
	case fork == nil:
	case isNew:
		fork.sendSlot.Join()
		fork.invite.acknowledge(fork.refusal(keptOrNil(offerIn2xx(fork.invite.offer, res))), offeranswer.ByDefault, func() {
			i.d.finalGoodbye(func() { i.d.drainSendSlot(); fork.invite.established() })
		})
	default:
		fork.invite.acknowledgeAgain()
	}
}
