package dialog

import (
	"slices"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/usage"
)

// handleServerFailure ends a call whose 2xx cannot be sent. One whose refusal cannot be
// sent is ending.
func (d *Dialog) handleServerFailure(tx serverTx, err error) {
	d.mutex.RLock()
	failed := slices.ContainsFunc(d.retransmissions, func(u *retransmission) bool { return u.tx == tx })
	d.mutex.RUnlock()
	if failed {
		// The peer may have had it before, so it is released as RFC 3261 15 says.
		_, release := d.terminate(&ending{cause: causeOf(sip.INVITE, err)})
		release()
		return
	}
	if req := tx.Message(); req.Method == sip.INVITE && sipheader.ToTag(req) == "" {
		d.refusalFailed(err)
	}
}

// handleRequest handles a request inside the dialog, in CSeq order.
func (d *Dialog) handleRequest(tx serverTx, req *sipmsg.Message) {
	e, ok := d.forkOf(req)
	if !ok {
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	if d.keepsPlace(tx, req, e) {
		return
	}
	if !d.inOrder(e, req) {
		d.stack.answerWith(tx, sip.StatusInternalServerError)
		return
	}
	d.reachedBy(e, tx)
	if req.Method == sip.BYE {
		d.handleBye(tx, req, e)
		return
	}
	if req.Method == sip.PRACK && d.config().Reliable != ReliableOff {
		d.handlePrack(tx, req, e) // also for a call that is ending
		return
	}
	if d.handleSubscriptions(tx, req) {
		return
	}
	if d.isMortal() {
		// RFC 5407 3.2: a BYE is on its way; the session is over.
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	switch {
	case req.Method == sip.INVITE:
		d.handleReInvite(tx, req)
	case req.Method == sip.UPDATE:
		d.handleUpdate(tx, req, e)
	case req.Method == sip.REFER:
		d.handleRefer(tx, req)
	case req.Method == sip.INFO:
		d.handleInfo(tx, req)
	case d.handled(tx, req.Method):
	case usage.OfSubscription(req.Method):
		// RFC 6665 4.1.3, 4.2.1.1.
		d.stack.answerWith(tx, sipStatusBadEvent, allowEvents())
	case req.Method == sip.OPTIONS:
		d.stack.answerWith(tx, sip.StatusOK, d.stack.allow(d.handlersNow()),
			sip.NewHeader("Accept", d.config().rules().Accept()), d.stack.supported())
	default:
		d.stack.notAllowed(tx, d.handlersNow())
	}
}

// inOrder raises the peer's CSeq, or reports that the request is late (RFC 3261
// 12.2.2). Retransmissions do not come this far.
func (d *Dialog) inOrder(e *earlyDialog, req *sipmsg.Message) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.stateOfLocked(e).InOrder(req.Method, sipheader.CSeq(req))
}

// isMortal reports whether the call is ending (RFC 5407 2).
func (d *Dialog) isMortal() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.phase == phaseBye || d.phase == phaseCleared || d.state == DialogStateTerminated
}

// handleBye ends the call (RFC 3261 15.1.2): 200, and 487 to an INVITE of the dialog
// that is still open. In an early dialog of our INVITE it ends that early dialog only.
func (d *Dialog) handleBye(tx serverTx, req *sipmsg.Message, e *earlyDialog) {
	endsOne := e == nil && d.byeEndsOne(req)
	d.stack.answerWith(tx, sip.StatusOK)
	if endsOne {
		return
	}
	cause := Cause{By: PartyRemote, Method: "BYE", Reason: reasonText(req), Reasons: reasonsOf(req)}
	if e != nil && e.hungUp(req) {
		return
	}
	d.mutex.Lock()
	offered := d.takePendingInviteLocked()
	d.mutex.Unlock()
	if offered != nil {
		_, _ = d.reject(offered, offered.NewResponse(sip.StatusRequestTerminated, ""), cause)
		return
	}
	d.clear(cause)
}

// byeEndsOne handles the caller's BYE in the early dialog in which the call sends, and reports
// whether it ends that one only: there are others (RFC 3261 15).
func (d *Dialog) byeEndsOne(bye *sipmsg.Message) bool {
	d.mutex.Lock()
	several := d.incoming.tx != nil && len(d.calleeForksLocked()) > 0
	d.mutex.Unlock()
	if several && d.endCalleeFork(nil, reasonsOf(bye)) {
		return true
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.peerHungUp = true // Shutdown may end the call before the rest of handleBye does
	return false
}

// handleCancel refuses the INVITE with 487, unless it is answered already (RFC
// 3261 9.2): the dialog's first, or a re-INVITE.
func (d *Dialog) handleCancel(tx serverTx, cancel *sipmsg.Message) {
	d.mutex.Lock()
	first := d.incoming.tx == tx
	if first {
		d.takePendingInviteLocked()
	}
	d.mutex.Unlock()
	cause := Cause{
		By: PartyRemote, Method: "CANCEL", Status: sip.StatusRequestTerminated, Reason: reasonText(cancel), Reasons: reasonsOf(cancel),
	}
	if first {
		_, _ = d.reject(tx, tx.NewResponse(sip.StatusRequestTerminated, ""), cause)
		return
	}
	if !d.cancelHeld(tx, cause) {
		d.cancelReInvite(tx, cause.Reasons)
	}
}

// handleInfo handles an INFO. If we do not accept its package, it gets 469 with
// the list of those that we do (RFC 6086 4.2.2).
func (d *Dialog) handleInfo(tx serverTx, req *sipmsg.Message) {
	switch {
	case !d.takesPackage(req):
		d.stack.answerWith(tx, sipStatusBadInfoPackage, d.config().recvInfo())
	case d.handledDTMF(tx, req), d.handled(tx, sip.INFO):
	default:
		d.stack.answerWith(tx, sip.StatusOK)
	}
}
