package dialog

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sendslot"
	"sipdialog.example/dialog/internal/txn"
)

// prack is the PRACK to one reliable provisional response. The dialog's mutex
// guards its fields once it is queued.
type prack struct {
	r *reliableClient
	// rseq and cseq are those of the response: the RAck (RFC 3262 7.2).
	rseq, cseq uint32
	// offer is the one in the response for the application to decide, propose
	// asks it for one of ours. body is what comes of either, by its author; ours is
	// true when that is an offer.
	offer   *SimpleBody
	propose func(context.Context) Body
	body    Body
	ours    bool
	made    offeranswer.Origin
	// refused is why the answer refuses the offer.
	refused error
	// over is true once its outcome is known.
	over bool
	// ticket is its place in the queue for the send slot, while queued is true.
	ticket sendslot.Ticket
	queued bool
}

func (p *prack) begin() { p.r.d.background(p.run) }

// run gets the answer, or the offer, if there is one to get, and writes the PRACK.
// A refused offer ends the call behind it, as behind an ACK (RFC 3261 13.2.2.4).
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
	offer, handler, propose := p.offer, d.callbacksLocked().offer, p.propose
	d.mutex.RUnlock()
	switch {
	case offer != nil:
		p.answerTo(offer, handler)
	case propose != nil:
		p.make(propose)
	}
}

func (p *prack) answerTo(offer *SimpleBody, handler OfferHandler) {
	d := p.r.d
	answer, err := Body(nil), error(ErrCanceled)
	if handler != nil {
		answer, err = d.answerLate(sip.PRACK, handler, offer, p.r.unwanted())
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	p.offer, p.body, p.made, p.refused = nil, answer, offeranswer.ByApplication, err
	if err != nil || isNilBody(answer) {
		p.body, p.made = p.r.stateLocked().negotiation.Refusal(offer), offeranswer.ByDefault
	}
}

// make gets an offer of ours. The peer waits for the PRACK, with or without one:
// what is not made in the time that an UPDATE has is not sent.
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

// send writes the PRACK. It waits for the send slot as long as the peer waits before
// it repeats its response (RFC 3262 3): a request that hangs in a dial does not
// keep it back for longer.
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
	req, opt, ok := p.build()
	if !ok {
		return nil
	}
	x, err := d.newClientRequest(p.r.early, opt, p.r.early.mayRepeatLocked)
	if err != nil {
		return err
	}
	x.response, x.done = p.response, p.done
	ctx, cancel := context.WithTimeout(d.baseContext(), t.T2)
	defer cancel()
	return x.send(ctx, req)
}

// build builds the PRACK, unless its dialog is over.
func (p *prack) build() (req *sip.Request, opt txn.RequestOptions, ok bool) {
	r, d := p.r, p.r.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if r.early.isGone() || d.phase == phaseCleared || d.phase == phaseBye {
		r.order.Drop()
		return nil, opt, false
	}
	body := p.body
	if p.ours && !r.mayOfferLocked() {
		body = nil // something else was offered meanwhile
	}
	s := r.stateLocked()
	body = s.negotiation.Numbered(body)
	if p.ours {
		s.negotiation.SendOffer(p, body, offeranswer.ByApplication)
	} else {
		s.negotiation.SendAnswer(p, body, p.made)
	}
	req, opt = s.nextRequestLocked(sip.PRACK), s.optionsLocked()
	req.AppendHeader(sip.NewHeader("RAck", rel100.RAck{RSeq: p.rseq, CSeq: p.cseq, Method: string(sip.INVITE)}.String()))
	setBody(req, body) // of this package's own: see guarded
	return req, opt, true
}

func (p *prack) response(res *sip.Response) {
	if res.IsProvisional() {
		return
	}
	p.settle(res)
	switch {
	case res.IsSuccess():
		p.finish()
	case effectOf(sip.PRACK, res.StatusCode) == endsNothing:
		p.postpone()
	default:
		p.finish()
		p.failed(Cause{By: PartyRemote, Method: "PRACK", Status: res.StatusCode, Reason: res.Reason})
	}
}

// settle closes the offer that the PRACK brought, if any: a 2xx has the answer (RFC
// 3262 5), else it comes to nothing.
func (p *prack) settle(res *sip.Response) {
	d := p.r.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s := p.r.stateLocked()
	if s.negotiation.IsOpen(p) && res != nil && res.IsSuccess() {
		if sessionIn(res) != nil {
			s.negotiation.ReceiveAnswer(p)
		}
		d.keepBodyLocked(bodyOf(res))
	}
	s.negotiation.Rollback(p)
}

// done follows the last response, or takes its place.
func (p *prack) done(err error) {
	err = callError(err)
	if err == nil {
		return
	}
	p.settle(nil)
	if errors.Is(err, ErrTimeout) {
		p.finish()
		p.failed(Cause{By: PartyTimeout, Method: "PRACK", Err: ErrTimeout})
		return
	}
	p.postpone()
}

// postpone is finish for a PRACK that did not get through: it could not be written,
// a later request overtook it (500, RFC 3261 12.2.2), or the peer does not take its
// offer (488, RFC 6337 2.3). It is sent when the response comes again, without an
// offer of ours.
func (p *prack) postpone() {
	d := p.r.d
	d.mutex.Lock()
	if !p.over && p.r.order.Fail(p.rseq, p) && p.ours {
		p.body, p.ours = nil, false
	}
	d.mutex.Unlock()
	p.finish()
}

// finish lets the next PRACK of the dialog begin.
func (p *prack) finish() {
	r := p.r
	var next *prack
	r.d.mutex.Lock()
	if !p.over {
		p.over = true
		next, _ = r.order.Done()
	}
	r.d.mutex.Unlock()
	if next != nil {
		next.begin()
	}
}

// failed does what RFC 5057 says of a PRACK that the peer does not know, or does
// not answer: it ends the early dialog, and the call when there is no other. Once
// the INVITE is answered it means nothing any more.
func (p *prack) failed(cause Cause) {
	d, e := p.r.d, p.r.early
	both := d.lockBoth()
	release := func() {}
	switch {
	case e == nil && !p.r.answered:
		release = d.hangupLocked(&ending{cause: cause})
	case e != nil && !e.i.won && d.phase == phaseInviting:
		release = e.failedLocked(cause)
	}
	both.unlock()
	release()
}
