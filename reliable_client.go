package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sendslot"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// reliableClient handles the reliable provisional responses to one INVITE of ours in one
// dialog, in their order, and acknowledges each by a PRACK (RFC 3262 4). The dialog's
// mutex guards the fields that are not set at construction.
type reliableClient struct {
	// Set at construction.

	d *Dialog
	// early is the early dialog; nil for those to a re-INVITE.
	early *earlyDialog
	// carrier is the exchange whose offer the INVITE carries, if it has one.
	carrier any
	offered bool
	// propose is InviteOpts.PrackOffer.
	propose func(context.Context, ForkInfo) Body

	// answered is true once the re-INVITE has a final response.
	answered bool
	// order tells which responses are accepted, and queues the PRACKs to them.
	order rel100.Client[*prack]
	// negotiated is true once a response had the answer to the INVITE's offer, or the
	// offer: then the 2xx has no session (RFC 3262 5).
	negotiated bool
}

// rseqOf returns the RSeq of a reliable provisional response; zero for another, and for
// all if we do not accept reliable responses.
func (d *Dialog) rseqOf(res *sipmsg.Message) uint32 {
	if d.config().Reliable == ReliableOff {
		return 0
	}
	return rel100.RSeqOf(res)
}

// stateLocked is the state of the dialog that the responses are in.
func (r *reliableClient) stateLocked() *dialogState { return r.d.stateOfLocked(r.early) }

// unwanted returns a channel that is closed when no PRACK is sent any more; nil, which
// blocks for ever, outside the early dialogs.
func (r *reliableClient) unwanted() <-chan struct{} {
	if r.early == nil {
		return nil
	}
	return r.early.gone
}

// inOrderLocked reports whether the dialog accepts a response: it is not reliable, or it
// is the next reliable one (RFC 3262 4).
func (r *reliableClient) inOrderLocked(res *sipmsg.Message) bool {
	rseq := r.d.rseqOf(res)
	return rseq == 0 || r.order.Check(rseq) == rel100.InOrder
}

// repeatedLocked handles a reliable response that is not the next one: its PRACK is sent
// again if it has failed.
func (r *reliableClient) repeatedLocked(res *sipmsg.Message) (then func()) {
	p, ok := r.order.Resend(r.d.rseqOf(res))
	if !ok {
		return func() {}
	}
	p.over = false
	return r.enqueueLocked(p)
}

// acknowledgeLocked begins the PRACK to a reliable response, and records the session in
// the response. It does nothing for another response.
func (r *reliableClient) acknowledgeLocked(res *sipmsg.Message) (then func()) {
	rseq := r.d.rseqOf(res)
	if rseq == 0 {
		return func() {} // its session is a preview (RFC 3261 13.2.1)
	}
	r.order.Take(rseq)
	p := &prack{r: r, rseq: rseq, cseq: sipheader.CSeq(res)}
	if body := sdpIn(res); body != nil && !r.negotiated {
		r.negotiateLocked(p, res, body)
		if r.offered && r.propose != nil && r.mayOfferLocked() && res.Status != invite.StatusTerminated {
			response := r.responseLocked(res)
			p.propose = func(ctx context.Context) Body { return r.propose(ctx, response) }
		}
	}
	return r.enqueueLocked(p)
}

// mayOfferLocked reports whether the PRACK to the response that has answered our offer may
// have another offer (RFC 3262 5, RFC 6337 3.2).
func (r *reliableClient) mayOfferLocked() bool {
	s := r.stateLocked()
	return s.mayFollowLocked() && s.updateOut == nil
}

// responseLocked returns the information about a response for the function that may make
// an offer.
func (r *reliableClient) responseLocked(res *sipmsg.Message) ForkInfo {
	if r.early != nil {
		return r.early.infoLocked()
	}
	s := r.stateLocked()
	target := s.Target()
	return ForkInfo{
		RemoteTag: s.RemoteTag(), RemoteTarget: *target.Clone(),
		Status: res.Status, Body: keptOrNil(bodyOf(res)),
	}
}

// negotiateLocked handles the first session in a reliable response: the answer to our
// offer, or the offer if we made none (RFC 3262 5). If no callback decides that offer, our
// session answers it; without a session it gets no answer, like an offer in a 2xx.
func (r *reliableClient) negotiateLocked(p *prack, res *sipmsg.Message, body *SimpleBody) {
	s := r.stateLocked()
	switch {
	case r.offered:
		s.takeAnswerLocked(r.carrier, body, receivedAs(sip.INVITE, res))
		r.negotiated = true
	case res.Status == invite.StatusTerminated:
		p.body = s.negotiation.Refusal(body) // without media, as the offer should be (RFC 6228 5)
	case r.d.offerDeciderLocked().decide != nil:
		s.negotiation.ReceiveOffer(p, body)
		r.negotiated, p.offer = true, s.offerRequestLocked(sip.INVITE, res, body)
	default:
		if p.body, p.refused = s.negotiation.AnswerOrRefusal(body); p.body != nil {
			s.negotiation.ReceiveOffer(p, body)
			r.negotiated = true
		}
	}
}

// enqueueLocked queues a PRACK. The function that it returns begins to send it, and is
// called without locks.
func (r *reliableClient) enqueueLocked(p *prack) (begin func()) {
	if !r.order.Enqueue(p) {
		return func() {}
	}
	if p.offer == nil && p.propose == nil {
		// Before the application gets the response, so that its requests do not overtake
		// the PRACK.
		p.ticket, p.queued = r.d.sendSlot.Enqueue(), true
	}
	return p.begin
}

// prack is the PRACK to one reliable provisional response. The dialog's mutex
// guards its fields once it is queued.
type prack struct {
	r *reliableClient
	// rseq and cseq are those of the response: the RAck (RFC 3262 7.2).
	rseq, cseq uint32
	// offer is the offer in the response, which the application decides; propose asks the
	// application for an offer of ours. body is the result of either; ours is true if it
	// is an offer.
	offer   *OfferRequest
	propose func(context.Context) Body
	body    Body
	ours    bool
	made    offeranswer.Origin
	// refused is the reason for which the answer refuses the offer.
	refused error
	// over is true once its outcome is known.
	over bool
	// ticket is its place in the queue for the send slot, while queued is true.
	ticket sendslot.Ticket
	queued bool
}

func (p *prack) begin() { p.r.d.background(p.run) }

// run gets the answer, or the offer, if one is needed, and writes the PRACK. If the offer
// is refused, the call ends after the PRACK, as after an ACK (RFC 3261 13.2.2.4).
func (p *prack) run() {
	d := p.r.d
	p.decide()
	if err := p.send(); err != nil {
		d.log().Debug("PRACK could not be sent", "error", err)
		p.done(err)
	}
	if p.refused != nil && !p.r.early.isGone() {
		d.hangup(offerRefusedBecause(Cause{By: PartyLocal, Method: p.r.endsBy(), Err: p.refused}))
	}
}

// endsBy is the request that ends the call.
func (r *reliableClient) endsBy() string {
	if r.early == nil {
		return string(sip.BYE)
	}
	return string(sip.CANCEL)
}

// decide asks the application for the answer to an offer, or for an offer.
func (p *prack) decide() {
	d := p.r.d
	d.mutex.RLock()
	offer, handler, propose := p.offer, d.offerDeciderLocked().decide, p.propose
	d.mutex.RUnlock()
	switch {
	case offer != nil:
		p.answerTo(offer, handler)
	case propose != nil:
		p.make(propose)
	}
}

func (p *prack) answerTo(r *OfferRequest, handler OfferRequestHandler) {
	d := p.r.d
	answer, err := Body(nil), error(ErrCanceled)
	if handler != nil {
		answer, err = d.answerLate(sip.PRACK, handler, r, p.r.unwanted())
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	p.offer, p.body, p.made, p.refused = nil, answer, offeranswer.ByApplication, err
	if err != nil || isNilBody(answer) {
		p.body, p.made = p.r.stateLocked().negotiation.Refusal(r.Offer), offeranswer.ByDefault
	}
}

// make gets an offer of ours. The peer waits for the PRACK, with or without an offer, so
// an offer that takes longer than the time of an UPDATE is not sent.
func (p *prack) make(propose func(context.Context) Body) {
	d := p.r.d
	ctx, cancel := context.WithTimeout(context.Background(), decisionTime)
	defer cancel()
	offer, err := d.await(ctx, p.r.unwanted(), func() (Body, error) {
		return d.guarded("InviteOpts.PrackOffer", func() (Body, error) { return propose(ctx), nil })
	})
	if err != nil {
		d.log().Debug("no offer for a PRACK", "error", err)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	p.propose = nil
	if err == nil && !isNilBody(offer) {
		p.body, p.ours = offer, true
	}
}

// send writes the PRACK. It waits for the send slot as long as the peer waits before it
// repeats its response (RFC 3262 3), so that a request that hangs in a dial does not delay
// the PRACK for longer.
func (p *prack) send() error {
	d := p.r.d
	t := d.config().timers()
	wait, cancelWait := context.WithTimeout(d.baseContext(), t.T1)
	defer cancelWait()
	if !p.queued {
		p.ticket = d.sendSlot.Enqueue()
	}
	p.queued = false
	d.sendSlot.WaitOrJoin(wait, p.ticket)
	defer d.sendSlot.Release()
	d.awaitSeqs()
	ctx, cancel := context.WithTimeout(d.baseContext(), t.T2)
	defer cancel()
	d.mutex.Lock()
	if p.r.early.isGone() || d.phase == phaseCleared || d.phase == phaseBye {
		p.r.order.Drop()
		d.mutex.Unlock()
		return nil
	}
	req, err := p.buildLocked()
	if err != nil {
		d.mutex.Unlock()
		return err
	}
	return p.r.stateLocked().unlockAndSend(ctx, req, p.r.early, p.r.early.mayRepeatLocked, func(x *retry.Request) {
		x.OnResponse, x.OnDone = p.response, p.done
	})
}

// buildLocked builds the PRACK.
func (p *prack) buildLocked() (*draft.Request, error) {
	r, body := p.r, p.body
	s := r.stateLocked()
	req, err := s.nextRequestLocked(sip.PRACK)
	if err != nil {
		return nil, err
	}
	if p.ours && !r.mayOfferLocked() {
		body = nil // something else was offered meanwhile
	}
	body = s.negotiation.Numbered(body)
	if p.ours {
		s.negotiation.SendOffer(p, body, offeranswer.ByApplication)
	} else {
		s.giveAnswerLocked(p, body, p.made, sentBy(sip.PRACK, 0))
	}
	req.Add("RAck", rel100.RAck{RSeq: p.rseq, CSeq: p.cseq, Method: string(sip.INVITE)}.String())
	putBody(req, body) // of this package's own: see guarded
	return req, nil
}

func (p *prack) response(res *sipmsg.Message) {
	if res.IsProvisional() {
		return
	}
	p.settle(res)
	p.ended(rel100.OutcomeOf(res.Status), Cause{By: PartyRemote, Method: "PRACK", Status: res.Status, Reason: res.Reason})
}

// settle closes the offer in the PRACK, if any: a 2xx has the answer (RFC 3262 5),
// otherwise the offer is rolled back.
func (p *prack) settle(res *sipmsg.Message) {
	d := p.r.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s := p.r.stateLocked()
	if s.negotiation.IsOpen(p) && res != nil && res.IsSuccess() {
		body, session := bodiesIn(res)
		if session != nil {
			s.takeAnswerLocked(p, session, receivedAs(sip.PRACK, res))
		}
		d.keepBodyLocked(body)
	}
	s.rollbackLocked(p, receivedAs(sip.PRACK, res))
}

// done runs after the last response, or if there is none.
func (p *prack) done(err error) {
	err = callError(err)
	if err == nil {
		return
	}
	p.settle(nil)
	outcome := rel100.Failed
	if errors.Is(err, ErrTimeout) {
		outcome = rel100.Refused
	}
	p.ended(outcome, Cause{By: PartyTimeout, Method: "PRACK", Err: ErrTimeout})
}

// ended lets the next PRACK of the dialog begin. One that has failed is sent again without an
// offer of ours. cause is that of the end, if the outcome ends the early dialog.
func (p *prack) ended(outcome rel100.Outcome, cause Cause) {
	d := p.r.d
	d.mutex.Lock()
	var next *prack
	if !p.over {
		p.over = true
		var kept bool
		if next, _, kept = p.r.order.End(p, p.rseq, outcome); kept && p.ours {
			p.body, p.ours = nil, false
		}
	}
	d.mutex.Unlock()
	if next != nil {
		next.begin()
	}
	if outcome == rel100.Refused {
		p.failed(cause)
	}
}

// failed handles a PRACK that the peer refuses with 481, or does not answer (RFC 5057): it
// ends the early dialog, and the call if there is no other. After the final response to
// the INVITE it has no effect.
func (p *prack) failed(cause Cause) {
	d, e := p.r.d, p.r.early
	both := d.lockBoth()
	release := func() {}
	switch {
	case e == nil && !p.r.answered:
		release = d.hangupLocked(&ending{cause: cause})
	case e != nil && !e.i.forks.Won() && d.phase == phaseInviting:
		release = e.failedLocked(cause)
	}
	both.unlock()
	release()
}
