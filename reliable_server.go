package dialog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// reliableServer sends the reliable provisional responses to the peer's INVITE, one after
// the other (RFC 3262 3). The dialog's mutex guards its fields. A nil reliableServer has
// sent none.
type reliableServer struct {
	// order numbers the responses, and matches the PRACKs to them.
	order *rel100.Server[*provisional]
	// offer is true if the INVITE has an offer, allowsUpdate if its Allow lists UPDATE.
	offer        bool
	allowsUpdate bool
	// code is the status of the latest response that was sent.
	code int
}

// provisional is one reliable provisional response. Its fields are guarded by
// the dialog's mutex.
type provisional struct {
	tx serverTx
	// fork is the early dialog of WithFork; nil for that of the automatic 180. state is that of
	// either, once the response is queued.
	fork  *earlyDialog
	state *dialogState
	// res, as tx, is nil once it must not be repeated any more; body is the
	// session in it.
	res  *sip.Response
	body *SimpleBody

	schedule rel100.Schedule
	timer    *deadline.Func
}

// sendProvisional sends a provisional response: reliably when the caller requires that,
// or when the caller supports it and the response has a body or WithReliable was given.
func (d *Dialog) sendProvisional(tx serverTx, res *sip.Response, e *earlyDialog) error {
	wanted := rel100.Unmark(res)
	if !d.sendsReliably(tx.Message(), wanted || len(res.Body()) > 0) {
		d.mutex.Lock()
		d.stateOfLocked(e).previewLocked(res)
		d.mutex.Unlock()
		return answerError(tx.Respond(res))
	}
	d.mutex.Lock()
	send, err := d.enqueueLocked(&provisional{tx: tx, fork: e, res: res, body: sdpIn(res)})
	d.mutex.Unlock()
	if err != nil {
		return err
	}
	return answerError(send())
}

// previewLocked records the session in a response that is about to be sent, and returns
// it.
func (s *dialogState) previewLocked(res *sip.Response) *SimpleBody {
	s.numberLocked(res)
	body := sdpIn(res)
	s.negotiation.Sent(keptOrNil(body))
	return body
}

// sendsReliably reports whether a response is sent reliably (RFC 3262 3): always if the
// caller requires it, and if worth is true and the caller supports it.
func (d *Dialog) sendsReliably(invite *sipmsg.Message, worth bool) bool {
	switch {
	case d.config().Reliable == ReliableOff:
		return false
	case rel100.Requires(invite):
		return true
	default:
		return worth && rel100.Allows(invite)
	}
}

// enqueueLocked queues a response. The result writes, and is called without locks.
func (d *Dialog) enqueueLocked(p *provisional) (send func() error, err error) {
	if d.incoming.tx == nil {
		return nil, ErrAnswered
	}
	if p.fork.isGone() {
		return nil, ErrTerminated
	}
	s := d.stateOfLocked(p.fork)
	p.state = s
	if s.reliable == nil {
		invite := p.tx.Message()
		s.reliable = &reliableServer{
			order: rel100.NewServer[*provisional](sipheader.CSeq(invite), 1+uint32(rand.Int32N(rel100.MaxFirstRSeq))),
			offer: d.config().rules().HasOffer(invite), allowsUpdate: sipheader.Lists(invite, "Allow", "UPDATE"),
		}
	}
	r := s.reliable
	switch {
	case r.mustOffer() && p.body == nil:
		return nil, fmt.Errorf("%w: the first reliable response to an INVITE without an offer needs an offer (RFC 3262 5)", ErrInvalidArgument)
	case !r.order.Enqueue(p):
		return nil, fmt.Errorf("%w: %d provisional responses await PRACK", ErrPending, r.order.Queued())
	}
	p.body = s.previewLocked(p.res)
	return s.nextProvisionalLocked(), nil
}

// mustOffer reports whether the next response is the first one, to an INVITE
// without an offer.
func (r *reliableServer) mustOffer() bool {
	return !r.offer && !r.order.Started() && r.order.Queued() == 0
}

// nextProvisionalLocked numbers the next response, unless the one before waits for
// its PRACK. The result writes it, and is called without locks.
func (s *dialogState) nextProvisionalLocked() (send func() error) {
	d, r := s.d, s.reliable
	p, rseq, ok := r.order.Next()
	if !ok {
		return func() error { return nil }
	}
	r.code = p.res.StatusCode
	if !r.offer && !s.negotiation.Agreed() { // RFC 3262 5
		s.negotiation.SendOffer(p, keptOrNil(p.body), offeranswer.ByApplication)
		s.offeredLocked(p)
	}
	p.res.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	p.res.AppendHeader(sip.NewHeader("RSeq", rel100.FormatRSeq(rseq)))
	t1 := d.config().timers().T1
	p.schedule = rel100.NewSchedule(time.Now(), t1)
	p.timer = d.after(t1, func() { d.repeatProvisional(p) })
	tx, res := p.tx, p.res // p lets go of them once the INVITE is answered
	shared := d.provisionalsLocked()
	shared.writing++
	return func() error {
		err := tx.Respond(res)
		d.mutex.Lock()
		defer d.mutex.Unlock()
		shared.writing--
		shared.changed.Wake()
		return err
	}
}

// repeatProvisional sends a response again, by its schedule (RFC 3262 3).
func (d *Dialog) repeatProvisional(p *provisional) {
	d.mutex.Lock()
	if !p.waitsLocked() {
		d.mutex.Unlock()
		return
	}
	wait, ok := p.schedule.Next(time.Now())
	if !ok {
		d.mutex.Unlock()
		d.unpracked(p)
		return
	}
	p.timer.Reset(wait)
	tx, res := p.tx, p.res
	d.mutex.Unlock()
	if err := tx.Respond(res); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}

// waitsLocked reports whether a response that was sent waits for its PRACK.
func (p *provisional) waitsLocked() bool {
	outstanding, _ := p.state.reliable.order.Outstanding()
	return p.state.d.incoming.tx != nil && outstanding == p && !p.fork.isGone()
}

// unpracked ends the early dialog whose reliable response was not acknowledged in 64*T1; with
// the last one the INVITE is rejected (RFC 3262 3).
func (d *Dialog) unpracked(p *provisional) {
	both := d.lockBoth()
	release := func() {}
	if p.waitsLocked() {
		release = d.unprackedLocked(p)
	}
	both.unlock()
	release()
}

func (d *Dialog) unprackedLocked(p *provisional) (release func()) {
	if p.fork != nil {
		if open, ok := d.endCalleeForkLocked(p.fork, nil); ok {
			return func() { d.refuseUpdates(open) }
		}
	}
	return d.rejectLocked(&ending{
		cause:  Cause{By: PartyTimeout, Method: "PRACK", Status: sip.StatusGatewayTimeout, Err: ErrTimeout},
		status: sip.StatusGatewayTimeout,
	})
}

// stop stops sending after the final response to the INVITE. The PRACK to the last
// response may still come (RFC 3262 3).
func (r *reliableServer) stop() {
	if r == nil {
		return
	}
	r.order.Close()
	if p, ok := r.order.Outstanding(); ok {
		p.timer.Stop()
		p.tx, p.res = nil, nil
	}
}

// acknowledged returns the response that a PRACK acknowledges, or nil.
func (r *reliableServer) acknowledged(ack rel100.RAck) *provisional {
	if r == nil {
		return nil
	}
	p, ok := r.order.Acknowledge(ack)
	if ok {
		p.timer.Stop()
	}
	return p
}

// awaited returns the RAck of the next PRACK; zero if no PRACK is expected.
func (r *reliableServer) awaited() rel100.RAck {
	if r == nil {
		return rel100.RAck{}
	}
	return r.order.Awaited()
}

// inFlight reports whether a session description of ours has not been
// acknowledged.
func (r *reliableServer) inFlight() bool {
	if r == nil {
		return false
	}
	for p := range r.order.Unacknowledged() {
		if p.body != nil {
			return true
		}
	}
	return false
}

// waitPracked waits until the INVITE may be accepted (RFC 3262 3, 5), or is
// answered otherwise.
func (d *Dialog) waitPracked(ctx context.Context, e *earlyDialog) error {
	for {
		d.mutex.Lock()
		if d.incoming.tx == nil || e.isGone() || !d.awaitsPRACKLocked(e) {
			d.mutex.Unlock()
			return nil
		}
		changed := d.provisionalsLocked().changed.C()
		d.mutex.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitsPRACKLocked reports whether a session in a reliable response awaits its PRACK, a
// PRACK its answer, or a reliable response is being written: none may leave after the
// final response.
func (d *Dialog) awaitsPRACKLocked(e *earlyDialog) bool {
	shared, s := d.incoming.provisionals, d.stateOfLocked(e)
	update := s.updateIn
	return shared != nil && shared.writing > 0 || s.reliable.inFlight() || update != nil && update.prack
}

// Reliability sets whether provisional responses are sent reliably: the option 100rel,
// with PRACK (RFC 3262).
type Reliability int

const (
	// ReliableSupported, the default: our calls list 100rel in Supported, and either
	// side may use it.
	ReliableSupported Reliability = iota
	// ReliableOff: 100rel is neither announced nor accepted. A call that requires it
	// gets 420, and PRACK 405.
	ReliableOff
	// ReliableRequired: our calls require 100rel, and a caller that does not support it
	// gets 421.
	ReliableRequired
)

// requireReliable adds 100rel to an INVITE that begins a call, as configured (RFC 3262 4).
func (c *StackConfig) requireReliable(invite *draft.Request) {
	if c.Reliable == ReliableRequired {
		invite.Add("Require", rel100.Tag)
	}
}

// handlePrack handles a PRACK (RFC 3262 3): 200 when it acknowledges the response
// that waits for it, else 481. The answer waits for nothing but the decision
// about an offer in the PRACK, which has two seconds.
func (d *Dialog) handlePrack(tx serverTx, req *sipmsg.Message, e *earlyDialog) {
	ack, ok := rel100.RAckOf(req)
	if !ok {
		d.stack.respond(tx, badRack(tx))
		return
	}
	d.mutex.Lock()
	s := d.stateOfLocked(e)
	p := s.reliable.acknowledged(ack)
	if p == nil {
		d.mutex.Unlock()
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	answer := s.takePrackLocked(tx, p, req)
	next := s.nextProvisionalLocked()
	d.mutex.Unlock()
	answer()
	if err := next(); err != nil {
		d.log().Debug("provisional response could not be sent", "error", err)
	}
}

func badRack(tx serverTx) *sip.Response {
	return tx.NewResponse(sip.StatusBadRequest, "RAck missing or malformed")
}

// takePrackLocked handles the body of a PRACK (RFC 3262 5): the answer to our offer, or an
// offer after the INVITE's was answered. The result answers the PRACK.
func (s *dialogState) takePrackLocked(tx serverTx, p *provisional, req *sipmsg.Message) (answer func()) {
	d := s.d
	body, answersUs := sessionIn(req), s.negotiation.IsOpen(p)
	if p.body != nil {
		s.giveAnswerLocked(p.tx, p.body, offeranswer.ByApplication, sentBy(sip.INVITE, s.reliable.code))
	}
	if answersUs {
		s.answeredLocked(body)
	}
	if body != nil {
		s.takeAnswerLocked(p, body, receivedAs(sip.PRACK, req))
	}
	s.rollbackLocked(p, receivedAs(sip.PRACK, req))
	switch {
	case answersUs || body == nil || !offeranswer.IsSDP(body): // any other body is taken as in an ACK (RFC 3262 3)
		d.keepBodyLocked(bodyOf(req))
	case s.mayFollowLocked() && s.updateIn == nil:
		s.updateIn = &updateServer{tx: tx, fork: p.fork, body: bodyOf(req), offer: body, prack: true, cancel: func() {}}
		s.negotiation.ReceiveOffer(s.updateIn, body)
		return d.answerUpdateLocked(s.updateIn)
	default:
		// Two offers at once: the PRACK still gets its 200, without an answer.
		d.log().Debug("offer in a PRACK refused: another offer is pending")
	}
	d.provisionalsLocked().writing++
	return func() { d.answerPrack(tx, nil) }
}

// mayFollowLocked reports whether the offer that came first was answered, and another may
// follow in a PRACK: none is open, and the call goes on.
func (s *dialogState) mayFollowLocked() bool {
	return s.negotiation.Agreed() && s.negotiation.State() == offeranswer.Stable &&
		s.d.ending == nil && s.d.state != DialogStateTerminated
}

// answerPrack writes the 200 to a PRACK; then the INVITE may be accepted. It is counted as
// being written since that was decided.
func (d *Dialog) answerPrack(tx serverTx, body Body) {
	res := tx.NewResponse(sip.StatusOK, "")
	setBody(res, body)
	d.stack.respond(tx, res)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	shared := d.provisionalsLocked()
	shared.writing--
	shared.changed.Wake()
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
	s := d.stateOfLocked(in.fork)
	answer = s.negotiation.Numbered(answer)
	s.giveAnswerLocked(in, answer, made, sentBy(sip.PRACK, sip.StatusOK))
	d.logAcceptedLocked(sip.PRACK, made)
	d.mutex.Unlock()
	d.answerPrack(in.tx, answer)
}

// refusePrack refuses the offer in a PRACK. The PRACK itself cannot be refused (RFC 3262
// 3): the answer in its 200 has port 0 in every line, and our last session is offered
// again, or the call ends (RFC 6337 2.3).
func (d *Dialog) refusePrack(in *updateServer) {
	answer, again := d.withoutMedia(in)
	if !d.claimUpdate(in, sip.StatusOK) { // a 200 that refuses
		return
	}
	in.cancel()
	d.logRefused(sip.PRACK, sip.StatusNotAcceptableHere)
	d.mutex.Lock()
	d.stateOfLocked(in.fork).negotiation.Sent(answer)
	d.mutex.Unlock()
	d.answerPrack(in.tx, answer)
	if d.State() == DialogStateTerminated || in.fork != nil { // our requests go to the current early dialog
		return
	}
	d.background(func() { d.offerAgain(again) })
}

// withoutMedia is the answer that refuses all of an offer, and our session as the
// offer to follow it; nil when there is none.
func (d *Dialog) withoutMedia(in *updateServer) (answer, again Body) {
	d.mutex.RLock()
	s := d.stateOfLocked(in.fork)
	standing, allowsUpdate := s.negotiation, s.reliable.allowsUpdate
	d.mutex.RUnlock()
	if answer = standing.Refusal(keptOrNil(in.offer)); answer == nil || !allowsUpdate {
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
