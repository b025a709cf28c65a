package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/txn"
	"sipdialog.example/dialog/internal/usage"
)

// phase is the exchange of the call that is open on the wire. The state is the
// application's view: a dialog that was closed is Terminated at once, while its phase
// continues until the peer is released.
type phase uint8

const (
	// phaseIdle: none, and no call yet.
	phaseIdle phase = iota
	// phaseConfirmed: none; the call is established.
	phaseConfirmed
	// phaseInviting: our INVITE has no final response yet.
	phaseInviting
	// phaseIncoming: the peer's INVITE has no final response yet.
	phaseIncoming
	// phaseAwaitingACK: a 2xx has been sent or received, and its ACK has not.
	phaseAwaitingACK
	// phaseBye: our BYE is on its way.
	phaseBye
	// phaseCleared: the peer knows that the call is over.
	phaseCleared
)

// isOpen reports whether an exchange of the call is open on the wire.
func (p phase) isOpen() bool { return p != phaseIdle && p != phaseConfirmed && p != phaseCleared }

// ending is the decision that a call ends; the first one stands.
type ending struct {
	cause Cause
	// reasons are the Reason headers of the BYE or CANCEL, headers are further
	// ones of the BYE.
	reasons []sip.Header
	headers []Header
	// status refuses an INVITE that is not answered; zero is 480.
	status int
	// written is true once the BYE has left; err is its outcome.
	written bool
	err     error
}

// because is the decision for an end that a SIP status causes. The BYE or CANCEL names
// the status (RFC 3326 2, 3).
func because(status int, text string, cause Cause) *ending {
	cause.Reason, cause.Reasons = text, []Reason{{Protocol: "SIP", Cause: status, Text: text}}
	return &ending{cause: cause, reasons: reasonHeaders("", cause.Reasons)}
}

// offerRefusedBecause ends a call of which an offer came too late for a 488 (RFC 3326
// 3.2).
func offerRefusedBecause(cause Cause) *ending {
	return because(sip.StatusNotAcceptableHere, "offer refused", cause)
}

// hangup begins to end the call, in any phase, and returns without waiting. It reports
// whether the end is e's: the second of two does nothing.
func (d *Dialog) hangup(e *ending) bool {
	d.mutex.Lock()
	release := d.hangupLocked(e)
	ours := d.ending == e
	d.mutex.Unlock()
	release()
	return ours
}

// cancelUndecided cancels a call of ours that has no outcome yet, since ctx has ended, and
// reports whether it did.
func (d *Dialog) cancelUndecided(ctx context.Context) bool {
	e := endingFor(context.Cause(ctx))
	e.cause.Err = ctx.Err()
	d.mutex.Lock()
	if d.callOutcome.known {
		d.mutex.Unlock()
		return false
	}
	release := d.hangupLocked(e)
	d.mutex.Unlock()
	release()
	return true
}

// endingFor is the decision for an end that err causes: CANCEL, or BYE, has its reasons.
func endingFor(err error) *ending {
	reasons := reasonsFor(err)
	return &ending{
		cause:   Cause{By: PartyLocal, Method: "CANCEL", Reasons: reasons, Err: err},
		reasons: reasonHeaders("", reasons),
	}
}

// endsWith has the call end when ctx does; nil is none.
func (d *Dialog) endsWith(ctx context.Context) {
	if ctx == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { d.stack.tasks.Run(func() { d.hangupFor(ctx) }) })
	d.mutex.Lock()
	over := d.state == DialogStateTerminated
	if !over {
		d.contextLocked().stop = stop
	}
	d.mutex.Unlock()
	if over {
		stop()
	}
}

// hangupFor ends the call since ctx has ended.
func (d *Dialog) hangupFor(ctx context.Context) {
	e := &ending{cause: Cause{By: PartyLocal, Method: "CANCEL", Err: ctx.Err()}}
	// The cause is the application's, and so is its code.
	d.stack.guard(d.log, "cause of a context", func() { e = endingFor(context.Cause(ctx)) }, nil)
	d.mutex.Lock()
	if d.phase != phaseInviting && d.phase != phaseIdle {
		e.cause.Method = "BYE"
	}
	release := d.hangupLocked(e)
	d.mutex.Unlock()
	release()
}

// hangupUnanswered is hangup for a call that is not answered yet.
func (d *Dialog) hangupUnanswered(e *ending) {
	d.mutex.Lock()
	release := func() {}
	if d.phase == phaseInviting || d.phase == phaseIncoming {
		release = d.hangupLocked(e)
	}
	d.mutex.Unlock()
	release()
}

// hangupLocked decides that the call ends. The result writes the BYE, CANCEL or final
// response, and is called without locks.
func (d *Dialog) hangupLocked(e *ending) (release func()) {
	if d.ending != nil || d.phase == phaseCleared {
		return func() {}
	}
	d.events.hungUp.Open()
	switch {
	case d.phase == phaseInviting:
		d.ending = e
		return d.invite.cancelLocked()
	case d.phase == phaseIncoming:
		return d.rejectLocked(e)
	case d.phase == phaseAwaitingACK:
		// RFC 3261 15: the BYE follows the ACK.
		d.ending = e
	case d.state == DialogStateEstablished:
		d.ending, d.phase = e, phaseBye
		return func() { d.spawnBye() }
	case d.state != DialogStateTerminated:
		// Nothing was sent or offered, so the peer need not be told.
		d.ending = e
		return func() { d.clear(e.cause) }
	}
	return func() {}
}

// rejectLocked claims the final response to the peer's INVITE, for a refusal.
func (d *Dialog) rejectLocked(e *ending) (release func()) {
	tx := d.takePendingInviteLocked()
	if tx == nil {
		return func() {}
	}
	d.ending = e
	if e.status == 0 {
		e.status = sip.StatusTemporarilyUnavailable
	}
	return func() {
		res := tx.NewResponse(e.status, "")
		if e.status == sip.StatusServiceUnavailable {
			res.AppendHeader(sipheader.RetryAfter(busyRetrySeconds))
		}
		// A failed write ends the dialog with the same cause.
		_, _ = d.reject(tx, res, e.cause)
	}
}

// reject writes the final response that was claimed, and ends the dialog.
func (d *Dialog) reject(tx serverTx, res *sip.Response, cause Cause) (<-chan struct{}, error) {
	d.decided(&ending{cause: cause})
	err := transportError(tx.Respond(res))
	if err != nil {
		d.refusalFailed(err)
	}
	return d.clear(cause), err
}

// decided makes e the decision, unless there is one.
func (d *Dialog) decided(e *ending) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.ending == nil {
		d.ending = e
	}
}

// refusalFailed notes that the final response that was claimed cannot be written. A
// connection may turn out to be lost after Respond and before the call is cleared.
func (d *Dialog) refusalFailed(err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.phase == phaseIncoming && d.ending != nil {
		d.ending.err = transportError(err)
	}
}

// terminate ends the dialog for the application at once. release ends it for the peer,
// and is called without locks.
func (d *Dialog) terminate(e *ending) (delivered <-chan struct{}, release func()) {
	both := d.lockBoth()
	defer both.unlock()
	return d.terminateWithLocked(e)
}

// terminateWithLocked is terminate with both mutexes held.
func (d *Dialog) terminateWithLocked(e *ending) (delivered <-chan struct{}, release func()) {
	hangup := d.hangupLocked(e)
	delivered = d.terminateLocked(e.cause)
	return delivered, func() {
		d.endContext()
		d.abortOffers()
		hangup()
	}
}

// clear ends the dialog: the peer knows, or cannot be told. Shutdown, which waits for
// the last dialog to end, also waits until the writes that this causes are done.
func (d *Dialog) clear(cause Cause) (delivered <-chan struct{}) {
	return d.clearAs(cause, (*Dialog).toldLocked)
}

// clearUnreleased ends the dialog although the peer may not know: the time of Shutdown
// is over.
func (d *Dialog) clearUnreleased() { d.clearAs(Cause{By: PartyShutdown}, (*Dialog).unreleasedLocked) }

// countUnreleased counts the dialog as clearUnreleased does, and leaves it.
func (d *Dialog) countUnreleased() {
	both := d.lockBoth()
	defer both.unlock()
	d.stack.noteEndLocked(d.unreleasedLocked(Cause{}))
}

func (d *Dialog) clearAs(cause Cause, told func(*Dialog, Cause) knowledge) (delivered <-chan struct{}) {
	end := func() { delivered = d.clearNow(cause, told) }
	if d.stack == nil || !d.stack.byes.Run(end) {
		end()
	}
	return delivered
}

func (d *Dialog) clearNow(cause Cause, told func(*Dialog, Cause) knowledge) <-chan struct{} {
	both := d.lockBoth()
	delivered, finish := d.clearLocked(cause, told)
	both.unlock()
	finish()
	return delivered
}

// clearLocked is clearNow with both mutexes held; finish is called without them.
func (d *Dialog) clearLocked(cause Cause, told func(*Dialog, Cause) knowledge) (delivered <-chan struct{}, finish func()) {
	d.stack.noteEndLocked(told(d, cause))
	d.phase = phaseCleared
	for _, u := range d.retransmissions {
		u.timer.Stop()
		u.tx.Acknowledged()
	}
	d.retransmissions = nil
	d.confirmed()
	var open []*updateServer
	if d.invite != nil {
		open = d.invite.closeForksLocked()
	}
	delivered = d.terminateLocked(cause)
	d.stack.forgetLocked(d)
	d.writerLocked().Drop(d.peerHungUp)
	d.currentLocked().Unlimit() // what is left of it, a subscription for example, is nobody else's
	return delivered, func() {
		d.refuseUpdates(open)
		d.endContext()
		d.abortOffers()
	}
}

// moveAway ends the call here, since another process has it: the peer is not told. What it
// has asked for, and was not answered, gets 503.
func (d *Dialog) moveAway(err error) {
	d.dropSubscriptions(err)
	d.mutex.Lock()
	d.moveAwayLocked(err)
	d.mutex.Unlock()
	d.clearAs(Cause{}, func(*Dialog, Cause) knowledge { return hasAgreed })
}

func (d *Dialog) moveAwayLocked(err error) {
	d.ending = &ending{cause: Cause{By: PartyMoved}, err: err}
	d.saved.movedAway = true
}

// movedAwayLocked reports whether another process has the call.
func (d *Dialog) movedAwayLocked() bool { return d.saved != nil && d.saved.movedAway }

// terminateLocked enters Terminated. Both mutexes are held, so that no look-up finds a
// dialog that has ended. The cause is that of the decision that began the end.
func (d *Dialog) terminateLocked(cause Cause) <-chan struct{} {
	if d.ending != nil {
		cause = d.ending.cause
		cause.Err = errtext.Join(cause.Err, d.ending.err)
	}
	if d.state != DialogStateTerminated {
		d.ended = &ended{cause: cause}
	}
	delivered, changed := d.setStateLocked(DialogStateTerminated)
	if !changed {
		return nil
	}
	d.ended.delivered = delivered
	d.logEndedLocked()
	if d.stack != nil && cause.By <= PartyMoved {
		d.stack.counters.ended[cause.By].Add(1)
	}
	d.dropFlowLocked()
	d.stopRingingLocked()
	d.stopSessionLocked()
	d.setOutcomeLocked(cause.answerError())
	d.events.acked.Wake()
	if d.reinviteOut != nil {
		d.reinviteOut.endLocked(ErrTerminated)
	}
	d.stack.leaveActiveLocked(d)
	// A chain of calls that replaced one another would stay as long as the last.
	d.incoming.replacement = nil
	return delivered
}

// sendBye sends the BYE (RFC 3261 15.1.1). It waits for the send slot within TxTimeout:
// a request that hangs in a dial must not keep the call open.
func (d *Dialog) sendBye() {
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
	defer cancel()
	if d.confirm(ctx) == storewriter.Moved {
		return
	}
	d.sendSlot.WaitOrJoin(ctx, d.sendSlot.Enqueue())
	defer d.sendSlot.Release()
	d.awaitSeqs()

	d.mutex.Lock()
	e := d.ending
	s := d.currentLocked()
	req, err := s.nextRequestLocked(sip.BYE)
	if err != nil {
		d.mutex.Unlock()
		d.byeEnded(err)
		return
	}
	for _, h := range e.reasons {
		req.AddHeader(h)
	}
	addHeaders(req, e.headers)
	err = s.unlockAndSend(d.baseContext(), req, nil, nil, func(x *retry.Request) {
		x.OnResponse, x.OnDone = func(*sipmsg.Message) {}, func(err error) {
			e.leftOf(d) // its end can be noticed first
			d.byeEnded(err)
		}
	})
	if err != nil {
		d.byeEnded(err)
		return
	}
	e.leftOf(d)
}

// leftOf notes that the BYE of d has left.
func (e *ending) leftOf(d *Dialog) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	e.written = true
}

// byeEnded ends the dialog on any final response to the BYE, and without one (RFC 3261
// 15.1.1).
func (d *Dialog) byeEnded(err error) {
	d.mutex.Lock()
	d.ending.err = callError(err)
	d.mutex.Unlock()
	d.clear(Cause{})
}

func (d *Dialog) byeError() error {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.ending == nil {
		return nil
	}
	return d.ending.err
}

// knowledge is the peer's knowledge of the end of its call.
type knowledge int

const (
	// hasAgreed: the peer has confirmed the end, or has ended the call itself, or has
	// had 64*T1 for that, after which RFC 3261 15.1.1 and 9.1 count the call as over.
	hasAgreed knowledge = iota
	// wasTold: the BYE, the CANCEL or the final response was sent.
	wasTold
	// knowsNothing: the peer could not, or must not, be told.
	knowsNothing
)

// toldLocked returns the knowledge of the peer when the call ends for cause.
func (d *Dialog) toldLocked(cause Cause) knowledge {
	if d.peerHungUp {
		return hasAgreed
	}
	switch d.phase {
	case phaseBye:
		return d.byeToldLocked()
	case phaseInviting: // a peer that has said nothing is not known to be there
		if errors.Is(cause.Err, ErrTransport) && d.invite.tx != nil && d.invite.tx.Provisional() {
			return wasTold
		}
	case phaseIncoming:
		if d.ending != nil && d.ending.err != nil {
			return knowsNothing
		}
	}
	return hasAgreed
}

func (d *Dialog) byeToldLocked() knowledge {
	switch {
	case !errors.Is(d.ending.err, ErrTransport):
		return hasAgreed
	case d.ending.written:
		return wasTold
	}
	return knowsNothing
}

// unreleasedLocked returns the knowledge of a peer for which Shutdown waits no longer.
func (d *Dialog) unreleasedLocked(Cause) knowledge {
	if d.peerHungUp {
		return hasAgreed
	}
	written := false
	switch d.phase {
	case phaseInviting:
		written = d.invite.tx != nil && d.invite.tx.Provisional()
	case phaseBye:
		written = d.ending.written
	case phaseCleared:
		return hasAgreed
	case phaseIdle, phaseConfirmed:
		if d.state != DialogStateEstablished {
			return hasAgreed
		}
	}
	if written {
		return wasTold
	}
	return knowsNothing
}

// callError gives the errors of the layers below the names of this package.
func callError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrTransport), errors.Is(err, ErrTimeout), errors.Is(err, ErrShutdown), errors.Is(err, ErrNotStarted):
		return err
	case errors.Is(err, txn.ErrTimeout):
		return ErrTimeout
	case errors.Is(err, txn.ErrCancelled):
		return ErrCanceled
	case errors.Is(err, txn.ErrClosed):
		return ErrShutdown
	case errors.Is(err, txn.ErrNotAllowed):
		return errtext.Explained(ErrInvalidArgument, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	default:
		return transportError(err)
	}
}

// answerError is transportError for a response that came too late.
func answerError(err error) error {
	if errors.Is(err, txn.ErrFinalSent) || errors.Is(err, txn.ErrEnded) {
		return ErrAnswered
	}
	return transportError(err)
}

func transportError(err error) error {
	if err == nil {
		return nil
	}
	return errtext.Explained(ErrTransport, err)
}

// causeOf returns the cause of the end when the request of the call failed with err.
func causeOf(method sip.RequestMethod, err error) Cause {
	err = callError(err)
	cause := Cause{By: PartyTransport, Method: string(method), Err: err}
	switch {
	case errors.Is(err, ErrTimeout):
		cause.By = PartyTimeout
	case errors.Is(err, ErrShutdown):
		cause.By = PartyShutdown
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		cause.By = PartyLocal
	}
	return cause
}

// answerError is the error of WaitAnswer for a call that ended unanswered.
func (c Cause) answerError() error {
	switch {
	case c.By == PartyRemote && c.Status >= 300 && c.Err != nil:
		return c.Err
	case c.By == PartyRemote && c.Status >= 300:
		return &ResponseError{Method: c.Method, StatusCode: c.Status, Reason: c.Reason}
	case c.By == PartyTimeout:
		return ErrTimeout
	case c.By == PartyShutdown:
		return ErrShutdown
	case (c.By == PartyTransport || c.By == PartyMoved) && c.Err != nil:
		return c.Err
	case c.By == PartyTransport:
		return ErrTransport
	case c.Err != nil:
		return errtext.Explained(ErrCanceled, c.Err)
	default:
		return ErrCanceled
	}
}

// effectOf is that of RFC 5057 5.1, except with KeepUnanswered: RFC 3261 12.2.1.2 says
// SHOULD for a request without a response.
func (d *Dialog) effectOf(method sip.RequestMethod, code int) usage.Effect {
	if code == sip.StatusRequestTimeout && method != sip.INVITE && d.config().KeepUnanswered {
		return usage.EndsNothing
	}
	return usage.EffectOf(method, code)
}

// failed ends the part that a refused request ends: the call, by BYE, as the peer may
// still count it as established (RFC 3261 12.2.1.2), and with the dialog all its
// subscriptions. A request in an early dialog, unless e is nil, ends nothing else.
func (d *Dialog) failed(e *earlyDialog, method sip.RequestMethod, code int, reason string) {
	effect := d.effectOf(method, code)
	if effect == usage.EndsDialog {
		d.dropSubscriptions(&ResponseError{Method: string(method), StatusCode: code, Reason: reason})
	}
	if effect == usage.EndsDialog || (effect == usage.EndsUsage && !usage.OfSubscription(method)) {
		d.hangupEarly(e, Cause{By: PartyRemote, Method: string(method), Status: code, Reason: reason})
	}
}

// unanswered is failed for a request that got no response: a timeout counts as 408 (RFC
// 3261 8.1.3.1); a lost connection ends nothing, the next request opens another.
func (d *Dialog) unanswered(e *earlyDialog, method sip.RequestMethod, err error) {
	if !errors.Is(callError(err), ErrTimeout) || usage.OfSubscription(method) ||
		d.effectOf(method, sip.StatusRequestTimeout) == usage.EndsNothing {
		return
	}
	d.hangupEarly(e, Cause{By: PartyTimeout, Method: string(method), Err: ErrTimeout})
}

// hangupEarly ends an early dialog, and with the last one the call; for nil the call.
func (d *Dialog) hangupEarly(e *earlyDialog, cause Cause) {
	if e == nil {
		d.hangup(&ending{cause: cause})
		return
	}
	both := d.lockBoth()
	var release func()
	if e.i == nil {
		release = d.calleeForkFailedLocked(e, cause)
	} else {
		release = e.failedLocked(cause)
	}
	both.unlock()
	release()
}
