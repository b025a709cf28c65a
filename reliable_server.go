package dialog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipmsg"
)

// reliableServer sends the provisional responses to the peer's INVITE that must
// not be lost, one after the other (RFC 3262 3). Its fields are guarded by the
// dialog's mutex; nil is one that has sent none.
type reliableServer struct {
	// order numbers the responses, and tells which PRACK is for which.
	order *rel100.Server[*provisional]
	// offer is true when the INVITE carries an offer, allowsUpdate when its Allow
	// lists UPDATE.
	offer        bool
	allowsUpdate bool
	// code is the status of the latest response that was sent.
	code int
	// writing counts the responses whose first writing is under way.
	writing int
	// changed wakes Accept, to look again.
	changed latch.Latch
}

// provisional is one reliable provisional response. Its fields are guarded by
// the dialog's mutex.
type provisional struct {
	tx serverTx
	// res, as tx, is nil once it must not be repeated any more; body is the
	// session in it.
	res  *sip.Response
	body *SimpleBody

	schedule rel100.Schedule
	timer    *time.Timer
}

// sendProvisional sends a provisional response: reliably when the caller requires that,
// or when the caller supports it and the response has a body or WithReliable was given.
func (d *Dialog) sendProvisional(tx serverTx, res *sip.Response) error {
	wanted := unmarkReliable(res)
	if !d.sendsReliably(tx.Message(), wanted || len(res.Body()) > 0) {
		d.mutex.Lock()
		d.previewLocked(res)
		d.mutex.Unlock()
		return answerError(tx.Respond(res))
	}
	d.mutex.Lock()
	send, err := d.enqueueLocked(&provisional{tx: tx, res: res, body: sdpIn(res)})
	d.mutex.Unlock()
	if err != nil {
		return err
	}
	return answerError(send())
}

// previewLocked notes the session in a response that is about to leave, and returns
// it.
func (d *Dialog) previewLocked(res *sip.Response) *SimpleBody {
	d.numberLocked(res)
	body := sdpIn(res)
	d.currentLocked().negotiation.Sent(keptOrNil(body))
	return body
}

// sendsReliably decides as RFC 3262 3 says; the rest is left to us.
func (d *Dialog) sendsReliably(invite *sipmsg.Message, worth bool) bool {
	switch {
	case d.config().Reliable == ReliableOff:
		return false
	case requiresReliable(invite):
		return true
	default:
		return worth && knowsReliable(invite)
	}
}

// enqueueLocked takes a response in. What it returns writes, and is called
// without locks.
func (d *Dialog) enqueueLocked(p *provisional) (send func() error, err error) {
	if d.incoming.tx == nil {
		return nil, ErrAnswered
	}
	if d.incoming.reliable == nil {
		invite := p.tx.Message()
		d.incoming.reliable = &reliableServer{
			order: rel100.NewServer[*provisional](cseq(invite), 1+uint32(rand.Int32N(rel100.MaxFirstRSeq))),
			offer: d.stack.hasOffer(invite), allowsUpdate: lists(invite, "Allow", "UPDATE"),
		}
	}
	r := d.incoming.reliable
	switch {
	case r.mustOffer() && p.body == nil:
		return nil, fmt.Errorf("%w: the first reliable response to an INVITE without an offer carries one (RFC 3262 5)", ErrInvalidArgument)
	case !r.order.Enqueue(p):
		return nil, fmt.Errorf("%w: %d provisional responses wait for PRACK", ErrPending, r.order.Queued())
	}
	p.body = d.previewLocked(p.res)
	return d.nextProvisionalLocked(), nil
}

// mustOffer reports whether the next response is the first one, to an INVITE
// without an offer.
func (r *reliableServer) mustOffer() bool {
	return !r.offer && !r.order.Started() && r.order.Queued() == 0
}

// nextProvisionalLocked numbers the next response, unless the one before waits for
// its PRACK. What it returns writes, and is called without locks.
func (d *Dialog) nextProvisionalLocked() (send func() error) {
	r := d.incoming.reliable
	p, rseq, ok := r.order.Next()
	if !ok {
		return func() error { return nil }
	}
	r.code = p.res.StatusCode
	if s := d.currentLocked(); !r.offer && !s.negotiation.Agreed() { // RFC 3262 5
		s.negotiation.SendOffer(p, keptOrNil(p.body), offeranswer.ByApplication)
	}
	p.res.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	p.res.AppendHeader(sip.NewHeader("RSeq", rel100.FormatRSeq(rseq)))
	t1 := d.config().timers().T1
	p.schedule = rel100.NewSchedule(time.Now(), t1)
	p.timer = d.after(t1, func() { d.repeatProvisional(p) })
	tx, res := p.tx, p.res // p lets go of them once the INVITE is answered
	r.writing++
	return func() error {
		err := tx.Respond(res)
		d.mutex.Lock()
		defer d.mutex.Unlock()
		r.writing--
		r.changed.Wake()
		return err
	}
}

// repeatProvisional sends a response once more, as its schedule says; after that the
// INVITE is rejected (RFC 3262 3).
func (d *Dialog) repeatProvisional(p *provisional) {
	d.mutex.Lock()
	if outstanding, _ := d.incoming.reliable.order.Outstanding(); d.incoming.tx == nil || outstanding != p {
		d.mutex.Unlock()
		return
	}
	wait, ok := p.schedule.Next(time.Now())
	if !ok {
		release := d.rejectLocked(&ending{
			cause:  Cause{By: PartyTimeout, Method: "PRACK", Status: sip.StatusGatewayTimeout, Err: ErrTimeout},
			status: sip.StatusGatewayTimeout,
		})
		d.mutex.Unlock()
		release()
		return
	}
	p.timer.Reset(wait)
	tx, res := p.tx, p.res
	d.mutex.Unlock()
	if err := tx.Respond(res); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}

// stop ends the sending: the INVITE is answered. The PRACK for the last response
// may still come (RFC 3262 3).
func (r *reliableServer) stop() {
	if r == nil {
		return
	}
	r.order.Close()
	if p, ok := r.order.Outstanding(); ok {
		p.timer.Stop()
		p.tx, p.res = nil, nil
	}
	r.changed.Wake()
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

// awaited is what the next PRACK has to say; zero when none is expected.
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
func (d *Dialog) waitPracked(ctx context.Context) error {
	for {
		d.mutex.Lock()
		if d.incoming.tx == nil || !d.awaitsPRACKLocked() {
			d.mutex.Unlock()
			return nil
		}
		changed := d.incoming.reliable.changed.C()
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
func (d *Dialog) awaitsPRACKLocked() bool {
	r, update := d.incoming.reliable, d.currentLocked().updateIn
	return r != nil && r.writing > 0 || r.inFlight() || update != nil && update.prack
}

// unmarkReliable removes what WithReliable has added, and reports whether there
// was any.
func unmarkReliable(res *sip.Response) bool {
	removeHeaders(res, "RSeq")
	tags := listed(res, "Require")
	if !containsFold(tags, rel100.Tag) {
		return false
	}
	removeHeaders(res, "Require")
	for _, tag := range tags {
		if !strings.EqualFold(tag, rel100.Tag) {
			res.AppendHeader(sip.NewHeader("Require", tag))
		}
	}
	return true
}
