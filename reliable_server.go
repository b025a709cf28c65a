package dialog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// maxProvisionals bounds how many reliable provisional responses of one INVITE
// wait for the PRACK of the one before, ours and the peer's.
const maxProvisionals = 16

// reliableServer sends the provisional responses to the peer's INVITE that must
// not be lost, one after the other (RFC 3262 3). Its fields are guarded by the
// dialog's mutex; nil is one that has sent none.
type reliableServer struct {
	// seq is the INVITE's CSeq number, offer whether it carries an offer, and
	// allowsUpdate whether its sender takes UPDATE.
	seq          uint32
	offer        bool
	allowsUpdate bool
	// rseq is the number of the latest response that was sent, code its status.
	rseq uint32
	code int
	// sent is the response that waits for its PRACK, also once the INVITE has
	// been answered; queue are those that wait for it.
	sent  *provisional
	queue []*provisional
	// writing counts the responses whose first writing is under way.
	writing int
	// changed, made on demand, is closed when Accept has to look again.
	changed chan struct{}
}

// provisional is one reliable provisional response. Its fields are guarded by
// the dialog's mutex.
type provisional struct {
	tx serverTx
	// res, as tx, is nil once it must not be repeated any more; body is the
	// session in it.
	res  *sip.Response
	body *SimpleBody
	rseq uint32

	interval time.Duration
	deadline time.Time
	timer    *time.Timer
}

// provide sends a provisional response: reliably where the caller demands it,
// or knows it and the response is worth it.
func (d *Dialog) provide(tx serverTx, res *sip.Response) error {
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
	d.session.say(keptOrNil(body))
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
	if d.pendingInvite == nil {
		return nil, ErrAnswered
	}
	if d.reliable == nil {
		invite := p.tx.Message()
		d.reliable = &reliableServer{
			seq: cseq(invite), offer: d.stack.hasOffer(invite), allowsUpdate: lists(invite, "Allow", "UPDATE"),
		}
	}
	r := d.reliable
	switch {
	case r.mustOffer() && p.body == nil:
		return nil, fmt.Errorf("%w: the first reliable response to an INVITE without an offer carries one (RFC 3262 5)", ErrInvalidArgument)
	case len(r.queue) >= maxProvisionals:
		return nil, fmt.Errorf("%w: %d provisional responses wait for PRACK", ErrPending, len(r.queue))
	}
	p.body = d.previewLocked(p.res)
	r.queue = append(r.queue, p)
	return d.nextProvisionalLocked(), nil
}

// mustOffer reports whether the next response is the first one, to an INVITE
// without an offer.
func (r *reliableServer) mustOffer() bool {
	return !r.offer && r.rseq == 0 && len(r.queue) == 0
}

// nextProvisionalLocked numbers the next response, unless the one before waits for
// its PRACK. What it returns writes, and is called without locks.
func (d *Dialog) nextProvisionalLocked() (send func() error) {
	r := d.reliable
	if r.sent != nil || len(r.queue) == 0 {
		return func() error { return nil }
	}
	p := r.queue[0]
	r.queue = r.queue[1:]
	if r.rseq == 0 {
		r.rseq = uint32(rand.Int32N(1<<31 - 1)) // then 1 to 2^31-1, uniformly
	}
	r.rseq++
	r.sent, r.code = p, p.res.StatusCode
	if !r.offer && !d.session.agreed { // RFC 3262 5
		d.session.offer(p, keptOrNil(p.body), byApplication)
	}
	p.rseq = r.rseq
	p.res.AppendHeader(sip.NewHeader("Require", tagReliable))
	p.res.AppendHeader(sip.NewHeader("RSeq", strconv.FormatUint(uint64(p.rseq), 10)))
	t1 := d.config().timers().T1
	p.interval, p.deadline = t1, time.Now().Add(64*t1)
	p.timer = d.after(p.interval, func() { d.repeatProvisional(p) })
	tx, res := p.tx, p.res // p lets go of them once the INVITE is answered
	r.writing++
	return func() error {
		err := tx.Respond(res)
		d.mutex.Lock()
		defer d.mutex.Unlock()
		r.writing--
		r.wake()
		return err
	}
}

// repeatProvisional sends a response once more, T1 after the first and doubling
// without a cap; after 64*T1 the INVITE is refused (RFC 3262 3).
func (d *Dialog) repeatProvisional(p *provisional) {
	d.mutex.Lock()
	if d.pendingInvite == nil || d.reliable.sent != p {
		d.mutex.Unlock()
		return
	}
	left := time.Until(p.deadline)
	if left <= 0 {
		release := d.rejectLocked(&ending{
			cause:  Cause{By: PartyTimeout, Method: "PRACK", Status: sip.StatusGatewayTimeout, Err: ErrTimeout},
			status: sip.StatusGatewayTimeout,
		})
		d.mutex.Unlock()
		release()
		return
	}
	p.interval *= 2
	p.timer.Reset(min(p.interval, left))
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
	r.queue = nil
	if r.sent != nil {
		r.sent.timer.Stop()
		r.sent.tx, r.sent.res = nil, nil
	}
	r.wake()
}

// acknowledged takes the response that a PRACK is for off the list, or returns
// nil.
func (r *reliableServer) acknowledged(ack rack) *provisional {
	if r == nil || r.sent == nil || ack != r.unacknowledged() {
		return nil
	}
	p := r.sent
	p.timer.Stop()
	r.sent = nil
	return p
}

// unacknowledged is what a PRACK has to say; zero when none is expected.
func (r *reliableServer) unacknowledged() rack {
	if r == nil || r.sent == nil {
		return rack{}
	}
	return rack{rseq: r.sent.rseq, cseq: r.seq, invite: true}
}

// inFlight reports whether a session description of ours has not been
// acknowledged.
func (r *reliableServer) inFlight() bool {
	if r == nil {
		return false
	}
	for _, p := range r.queue {
		if p.body != nil {
			return true
		}
	}
	return r.sent != nil && r.sent.body != nil
}

// wake has Accept look again.
func (r *reliableServer) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// waitPracked waits until the INVITE may be accepted (RFC 3262 3, 5), or is
// answered otherwise.
func (d *Dialog) waitPracked(ctx context.Context) error {
	for {
		d.mutex.Lock()
		if d.pendingInvite == nil || !d.agreeingLocked() {
			d.mutex.Unlock()
			return nil
		}
		if d.reliable.changed == nil {
			d.reliable.changed = make(chan struct{})
		}
		changed := d.reliable.changed
		d.mutex.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// agreeingLocked reports whether a reliable response, or the answer to a PRACK, is
// still to agree upon the session, or one is being written: none may leave after
// the final answer.
func (d *Dialog) agreeingLocked() bool {
	r := d.reliable
	return r != nil && r.writing > 0 || r.inFlight() || d.updateIn != nil && d.updateIn.prack
}

// unmarkReliable removes what WithReliable has added, and reports whether there
// was any.
func unmarkReliable(res *sip.Response) bool {
	removeHeaders(res, "RSeq")
	tags := listed(res, "Require")
	if !containsFold(tags, tagReliable) {
		return false
	}
	removeHeaders(res, "Require")
	for _, tag := range tags {
		if !strings.EqualFold(tag, tagReliable) {
			res.AppendHeader(sip.NewHeader("Require", tag))
		}
	}
	return true
}
