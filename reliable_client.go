package dialog

import (
	"context"
	"strconv"

	"github.com/emiago/sipgo/sip"
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
	// rseq is the RSeq of the latest response taken; zero: none.
	rseq uint32
	// negotiated is true once one has brought the answer to the INVITE's offer,
	// or the offer: no session is in the 2xx then (RFC 3262 5).
	negotiated bool
	// pracks are the PRACKs to send, the first being under way; unsent is one
	// that did not get through.
	pracks []*prack
	unsent *prack
}

// rseqOf returns the RSeq of a provisional response that is sent reliably; zero
// for another, for one whose RSeq is missing or cannot be read, which cannot be
// acknowledged (RFC 3262 4, 7.1), and for all when we do not take them.
func (d *Dialog) rseqOf(res *sip.Response) uint32 {
	headers := headersNamed(res, "RSeq")
	if d.config().Reliable == ReliableOff || res.StatusCode <= sip.StatusTrying || !res.IsProvisional() ||
		len(headers) != 1 || !requiresReliable(res) {
		return 0
	}
	rseq, err := strconv.ParseUint(headers[0].Value(), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(rseq)
}

// inDialogLocked runs f while the dialog's own fields are those of the one that
// the responses are in.
func (r *reliableClient) inDialogLocked(f func()) { r.d.inDialogStateLocked(r.early, f) }

// unwanted is closed when no PRACK is sent any more; nil, which never is, outside the
// early dialogs.
func (r *reliableClient) unwanted() <-chan struct{} {
	if r.early == nil {
		return nil
	}
	return r.early.gone
}

// inOrderLocked reports whether a response is to be taken: one that is not
// reliable, the first reliable one, and the next after that (RFC 3262 4). A peer
// that sends more and more of them without answering the PRACKs is not followed.
func (r *reliableClient) inOrderLocked(res *sip.Response) bool {
	rseq := r.d.rseqOf(res)
	return rseq == 0 || r.rseq == 0 || rseq == r.rseq+1 && len(r.pracks) < maxProvisionals
}

// repeatedLocked takes a reliable response that is not the next. A repetition
// gets no second PRACK (RFC 3262 4), unless the first did not get through; one
// behind a gap gets none until the missing one has come.
func (r *reliableClient) repeatedLocked(res *sip.Response) (then func()) {
	p := r.unsent
	if p == nil || p.rseq != r.d.rseqOf(res) {
		return func() {}
	}
	r.unsent = nil
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
	r.rseq = rseq
	p := &prack{r: r, rseq: rseq, cseq: cseq(res)}
	if body := sdpIn(res); body != nil && !r.negotiated {
		r.inDialogLocked(func() { r.negotiateLocked(p, res.StatusCode, body) })
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
func (r *reliableClient) mayOfferLocked() (may bool) {
	d := r.d
	r.inDialogLocked(func() { may = d.session.agreed && d.session.open == noOffer && d.updateOut == nil })
	return may && d.ending == nil && d.state != DialogStateTerminated
}

// responseLocked is what a response tells whoever may make an offer.
func (r *reliableClient) responseLocked(res *sip.Response) ForkInfo {
	if r.early != nil {
		return r.early.infoLocked()
	}
	return ForkInfo{
		RemoteTag: r.d.remoteTag, RemoteTarget: *r.d.remoteTarget.Clone(),
		Status: res.StatusCode, Body: keptOrNil(bodyOf(res)),
	}
}

// negotiateLocked takes the first session in a reliable response: the answer to our
// offer, or the offer when we made none (RFC 3262 5). With nobody to decide that,
// our session answers; where we have none it stays unanswered, as one in a 2xx does.
func (r *reliableClient) negotiateLocked(p *prack, status int, body *SimpleBody) {
	switch {
	case r.offered:
		r.d.session.answered(r.carrier)
		r.negotiated = true
	case status == statusEarlyDialogTerminated:
		p.body = r.d.session.refusing(body) // without media, as the offer should be (RFC 6228 5)
	case r.d.offerHandler != nil:
		r.d.session.receive(p, body)
		r.negotiated, p.offer = true, body
	default:
		if p.body, p.refused = r.d.session.answerOrRefusal(body); p.body != nil {
			r.d.session.receive(p, body)
			r.negotiated = true
		}
	}
}

// enqueueLocked puts a PRACK behind those of its dialog: one is sent when the one
// before it is answered, so that they arrive in the order of their CSeq. What it
// returns begins, without locks.
func (r *reliableClient) enqueueLocked(p *prack) (begin func()) {
	r.pracks = append(r.pracks, p)
	if len(r.pracks) > 1 {
		return func() {}
	}
	if p.offer == nil && p.propose == nil {
		// Before the application hears of the response: what it sends upon it does
		// not overtake the PRACK.
		p.ticket, p.queued = r.d.sendSlot.Enqueue(), true
	}
	return p.begin
}
