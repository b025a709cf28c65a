package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
)

// reliableClient takes the reliable provisional responses to one INVITE of ours
// that come in one dialog, in their order, and acknowledges each by a PRACK (RFC
// 3262 4). The dialog's mutex guards what is not set at construction.
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

	// answered is true once the re-INVITE has a final answer.
	answered bool
	// order tells which responses are taken, and queues the PRACKs to them.
	order rel100.Client[*prack]
	// negotiated is true once one has brought the answer to the INVITE's offer,
	// or the offer: no session is in the 2xx then (RFC 3262 5).
	negotiated bool
}

// rseqOf returns the RSeq of a provisional response that is sent reliably; zero
// for another, for one whose RSeq is missing or cannot be read, which cannot be
// acknowledged (RFC 3262 4, 7.1), and for all when we do not take them.
func (d *Dialog) rseqOf(res *sip.Response) uint32 {
	if d.config().Reliable == ReliableOff || res.StatusCode <= sip.StatusTrying || !res.IsProvisional() ||
		!isAlone(res, "RSeq") || !requiresReliable(res) {
		return 0
	}
	return rel100.ParseRSeq(headerValue(res, "RSeq"))
}

// stateLocked is the state of the dialog that the responses are in.
func (r *reliableClient) stateLocked() *dialogState { return r.d.stateOfLocked(r.early) }

// unwanted is closed when no PRACK is sent any more; nil, which never is, outside the
// early dialogs.
func (r *reliableClient) unwanted() <-chan struct{} {
	if r.early == nil {
		return nil
	}
	return r.early.gone
}

// inOrderLocked reports whether the dialog takes a response: it is not reliable, or it
// is the next reliable one (RFC 3262 4).
func (r *reliableClient) inOrderLocked(res *sip.Response) bool {
	rseq := r.d.rseqOf(res)
	return rseq == 0 || r.order.Check(rseq) == rel100.InOrder
}

// repeatedLocked takes a reliable response that is not the next: its PRACK is sent
// again if it did not get through.
func (r *reliableClient) repeatedLocked(res *sip.Response) (then func()) {
	p, ok := r.order.Resend(r.d.rseqOf(res))
	if !ok {
		return func() {}
	}
	p.over = false
	return r.enqueueLocked(p)
}

// acknowledgeLocked begins the PRACK to a reliable response, and takes note of
// the session in it; nothing for another.
func (r *reliableClient) acknowledgeLocked(res *sip.Response) (then func()) {
	rseq := r.d.rseqOf(res)
	if rseq == 0 {
		return func() {} // its session is a preview (RFC 3261 13.2.1)
	}
	r.order.Take(rseq)
	p := &prack{r: r, rseq: rseq, cseq: cseq(res)}
	if body := sdpIn(res); body != nil && !r.negotiated {
		r.negotiateLocked(p, res.StatusCode, body)
		if r.offered && r.propose != nil && r.mayOfferLocked() && res.StatusCode != statusEarlyDialogTerminated {
			response := r.responseLocked(res)
			p.propose = func(ctx context.Context) Body { return r.propose(ctx, response) }
		}
	}
	return r.enqueueLocked(p)
}

// mayOfferLocked reports whether the PRACK to the response that has answered our
// offer may bring another (RFC 3262 5, RFC 6337 3.2): a session is agreed on, and no
// offer, and no UPDATE of ours, is open.
func (r *reliableClient) mayOfferLocked() bool {
	d, s := r.d, r.stateLocked()
	return s.negotiation.Agreed() && s.negotiation.State() == offeranswer.Stable && s.updateOut == nil &&
		d.ending == nil && d.state != DialogStateTerminated
}

// responseLocked is what a response tells whoever may make an offer.
func (r *reliableClient) responseLocked(res *sip.Response) ForkInfo {
	if r.early != nil {
		return r.early.infoLocked()
	}
	s := r.stateLocked()
	target := s.Target()
	return ForkInfo{
		RemoteTag: s.RemoteTag(), RemoteTarget: *target.Clone(),
		Status: res.StatusCode, Body: keptOrNil(bodyOf(res)),
	}
}

// negotiateLocked takes the first session in a reliable response: the answer to our
// offer, or the offer when we made none (RFC 3262 5). With nobody to decide that,
// our session answers; where we have none it stays unanswered, as one in a 2xx does.
func (r *reliableClient) negotiateLocked(p *prack, status int, body *SimpleBody) {
	s := r.stateLocked()
	switch {
	case r.offered:
		s.negotiation.ReceiveAnswer(r.carrier)
		r.negotiated = true
	case status == statusEarlyDialogTerminated:
		p.body = s.negotiation.Refusal(body) // without media, as the offer should be (RFC 6228 5)
	case r.d.callbacksLocked().offer != nil:
		s.negotiation.ReceiveOffer(p, body)
		r.negotiated, p.offer = true, body
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
		// Before the application hears of the response: what it sends upon it does
		// not overtake the PRACK.
		p.ticket, p.queued = r.d.sendSlot.Enqueue(), true
	}
	return p.begin
}
