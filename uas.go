package dialog

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// incoming is the peer's INVITE that began a call.
type incoming struct {
	// tx is its transaction, until its final response is decided.
	tx serverTx
	// replacement is the call that it names by Replaces or Join, until that call is
	// replaced or this one ends.
	replacement *replacement
	// provisionals is nil before the first response that is reliable, or in a fork.
	provisionals *provisionals
}

// retransmission is a 2xx of ours that repeats until its ACK comes (RFC 3261
// 13.3.1.4). Its fields are guarded by the dialog's mutex.
type retransmission struct {
	invite.Repetition // is held until the call is saved

	tx    serverTx
	timer *deadline.Func
	// before is what a CANCEL brings back while the 2xx to a re-INVITE is held.
	before *unanswered
}

// isIncoming reports whether the peer's INVITE has no final response yet.
func (d *Dialog) isIncoming() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.phase == phaseIncoming && d.state != DialogStateTerminated
}

// inviteToAnswer returns the INVITE to answer, or the error of the method op.
func (d *Dialog) inviteToAnswer(op string) (serverTx, error) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.isUAC || d.state != DialogStateRinging {
		return nil, &StateError{Op: op, State: d.state, Need: "an incoming call in Ringing state"}
	}
	if d.incoming.tx == nil {
		return nil, ErrAnswered
	}
	return d.incoming.tx, nil
}

// takePendingInviteLocked gives the INVITE to the caller, which decides its final
// response; nil when another one has. No reliable provisional response leaves after
// that (RFC 3262 3).
func (d *Dialog) takePendingInviteLocked() serverTx {
	tx := d.incoming.tx
	d.incoming.tx = nil
	d.currentLocked().reliable.stop()
	for _, f := range d.calleeForksLocked() {
		f.state.reliable.stop()
	}
	if p := d.incoming.provisionals; p != nil {
		p.changed.Wake()
	}
	return tx
}

// claim decides which caller answers the INVITE: exactly one gets true.
func (d *Dialog) claim() bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.takePendingInviteLocked() != nil
}

// newAnswer builds the 200 to an INVITE or UPDATE.
func (d *Dialog) newAnswer(tx serverTx) *sip.Response {
	res := tx.NewResponse(sip.StatusOK, "")
	res.AppendHeader(d.contactTo(tx))
	res.AppendHeader(d.stack.allow(d.handlersNow()))
	res.AppendHeader(d.stack.supported())
	d.grantTimer(tx.Message(), res)
	d.grantPackages(tx.Message(), res)
	return res
}

// applyOpts runs functions of the application on the caller's goroutine; a panic
// in one becomes the call's error.
func applyOpts(res *sip.Response, opts []ResponseOpt) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, value, debug.Stack())
		}
	}()
	code, asked := res.StatusCode, sipmsg.Asked(res)
	var few [16]sip.Header
	ours := append(few[:0], res.Headers()...)
	for _, opt := range opts {
		if opt != nil {
			opt(res)
		}
	}
	if res.StatusCode != code {
		return invalid("an option changed the status")
	}
	if err := checkResponse(asked, res, ours); err != nil {
		return err
	}
	if !res.IsProvisional() {
		rel100.Unmark(res)
	}
	sipheader.SetLength(res)
	return nil
}

// errAwaitsPRACK says that a reliable provisional response was sent just before. Only
// Accept uses it.
var errAwaitsPRACK = errors.New("dialog: awaiting PRACK")

// acceptInOrder answers once the session of the reliable provisional responses is
// agreed upon (RFC 3262 5).
func (d *Dialog) acceptInOrder(ctx context.Context, tx serverTx, res *sip.Response, e *earlyDialog) (<-chan struct{}, error) {
	for {
		if err := d.waitPracked(ctx, e); err != nil {
			return nil, err
		}
		if err := d.sendSlot.Acquire(ctx); err != nil {
			return nil, err
		}
		delivered, err := d.accept(tx, res, e)
		d.sendSlot.Release()
		if !errors.Is(err, errAwaitsPRACK) {
			return delivered, err
		}
	}
}

// accept claims the INVITE and writes the 2xx (RFC 3261 13.3.1.4). The state is
// Established before the first byte leaves: the peer's next request finds the dialog
// so.
func (d *Dialog) accept(tx serverTx, res *sip.Response, e *earlyDialog) (<-chan struct{}, error) {
	replaced, refusal := d.reserveReplaced()
	if refusal != 0 {
		return d.rejectReplacement(tx, refusal)
	}
	unlock := d.lockToChoose(e)
	if err := d.mayAcceptLocked(e); err != nil {
		unlock()
		replaced.release()
		return nil, err
	}
	d.takePendingInviteLocked()
	open := d.chooseForkLocked(e)
	d.dropOfferLocked()
	d.phase = phaseAwaitingACK
	d.stopRingingLocked()
	u := &retransmission{tx: tx, Repetition: invite.Repetition{Seq: sipheader.CSeq(tx.Message()), Initial: true}}
	s := d.currentLocked()
	s.repeatPreviewLocked(tx, res)
	s.numberLocked(res)
	switch ours := keptOrNil(sessionIn(res)); {
	case s.negotiation.IsOpen(tx):
		s.giveAnswerLocked(tx, ours, offeranswer.ByApplication, sentBy(sip.INVITE, res.StatusCode))
		d.logAcceptedLocked(sip.INVITE, offeranswer.ByApplication)
	case !s.negotiation.Agreed():
		s.negotiation.SendOffer(u, ours, offeranswer.ByApplication)
		s.offeredLocked(u)
	default: // neither offer nor answer (RFC 6337 3.1)
		s.negotiation.Sent(ours)
		d.tellSessionLocked(sentBy(sip.INVITE, res.StatusCode)) // of the early dialog that is the call now
	}
	d.retransmitLocked(u)
	makeRoom := d.unconfirmedNow()
	delivered, _ := d.setStateLocked(DialogStateEstablished)
	d.agreeTimerLocked(res, sessiontimer.UAS, tx.Message())
	if d.saveAnswerLocked() {
		u.Hold()
	}
	unlock()
	d.refuseUpdates(open)
	makeRoom()

	if !d.letGo(u) { // RFC 3261 9.2, 15.1.2
		d.stack.answerWith(tx, sip.StatusRequestTerminated)
		replaced.release()
		return delivered, ErrAnswered
	}
	if err := transportError(tx.Respond(res)); err != nil {
		// The 200 continues to repeat: the caller gets it, and then BYE, when it can be
		// reached. The call to be replaced stays.
		replaced.release()
		_, release := d.terminate(&ending{cause: Cause{By: PartyTransport, Method: "INVITE", Status: res.StatusCode, Err: err}})
		release()
		return delivered, err
	}
	d.endReplaced(replaced)
	return delivered, nil
}

// repeatPreviewLocked gives a 2xx without a body the session of the provisional responses
// before it if they were not sent reliably: the 2xx has to have the answer (RFC 3261 13.2.1).
func (s *dialogState) repeatPreviewLocked(tx serverTx, res *sip.Response) {
	if preview := s.negotiation.Last(); preview != nil && len(res.Body()) == 0 && s.negotiation.IsOpen(tx) {
		setBody(res, preview)
		sipheader.SetLength(res)
	}
}

// lockToChoose takes the dialog's mutex, and the stack's before it if an early dialog
// becomes the call: the registry then has another key.
func (d *Dialog) lockToChoose(e *earlyDialog) (unlock func()) {
	if e != nil {
		return d.lockBoth().unlock
	}
	d.mutex.Lock()
	return d.mutex.Unlock
}

// mayAcceptLocked returns an error if the call must not be accepted, yet or any more.
func (d *Dialog) mayAcceptLocked(e *earlyDialog) error {
	switch {
	case d.incoming.tx == nil:
		return ErrAnswered
	case e.isGone():
		return ErrTerminated
	case d.awaitsPRACKLocked(e):
		return errAwaitsPRACK
	}
	return nil
}

// rejectReplacement refuses an INVITE when the call to be replaced has ended or was
// already replaced.
func (d *Dialog) rejectReplacement(tx serverTx, refusal int) (<-chan struct{}, error) {
	if !d.claim() {
		return nil, ErrAnswered
	}
	res := tx.NewResponse(refusal, "")
	delivered, _ := d.reject(tx, res, Cause{By: PartyLocal, Method: "INVITE", Status: refusal})
	return delivered, ErrReplaced
}

// letGo waits until the call is saved, if the 2xx is held for that, and reports whether it may
// be written. If not, a CANCEL or BYE has come meanwhile and has ended the call.
func (d *Dialog) letGo(u *retransmission) bool {
	if !u.IsHeld() {
		return true
	}
	d.awaitSaved()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	waits := slices.Contains(d.retransmissions, u)
	if waits {
		u.before = nil
		u.timer.Reset(u.LetGo(time.Now(), d.config().timers().T1))
	}
	return waits
}

// cancelHeld cancels an INVITE whose 2xx waits until the call is saved, and reports whether it
// does: the first one ends the call, a re-INVITE leaves it as it was. letGo answers it.
func (d *Dialog) cancelHeld(tx serverTx, cause Cause) bool {
	d.mutex.Lock()
	i := slices.IndexFunc(d.retransmissions, func(u *retransmission) bool { return u.tx == tx && u.IsHeld() })
	first := i >= 0 && d.retransmissions[i].Initial
	if i >= 0 && !first {
		d.undoLocked(d.retransmissions[i])
	}
	d.mutex.Unlock()
	if first {
		d.clear(cause)
	}
	return i >= 0
}

// isHoldingLocked reports whether a 2xx of ours to an INVITE has not left yet.
func (d *Dialog) isHoldingLocked() bool {
	return slices.ContainsFunc(d.retransmissions, func(u *retransmission) bool { return u.IsHeld() })
}

// retransmitLocked arms the timer that repeats a 2xx, before it is first written.
func (d *Dialog) retransmitLocked(u *retransmission) {
	u.timer = d.after(u.Begin(time.Now(), d.config().timers().T1), func() { d.retransmit(u) })
	d.retransmissions = append(d.retransmissions, u)
}

// retransmit sends a 2xx again when its time has come; after 64*T1 the call ends.
func (d *Dialog) retransmit(u *retransmission) {
	d.mutex.Lock()
	if !slices.Contains(d.retransmissions, u) {
		d.mutex.Unlock()
		return
	}
	does, wait := u.Fire(time.Now(), d.config().timers().T2)
	release := func() {}
	if does == invite.GiveUp {
		release = d.ackTimedOutLocked(u)
	} else {
		u.timer.Reset(wait)
	}
	d.mutex.Unlock()
	release()
	if does != invite.Again {
		return
	}
	if err := u.tx.Repeat(); err != nil {
		d.log().Debug("2xx could not be repeated", "error", err)
	}
}

// ackTimedOutLocked ends a call whose 2xx got no ACK in 64*T1, by BYE (RFC 3261
// 13.3.1.4, 14.2).
func (d *Dialog) ackTimedOutLocked(u *retransmission) (release func()) {
	d.stopRetransmissionLocked(u)
	e := because(sip.StatusRequestTimeout, "no ACK", Cause{By: PartyTimeout, Method: "ACK", Err: ErrTimeout})
	if u.Initial && d.phase == phaseAwaitingACK {
		d.phase = phaseBye
		if d.ending == nil {
			d.ending = e
		}
		return func() { d.spawnBye() }
	}
	return d.hangupLocked(e)
}

func (d *Dialog) stopRetransmissionLocked(u *retransmission) {
	u.timer.Stop()
	u.tx.Acknowledged()
	if u.Initial {
		d.confirmed()
	}
	d.retransmissions = slices.DeleteFunc(d.retransmissions, func(other *retransmission) bool { return other == u })
	if len(d.retransmissions) == 0 {
		d.retransmissions = nil
		d.events.acked.Wake()
	}
}

// handleAck handles the ACK to a 2xx. It belongs to the INVITE with its CSeq number,
// which need not be the latest (RFC 3261 13.2.2.4).
func (d *Dialog) handleAck(ack *sipmsg.Message, flow *transport.Flow) {
	d.mutex.Lock()
	u := d.retransmissionLocked(sipheader.CSeq(ack))
	if e, ok := d.calleeForkOfLocked(ack); u == nil || e != nil || !ok {
		d.mutex.Unlock()
		return
	}
	s := d.currentLocked()
	s.reachedLocked(ack, flow)
	d.stopRetransmissionLocked(u)
	body, session := bodiesIn(ack)
	if s.negotiation.IsOpen(u) {
		s.answeredLocked(session)
	}
	if u.Initial || session != nil { // of the first there is nothing to go back to
		before := s.negotiation.Local()
		if s.takeAnswerLocked(u, session, receivedAs(sip.ACK, ack)); !u.Initial && s.negotiation.Local() != before {
			d.changedIfKeptLocked()
		}
	}
	s.rollbackLocked(u, receivedAs(sip.ACK, ack))
	d.keepBodyLocked(body)
	release := func() {}
	if u.Initial && d.phase == phaseAwaitingACK {
		d.phase = phaseConfirmed
		if d.ending != nil {
			d.phase = phaseBye
			release = func() { d.spawnBye() }
		}
	}
	d.mutex.Unlock()
	release()
}

func (d *Dialog) retransmissionLocked(seq uint32) *retransmission {
	for _, u := range d.retransmissions {
		if u.Seq == seq {
			return u
		}
	}
	return nil
}

// waitAcked waits until no 2xx of ours waits for its ACK, or the call has ended.
func (d *Dialog) waitAcked(ctx context.Context) error {
	d.mutex.Lock()
	if len(d.retransmissions) == 0 || d.state != DialogStateEstablished {
		d.mutex.Unlock()
		return nil
	}
	acked := d.events.acked.C()
	d.mutex.Unlock()
	select {
	case <-acked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ringing are the timers and the watch of a call that is not answered.
type ringing struct {
	// limit fires at the ringing limit, again when it is time to say again that the call
	// rings.
	limit, again *deadline.Func
	// unwatch ends the watch over the connection of the peer's INVITE.
	unwatch func()
}

// ring sends the automatic 180 (RFC 3261 13.3.1.1), unless that is switched off, and
// repeats it every minute.
func (d *Dialog) ring(tx serverTx) {
	rings := d.mayRing(tx.Message())
	if rings {
		if err := d.sendRinging(tx); err != nil {
			d.log().Debug("180 could not be sent", "error", err)
		}
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.phase != phaseIncoming || d.incoming.tx == nil {
		return
	}
	d.setStateLocked(DialogStateRinging)
	d.limitLocked()
	if rings {
		d.rangFirst = true
		d.ringAgainLocked()
	}
}

// sendRinging sends the automatic 180, reliably where the caller requires it.
func (d *Dialog) sendRinging(tx serverTx) error {
	if d.sendsReliably(tx.Message(), false) {
		return d.sendProvisional(tx, d.newProvisional(tx, sip.StatusRinging, ""), nil)
	}
	return answerError(tx.Answer(sip.StatusRinging, "", d.provisionalFields(tx)...))
}

// mayRing reports whether the automatic 180 is wanted, and may be sent. A reliable one
// would need an offer of ours when the INVITE has none (RFC 3262 5).
func (d *Dialog) mayRing(invite *sipmsg.Message) bool {
	return !d.config().NoAutoRinging && (d.config().rules().HasOffer(invite) || !d.sendsReliably(invite, false))
}

// newProvisional builds a provisional response that makes an early dialog (RFC
// 3261 12.1.1).
func (d *Dialog) newProvisional(tx serverTx, code int, reason string) *sip.Response {
	res := tx.NewResponse(code, reason)
	for _, h := range d.provisionalHeaders(tx) {
		res.AppendHeader(h)
	}
	return res
}

// provisionalFields returns provisionalHeaders as text, for a response that no option
// changes.
func (d *Dialog) provisionalFields(tx serverTx) []sipmsg.Field {
	fields := append(make([]sipmsg.Field, 0, 3),
		sipmsg.Field{Name: "Contact", Value: d.contactValue(tx)},
		sipmsg.Field{Name: "Allow", Value: d.stack.allow(d.handlersNow()).Value()})
	if speaksOfPackages(tx.Message()) {
		fields = append(fields, sipmsg.Field{Name: "Recv-Info", Value: d.config().recvInfo().Value()})
	}
	return fields
}

func (d *Dialog) provisionalHeaders(tx serverTx) []sip.Header {
	headers := []sip.Header{d.contactTo(tx), d.stack.allow(d.handlersNow())}
	if speaksOfPackages(tx.Message()) {
		headers = append(headers, d.config().recvInfo())
	}
	return headers
}

// ringingRefresh is the interval after which a ringing INVITE gets another provisional
// response, so that no proxy cancels it (RFC 3261 13.3.1.1).
const ringingRefresh = time.Minute

// reliableRefresh is that interval where the response can be a reliable one (RFC 3262
// 3).
const reliableRefresh = 150 * time.Second

// ringAgainLocked arms the timer of ringAgain, once.
func (d *Dialog) ringAgainLocked() {
	if d.ringing.again == nil {
		d.ringing.again = d.onTime(ringingRefresh, (*Dialog).ringAgain)
	}
}

func (d *Dialog) ringAgain() {
	d.mutex.Lock()
	tx := d.incoming.tx
	if tx == nil || d.state != DialogStateRinging {
		d.mutex.Unlock()
		return
	}
	if r := d.currentLocked().reliable; r != nil && r.order.Started() {
		d.ringing.again.Reset(reliableRefresh)
		d.mutex.Unlock()
		d.refreshProvisional(tx)
		return
	}
	d.ringing.again.Reset(ringingRefresh)
	d.mutex.Unlock()
	if err := tx.Repeat(); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}

// refreshProvisional repeats the ringing response for a caller that supports reliable
// responses.
func (d *Dialog) refreshProvisional(tx serverTx) {
	d.mutex.RLock()
	r := d.currentLocked().reliable
	idle, code := r.order.IsIdle(), r.code
	d.mutex.RUnlock()
	if !idle {
		return // what is being repeated says it
	}
	res := d.newProvisional(tx, code, "")
	res.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	if err := d.sendProvisional(tx, res, nil); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}
