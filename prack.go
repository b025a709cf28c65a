package dialog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/txn"
)

// Reliable provisional responses to an INVITE of ours (RFC 3262 4): each is
// acknowledged by a PRACK in its early dialog. Those to a re-INVITE never are:
// nothing here sees them.

// prack is the PRACK to one reliable provisional response. The dialog's mutex
// guards its fields once it is queued.
type prack struct {
	e *earlyDialog
	// rseq and cseq are those of the response: the RAck (RFC 3262 7.2).
	rseq, cseq uint32
	// offer is the one in the response for the application to decide, body the
	// answer.
	offer *SimpleBody
	body  Body
	// refused is why the answer refuses the offer.
	refused error
	// over is true once its outcome is known.
	over bool
	// place is its place in line for the turn, while inLine is true.
	place  chan struct{}
	inLine bool
}

// rseqOf returns the RSeq of a provisional response that is sent reliably; zero
// for another, for one whose RSeq is missing or cannot be read, which cannot be
// acknowledged (RFC 3262 4, 7.1), and for all when we do not take them.
func (i *inviteClient) rseqOf(res *sip.Response) uint32 {
	headers := res.GetHeaders("RSeq")
	if i.d.config().Reliable == ReliableOff || res.StatusCode <= sip.StatusTrying || !res.IsProvisional() ||
		len(headers) != 1 || !requiresReliable(res) {
		return 0
	}
	rseq, err := strconv.ParseUint(headers[0].Value(), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(rseq)
}

// inOrderLocked reports whether a response is to be taken: one that is not
// reliable, the first reliable one, and the next after that (RFC 3262 4).
func (e *earlyDialog) inOrderLocked(res *sip.Response) bool {
	rseq := e.i.rseqOf(res)
	return rseq == 0 || e.rseq == 0 || rseq == e.rseq+1
}

// repeatedLocked takes a reliable response that is not the next. A repetition
// gets no second PRACK (RFC 3262 4), unless the first could not be written; one
// behind a gap gets none until the missing one has come.
func (e *earlyDialog) repeatedLocked(res *sip.Response) (then func()) {
	p := e.unsent
	if p == nil || p.rseq != e.i.rseqOf(res) {
		return func() {}
	}
	e.unsent = nil
	p.over = false
	return e.enqueueLocked(p)
}

// acknowledgeLocked begins the PRACK to a reliable response, and takes note of
// the session in it; nothing for another.
func (e *earlyDialog) acknowledgeLocked(res *sip.Response) (then func()) {
	rseq := e.i.rseqOf(res)
	if rseq == 0 {
		return func() {} // its session is a preview (RFC 3261 13.2.1)
	}
	e.rseq = rseq
	p := &prack{e: e, rseq: rseq, cseq: cseq(res)}
	if body := bodyOf(res); body != nil && isSDP(body) && !e.agreed && !e.offered {
		e.negotiateLocked(p, res.StatusCode, body)
	}
	return e.enqueueLocked(p)
}

// negotiateLocked takes the first session in a reliable response: the answer to our
// offer, or the offer when we made none (RFC 3262 5). With nobody to decide that,
// it stays unanswered, as one in a 2xx does.
func (e *earlyDialog) negotiateLocked(p *prack, status int, body *SimpleBody) {
	i, d := e.i, e.i.d
	switch {
	case !isNilBody(i.offer):
		e.withLocked(func() { d.session.answered(i.offer) })
		e.agreed = true
	case status == statusEarlyDialogTerminated:
		p.body = refusedAnswer(body) // without media, as the offer should be (RFC 6228 5)
	case d.offerHandler != nil:
		e.offered, p.offer = true, body
	}
}

// enqueueLocked puts a PRACK behind those of its early dialog: one is sent when
// the one before it is answered, so that they arrive in the order of their CSeq.
// What it returns begins, without locks.
func (e *earlyDialog) enqueueLocked(p *prack) (begin func()) {
	e.pracks = append(e.pracks, p)
	if len(e.pracks) > 1 {
		return func() {}
	}
	if p.offer == nil {
		// Before the application hears of the response: what it sends upon it does
		// not overtake the PRACK.
		p.place, p.inLine = e.i.d.turn.enqueue(), true
	}
	return p.begin
}

func (p *prack) begin() { p.e.i.d.background(p.run) }

// run gets the answer, if there is one to get, and writes the PRACK. A refused
// offer ends the call behind it, as behind an ACK (RFC 3261 13.2.2.4).
func (p *prack) run() {
	d := p.e.i.d
	p.decide()
	if err := p.send(); err != nil {
		d.log().Warn("PRACK could not be sent", "error", err)
		p.done(err)
	}
	if p.refused != nil && !p.e.isGone() {
		d.hangup(offerRefusedBecause(Cause{By: PartyLocal, Method: "CANCEL", Err: p.refused}))
	}
}

// decide asks the application for the answer to an offer.
func (p *prack) decide() {
	d := p.e.i.d
	d.mutex.RLock()
	offer, handler := p.offer, d.offerHandler
	d.mutex.RUnlock()
	if offer == nil {
		return
	}
	answer, err := refusedAnswer(offer), error(ErrCanceled)
	if handler != nil {
		answer, err = d.answerLate(handler, offer, p.e.gone)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	p.offer, p.body, p.refused = nil, answer, err
}

// send writes the PRACK. It waits for its turn as long as the peer waits before
// it repeats its response (RFC 3262 3): a request that hangs in a dial does not
// keep it back for longer.
func (p *prack) send() error {
	d := p.e.i.d
	t := d.config().timers()
	wait, cancelWait := context.WithTimeout(d.life(), t.T1)
	defer cancelWait()
	if !p.inLine {
		p.place = d.turn.enqueue()
	}
	p.inLine = false
	d.turn.enter(wait, p.place)
	defer d.turn.release()
	req, opt, ok := p.build()
	if !ok {
		return nil
	}
	x, err := d.exchangeIn(p.e, opt, p.e.mayRepeatLocked)
	if err != nil {
		return err
	}
	x.response, x.done = p.response, p.done
	ctx, cancel := context.WithTimeout(d.life(), t.T2)
	defer cancel()
	return x.send(ctx, req)
}

// build builds the PRACK, unless its early dialog is over. Where it brings the
// answer, offer and answer are agreed on (RFC 3262 5).
func (p *prack) build() (req *sip.Request, opt txn.RequestOptions, ok bool) {
	e, d := p.e, p.e.i.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if e.isGone() || d.phase == phaseReleased {
		e.pracks = nil
		return nil, opt, false
	}
	e.withLocked(func() {
		if e.offered && p.body != nil {
			e.offered, e.agreed = false, true
			if p.refused == nil {
				d.session.answered(p.body)
			}
		}
		req, opt = d.nextRequestLocked(sip.PRACK), d.optionsLocked()
	})
	req.AppendHeader(sip.NewHeader("RAck", fmt.Sprintf("%d %d INVITE", p.rseq, p.cseq)))
	setBody(req, p.body) // of this package's own: see consult
	return req, opt, true
}

func (p *prack) response(res *sip.Response) {
	if res.IsProvisional() {
		return
	}
	p.finish()
	if effectOf(sip.PRACK, res.StatusCode) != endsNothing {
		p.failed(Cause{By: PartyRemote, Method: "PRACK", Status: res.StatusCode, Reason: res.Reason})
	}
}

// done follows the last response, or takes its place. A PRACK that did not get
// through is sent when the response comes again.
func (p *prack) done(err error) {
	err = callError(err)
	switch {
	case err == nil:
	case errors.Is(err, ErrTimeout):
		p.finish()
		p.failed(Cause{By: PartyTimeout, Method: "PRACK", Err: ErrTimeout})
	default:
		d := p.e.i.d
		d.mutex.Lock()
		if p.e.rseq == p.rseq && !p.over {
			p.e.unsent = p
		}
		d.mutex.Unlock()
		p.finish()
	}
}

// finish lets the next PRACK of the early dialog begin.
func (p *prack) finish() {
	e, d := p.e, p.e.i.d
	var next *prack
	d.mutex.Lock()
	if !p.over {
		p.over = true
		if len(e.pracks) > 0 {
			e.pracks = e.pracks[1:]
		}
		if len(e.pracks) > 0 {
			next = e.pracks[0]
		}
	}
	d.mutex.Unlock()
	if next != nil {
		next.begin()
	}
}

// failed does what RFC 5057 says of a PRACK that the peer does not know, or does
// not answer: it ends the early dialog, and the call when there is no other. Once
// the INVITE is answered it means nothing any more.
func (p *prack) failed(cause Cause) {
	unlock := p.e.i.d.lockBoth()
	release := func() {}
	if !p.e.i.won && p.e.i.d.phase == phaseInviting {
		release = p.e.failedLocked(cause)
	}
	unlock()
	release()
}
