package dialog

import (
	"context"
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
)

// reinviteClient is a re-INVITE of ours (RFC 3261 14.1). Its fields are
// guarded by the dialog's mutex.
type reinviteClient struct {
	ackSender
	tx    clientTx
	offer Body
	// target is where it went.
	target sip.Uri
	// canceled is true once the application gave it up.
	canceled bool
	limit    *time.Timer
	// final is closed once err, the outcome, stands.
	final chan struct{}
	ended bool
	err   error
	// taken is true once a 2xx has come, body is what it brought, or a reliable
	// provisional response before it.
	taken bool
	body  *SimpleBody
	// before is our session before it, reliable takes the provisional responses
	// that are sent reliably.
	before   offeranswer.Negotiation
	reliable *reliableClient
}

// sendReInvite writes a re-INVITE when no other INVITE is open.
func (d *Dialog) sendReInvite(ctx context.Context, opts InviteOpts, build offerBuilder) (*reinviteClient, error) {
	if err := d.lockToSend(ctx, "ReInvite"); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	if err := d.mayInviteLocked(); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	s := d.currentLocked()
	if err := build.intoLocked(&opts, &s.negotiation); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	flow, err := d.stack.usableFlow(opts.Flow, s.Hop())
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	d.takeFlowLocked(flow)
	d.choseContactLocked(opts.Contact)
	re := s.newReInviteLocked(opts)
	req := s.newInviteLocked(opts)
	opt := s.optionsLocked()
	d.mutex.Unlock()

	x, err := d.newClientRequest(nil, opt, re.mayRepeatLocked)
	if err == nil {
		x.prepared, x.leaving, x.sent = re.prepared, re.leaving, re.written
		x.response, x.done = re.response, re.done
		err = x.send(ctx, req)
	}
	if err != nil {
		d.mutex.Lock()
		re.endLocked(err)
		d.mutex.Unlock()
		return nil, err
	}
	return re, nil
}

// newReInviteLocked opens a re-INVITE, and its offer.
func (s *dialogState) newReInviteLocked(opts InviteOpts) *reinviteClient {
	d := s.d
	re := &reinviteClient{
		ackSender: ackSender{d: d}, offer: offeranswer.Description(opts.Body), final: make(chan struct{}),
		target: s.Target(), before: s.negotiation,
	}
	re.reliable = &reliableClient{d: d, carrier: re, offered: !isNilBody(re.offer), propose: opts.PrackOffer}
	d.reinviteOut = re
	s.negotiation.SendOffer(re, re.offer, offeranswer.ByApplication)
	return re
}

// prepared begins a re-INVITE. Where one before it was refused, after reliable responses, these are over: those to come are
// numbered anew (RFC 3262 3), and the offer is open again.
func (re *reinviteClient) prepared(*sip.Request) {
	d, r := re.d, re.reliable
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !r.order.Started() {
		return
	}
	r.answered = true
	re.reliable = &reliableClient{d: d, carrier: re, offered: r.offered, propose: r.propose}
	re.body = nil
	d.currentLocked().negotiation.SendOffer(re, re.offer, offeranswer.ByApplication)
}

// mayRepeatLocked keeps a re-INVITE that was given up from leaving once more.
func (re *reinviteClient) mayRepeatLocked() error {
	if re.canceled || re.ended || re.d.ending != nil {
		return ErrCanceled
	}
	return nil
}

// mayInviteLocked refuses a second INVITE, in either direction (RFC 3261 14.1),
// and one while an offer is open: a re-INVITE brings one, here or in its 2xx.
func (d *Dialog) mayInviteLocked() error {
	if d.reinviteOut != nil || d.reinviteIn != nil || d.currentLocked().negotiation.State() != offeranswer.Stable {
		return ErrPending
	}
	return nil
}

// written is inviteClient.inviteWritten for a re-INVITE.
func (re *reinviteClient) written(tx clientTx) {
	re.d.mutex.Lock()
	if re.tx == tx {
		re.d.mutex.Unlock()
		return
	}
	re.tx = tx
	over := re.canceled || re.ended
	if limit := re.d.config().ringingLimit(); limit > 0 && !over && re.limit == nil {
		re.limit = re.d.after(limit, re.expire)
	}
	re.d.mutex.Unlock()
	if over {
		tx.Cancel()
	}
}

// expire cancels a re-INVITE that the peer leaves undecided.
func (re *reinviteClient) expire() {
	re.d.mutex.Lock()
	re.endLocked(ErrTimeout)
	re.d.mutex.Unlock()
	re.cancel()
}

// cancel gives the re-INVITE up; the call goes on.
func (re *reinviteClient) cancel() {
	re.d.mutex.Lock()
	re.canceled = true
	tx := re.tx
	re.d.mutex.Unlock()
	if tx != nil {
		tx.Cancel()
	}
}

// endLocked sets the outcome, once. The re-INVITE stays open on the wire until
// its final answer; see closeLocked.
func (re *reinviteClient) endLocked(err error) {
	if !re.ended {
		re.ended, re.err = true, err
		stopTimer(re.limit)
		close(re.final)
	}
	if re.tx == nil {
		re.closeLocked()
	}
}

// outcome is what came of a re-INVITE that has ended. Responses that come after
// the ringing limit has ended it may still bring something.
func (re *reinviteClient) outcome() (Body, error) {
	re.d.mutex.RLock()
	defer re.d.mutex.RUnlock()
	return keptOrNil(re.body), re.err
}

// closeLocked lets another INVITE begin. An offer that nobody has answered comes
// to nothing.
func (re *reinviteClient) closeLocked() {
	re.d.currentLocked().negotiation.Rollback(re)
	re.reliable.answered = true
	if re.d.reinviteOut == re {
		re.d.reinviteOut = nil
	}
}

func (re *reinviteClient) response(res *sip.Response) {
	switch {
	case res.IsProvisional():
		re.provisional(res)
	case res.IsSuccess():
		re.success(res)
	default:
		re.refused(res)
	}
}

// provisional takes a 101 to 199. Only one that is sent reliably changes anything:
// the target, and the session (RFC 6141 3.3, 4.3).
func (re *reinviteClient) provisional(res *sip.Response) {
	re.d.mutex.Lock()
	then := re.provisionalLocked(res)
	re.d.mutex.Unlock()
	then()
}

func (re *reinviteClient) provisionalLocked(res *sip.Response) (then func()) {
	d, r := re.d, re.reliable
	switch {
	case r.answered || d.rseqOf(res) == 0:
		return func() {}
	case !r.inOrderLocked(res):
		return r.repeatedLocked(res)
	}
	d.currentLocked().answeredAtLocked(re.target, res)
	d.tellIdentityLocked()
	then = r.acknowledgeLocked(res)
	if r.negotiated && re.body == nil {
		re.body = sessionIn(res)
	}
	d.keepBodyLocked(bodyOf(res))
	return then
}

// success takes a 2xx: the target refreshes (RFC 3261 12.2.1.2), the ACK
// leaves, and the body goes to OnBody.
func (re *reinviteClient) success(res *sip.Response) {
	d := re.d
	if re.isRepeated() {
		re.acknowledgeAgain()
		return
	}
	// Before OnBody can hear of it: nothing it sends may overtake the ACK.
	d.sendSlot.Join()
	d.mutex.Lock()
	re.taken, re.reliable.answered = true, true
	d.currentLocked().answeredAtLocked(re.target, res)
	d.tellIdentityLocked()
	agreed := re.reliable.negotiated
	if !agreed { // else it stands
		re.body = sessionIn(res)
	}
	d.keepBodyLocked(bodyOf(res))
	d.currentLocked().negotiation.ReceiveAnswer(re)
	d.agreeTimerLocked(res, sessiontimer.UAC, res)
	d.mutex.Unlock()
	if agreed { // no session is in the 2xx (RFC 3262 5)
		re.acknowledge(nil, offeranswer.ByDefault, re.succeeded)
		return
	}
	re.answerOffer(re.offer, res, re.succeeded)
}

func (re *reinviteClient) isRepeated() bool {
	re.d.mutex.RLock()
	defer re.d.mutex.RUnlock()
	return re.taken
}

// succeeded is what follows the ACK.
func (re *reinviteClient) succeeded() {
	d := re.d
	d.mutex.Lock()
	re.closeLocked()
	re.endLocked(nil)
	d.mutex.Unlock()
	d.sendSlot.Release()
}

// refused takes a final answer of 300 or more: session and target stay as they
// were (RFC 3261 14.1), but for what reliable responses have changed before.
func (re *reinviteClient) refused(res *sip.Response) {
	d := re.d
	d.mutex.Lock()
	taken := re.taken
	if !taken {
		re.closeLocked()
		re.endLocked(newResponseError(sip.INVITE, res))
	}
	undone, stands := !taken && re.reliable.negotiated, d.currentLocked().negotiation.Local()
	d.mutex.Unlock()
	if !taken {
		d.failed(nil, sip.INVITE, res.StatusCode, res.Reason)
	}
	if undone {
		d.background(func() { re.restore(stands) })
	}
}

// restore offers the session from before a re-INVITE that was refused after a
// reliable response had changed it to what stands: the ends may think differently
// of it (RFC 6141 3.4), unless they have agreed on another meanwhile.
func (re *reinviteClient) restore(stands Body) {
	d := re.d
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
	defer cancel()
	_, err := d.renegotiate(ctx, InviteOpts{}, func(now *offeranswer.Negotiation) (Body, error) {
		if now.Local() != stands {
			return nil, errAgreedAnew
		}
		return re.before.OfferAfter(now)
	})
	if err != nil && !errors.Is(err, errAgreedAnew) {
		d.log().Debug("session could not be restored", "error", err)
	}
}

// errAgreedAnew says that there is nothing to restore; nobody but restore sees it.
var errAgreedAnew = errors.New("dialog: the session has changed")

// done follows the last response.
func (re *reinviteClient) done(err error) {
	d := re.d
	d.mutex.Lock()
	re.forgetLocked()
	re.reliable.answered = true
	unanswered := err != nil && !re.taken
	if unanswered {
		re.closeLocked()
		re.endLocked(callError(err))
	}
	d.mutex.Unlock()
	if unanswered {
		d.unanswered(nil, sip.INVITE, err)
	}
}
