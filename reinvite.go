package dialog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/emiago/sipgo/sip"
)

// reinviteClient is a re-INVITE of ours (RFC 3261 14.1). Its fields are
// guarded by the dialog's mutex.
type reinviteClient struct {
	acknowledger
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
	before   session
	reliable *reliableClient
}

// sendReInvite writes a re-INVITE when no other INVITE is open.
func (d *Dialog) sendReInvite(ctx context.Context, opts InviteOpts, compose composer) (*reinviteClient, error) {
	if err := d.lockInTurn(ctx, "ReInvite"); err != nil {
		return nil, err
	}
	defer d.turn.release()
	if err := d.mayInviteLocked(); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	if err := compose.intoLocked(&opts, &d.session); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	re := d.newReInviteLocked(opts)
	req := d.newInviteLocked(opts)
	opt := d.optionsLocked()
	d.mutex.Unlock()

	x, err := d.exchange(opt, re.mayRepeatLocked)
	if err == nil {
		x.prepared, x.sent = re.prepared, re.written
		x.response, x.done = re.response, re.done
		err = x.send(ctx, req)
	}
	if err != nil {
		d.mutex.Lock()
		re.endLocked(err)
		d.mutex.Unlock()
		return nil, fmt.Errorf("dialog: re-INVITE: %w", err)
	}
	return re, nil
}

// newReInviteLocked opens a re-INVITE, and its offer.
func (d *Dialog) newReInviteLocked(opts InviteOpts) *reinviteClient {
	re := &reinviteClient{
		acknowledger: acknowledger{d: d}, offer: opts.Body, final: make(chan struct{}),
		target: *d.remoteTarget.Clone(), before: d.session,
	}
	re.reliable = &reliableClient{d: d, carrier: re, offered: !isNilBody(opts.Body), propose: opts.PrackOffer}
	d.reinviteOut = re
	d.session.offer(re, re.offer, byApplication)
	return re
}

// prepared notes what the ACK shares with the INVITE that leaves. Where one before
// it was refused, after reliable responses, these are over: those to come are
// numbered anew (RFC 3262 3), and the offer is open again.
func (re *reinviteClient) prepared(req *sip.Request) {
	re.acknowledger.prepared(req)
	d, r := re.d, re.reliable
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if r.rseq == 0 {
		return
	}
	r.answered = true
	re.reliable = &reliableClient{d: d, carrier: re, offered: r.offered, propose: r.propose}
	re.body = nil
	d.session.offer(re, re.offer, byApplication)
}

// mayRepeatLocked keeps a re-INVITE that was given up from leaving once more.
func (re *reinviteClient) mayRepeatLocked() error {
	if re.canceled || re.ended || re.d.ending != nil {
		return ErrCanceled
	}
	return nil
}

// lockInTurn takes the turn and then the mutex, for a request that only an
// established call may send.
func (d *Dialog) lockInTurn(ctx context.Context, op string) error {
	return d.lockInTurnIf(ctx, op, func() error { return d.mayRequestLocked(op) })
}

// lockInTurnIf takes the turn and then the mutex, for a request that mayLocked
// allows: before, so that it does not wait for an ACK that waits for the
// application, and then, so that what allows it holds when it is built. On an
// error neither is held.
func (d *Dialog) lockInTurnIf(ctx context.Context, op string, mayLocked func() error) error {
	d.mutex.RLock()
	err := mayLocked()
	d.mutex.RUnlock()
	if err != nil {
		return err
	}
	if err := d.turn.take(ctx); err != nil {
		return fmt.Errorf("dialog: %s: %w", op, err)
	}
	d.mutex.Lock()
	if err := mayLocked(); err != nil {
		d.mutex.Unlock()
		d.turn.release()
		return err
	}
	return nil
}

func (d *Dialog) mayRequestLocked(op string) error {
	switch {
	case d.ackWaits:
		return ErrPending
	case op == string(sip.INFO) && d.isEarlyLocked(): // RFC 6086 4.2.1
	case d.state != DialogStateEstablished:
		return &StateError{Op: op, State: d.state, Need: "Established state"}
	}
	if d.ending != nil {
		return &StateError{Op: op, State: d.state, Need: "Established state and no hang-up begun"}
	}
	return nil
}

// mayInviteLocked refuses a second INVITE, in either direction (RFC 3261 14.1),
// and one while an offer is open: a re-INVITE brings one, here or in its 2xx.
func (d *Dialog) mayInviteLocked() error {
	if d.reinviteOut != nil || d.reinviteIn != nil || d.session.open != noOffer {
		return ErrPending
	}
	return nil
}

func (re *reinviteClient) written(tx clientTx) {
	re.d.mutex.Lock()
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
	re.d.session.rollback(re)
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
	d.answeredAtLocked(re.target, res)
	then = r.acknowledgeLocked(res)
	if r.negotiated && re.body == nil {
		re.body = bodyOf(res)
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
	d.turn.join()
	d.mutex.Lock()
	re.taken, re.reliable.answered = true, true
	d.answeredAtLocked(re.target, res)
	body, agreed := bodyOf(res), re.reliable.negotiated
	if !agreed { // else it stands
		re.body = body
	}
	d.keepBodyLocked(body)
	d.session.answered(re)
	d.agreeTimerLocked(res, false, res)
	d.mutex.Unlock()
	if agreed { // no session is in the 2xx (RFC 3262 5)
		re.acknowledge(nil, byDefault)
		re.succeeded()
		return
	}
	re.answer(re.offer, res, re.succeeded)
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
	d.turn.release()
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
	undone, stands := !taken && re.reliable.negotiated, d.session.local
	d.mutex.Unlock()
	if !taken {
		d.failed(sip.INVITE, res.StatusCode, res.Reason)
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
	ctx, cancel := context.WithTimeout(d.life(), d.config().txTimeout())
	defer cancel()
	_, err := d.renegotiate(ctx, InviteOpts{}, func(now *session) (Body, error) {
		if now.local != stands {
			return nil, errAgreedAnew
		}
		return re.before.again(now)
	})
	if err != nil && !errors.Is(err, errAgreedAnew) {
		d.log().Warn("session could not be restored", "error", err)
	}
}

// errAgreedAnew says that there is nothing to restore; nobody but restore sees it.
var errAgreedAnew = errors.New("dialog: the session has changed")

// done follows the last response.
func (re *reinviteClient) done(err error) {
	d := re.d
	d.mutex.Lock()
	re.ack, re.reliable.answered = nil, true
	unanswered := err != nil && !re.taken
	if unanswered {
		re.closeLocked()
		re.endLocked(callError(err))
	}
	d.mutex.Unlock()
	if unanswered {
		d.unanswered(sip.INVITE, err)
	}
}

// reinviteServer is a re-INVITE of the peer's (RFC 3261 14.2) whose final
// answer is not decided. Its fields are set at construction.
type reinviteServer struct {
	tx serverTx
	// cancel ends the application's decision.
	cancel context.CancelFunc
}

// handleReInvite takes a re-INVITE, or tells the peer to wait (RFC 3261 14.2,
// RFC 5407 3.1.4, 3.1.5).
func (d *Dialog) handleReInvite(tx serverTx, req *sip.Request) {
	ctx, cancel := d.decisionContext()
	in := &reinviteServer{tx: tx, cancel: cancel}
	offer := bodyOf(req)

	d.mutex.Lock()
	if refusal := d.refuseReInviteLocked(tx); refusal != nil {
		d.mutex.Unlock()
		cancel()
		d.stack.respond(tx, refusal)
		return
	}
	d.reinviteIn = in
	d.session.receive(in, offer)
	d.keepBodyLocked(offer)
	handler := d.offerHandler
	d.mutex.Unlock()

	if handler == nil {
		d.acceptReInvite(in, d.defaultAnswer(req), byDefault)
		return
	}
	if !d.stack.calls.Go(func() { d.decide(ctx, in, handler, offer) }) {
		d.refuseReInvite(in, sip.StatusServiceUnavailable)
	}
}

// decisionContext bounds a decision of the application's by the ringing limit.
func (d *Dialog) decisionContext() (context.Context, context.CancelFunc) {
	if limit := d.config().ringingLimit(); limit > 0 {
		return context.WithTimeout(context.Background(), limit)
	}
	return context.WithCancel(context.Background())
}

// offerToComeLocked reports whether a re-INVITE without an offer, in either
// direction, is to bring one in its answer: until then nobody makes another in an
// UPDATE (RFC 6337 4.1, 4.2, figures 5 and 12).
func (d *Dialog) offerToComeLocked() bool {
	out := d.reinviteOut
	return d.reinviteIn != nil || out != nil && !out.reliable.offered && !out.reliable.negotiated
}

func (d *Dialog) refuseReInviteLocked(tx serverTx) *sip.Response {
	switch {
	case d.phase == phaseOffered || d.reinviteIn != nil:
		return tooSoon(tx)
	case d.phase == phaseInviting || d.reinviteOut != nil || d.ackWaits || d.session.open == ourOffer:
		return tx.NewResponse(sip.StatusRequestPending, "")
	case d.session.open == theirOffer: // that of an UPDATE
		return tooSoon(tx)
	}
	return nil
}

// tooSoon asks the peer to wait for the answer to what it has sent before (RFC
// 3261 14.2, RFC 3311 5.2).
func tooSoon(tx serverTx) *sip.Response {
	res := tx.NewResponse(sip.StatusInternalServerError, "")
	res.AppendHeader(retryAfter(rand.IntN(11)))
	return res
}

// decide asks the application, on a goroutine of its own, and answers as it
// says. When it does not decide in time the answer is 504.
func (d *Dialog) decide(ctx context.Context, in *reinviteServer, handler OfferHandler, offer *SimpleBody) {
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.stack.tasks.Run(func() { d.refuseReInvite(in, sip.StatusGatewayTimeout) })
		}
	})
	defer stop()
	answer, err := Body(nil), error(ErrPanic)
	// Deferred: a handler that ends its goroutine has the same effect as one
	// that panics.
	defer func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.refuseReInvite(in, sip.StatusGatewayTimeout) // too late, whatever it was
			return
		}
		d.answerReInvite(in, answer, err)
	}()
	answer, err = d.consult(ctx, handler, offer)
}

// answerReInvite answers as the application has decided.
func (d *Dialog) answerReInvite(in *reinviteServer, answer Body, err error) {
	switch {
	case err == nil:
		d.acceptReInvite(in, answer, byApplication)
	case errors.Is(err, ErrPanic):
		d.refuseReInvite(in, sip.StatusInternalServerError)
	default:
		d.refuseReInvite(in, sip.StatusNotAcceptableHere)
	}
}

// consult calls the handler.
func (d *Dialog) consult(ctx context.Context, handler OfferHandler, offer *SimpleBody) (answer Body, err error) {
	if offer == nil {
		offer = &SimpleBody{}
	}
	return d.guarded("OnOffer", func() (Body, error) { return handler(ctx, offer) })
}

// guarded calls a function of the application's that makes a body; a panic, or
// Goexit, is ErrPanic. The body is this package's own.
func (d *Dialog) guarded(name string, decide func() (Body, error)) (made Body, err error) {
	err = ErrPanic
	defer func() {
		if value := recover(); value != nil {
			d.stack.logPanic(d.log(), name, value, debug.Stack())
			made = nil
		}
	}()
	decided, refusal := decide()
	return ownBody(decided), refusal
}

// claimReInvite decides who refuses the re-INVITE: exactly one caller.
func (d *Dialog) claimReInvite(in *reinviteServer) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.reinviteIn != in {
		return false
	}
	d.reinviteIn = nil
	d.session.rollback(in)
	return true
}

// acceptReInvite answers 200: the target refreshes (RFC 3261 12.2.2) and the
// 200 repeats until its ACK.
func (d *Dialog) acceptReInvite(in *reinviteServer, answer Body, made author) {
	req := in.tx.Request()
	res, _ := d.newAnswer(in.tx, nil)
	setBody(res, answer)
	defer in.cancel()

	d.mutex.Lock()
	if d.reinviteIn != in || d.state != DialogStateEstablished {
		d.mutex.Unlock()
		d.refuseReInvite(in, sip.StatusRequestTerminated)
		return
	}
	d.reinviteIn = nil
	d.refreshTargetLocked(req)
	d.cameByLocked(in.tx)
	u := &unacked{tx: in.tx, seq: cseq(req)}
	if ours := keptOrNil(bodyOf(res)); d.session.isOpen(in) {
		d.session.answer(in, ours, made)
	} else {
		d.session.offer(u, ours, made)
	}
	d.agreeTimerLocked(res, true, req)
	d.repeatLocked(u)
	d.mutex.Unlock()
	d.stack.respond(in.tx, res)
}

// refuseReInvite answers with a failure: session and target stay.
func (d *Dialog) refuseReInvite(in *reinviteServer, code int) {
	if !d.claimReInvite(in) {
		return
	}
	in.cancel()
	d.stack.answerWith(in.tx, code, offerRefused(code)...)
}

// cancelReInvite answers a cancelled re-INVITE 487; the call goes on.
func (d *Dialog) cancelReInvite(tx serverTx) {
	d.mutex.RLock()
	in := d.reinviteIn
	d.mutex.RUnlock()
	if in != nil && in.tx == tx {
		d.refuseReInvite(in, sip.StatusRequestTerminated)
	}
}

// abortOffers ends the re-INVITEs and UPDATEs that are open when the call ends:
// the peer's are answered (RFC 3261 15.1.2), our re-INVITE is cancelled, lest it
// waits for an answer for ever.
func (d *Dialog) abortOffers() {
	d.mutex.Lock()
	in, out, update := d.reinviteIn, d.reinviteOut, d.updateIn
	early := func() {}
	if d.invite != nil {
		early = d.invite.refuseOpenLocked()
	}
	d.mutex.Unlock()
	early()
	if in != nil {
		d.refuseReInvite(in, sip.StatusRequestTerminated)
	}
	if out != nil {
		out.cancel()
	}
	if update != nil {
		d.refuseUpdate(update, sip.StatusCallTransactionDoesNotExists)
	}
}

// answerLate gets the answer to an offer in a 2xx, for the ACK, or in a reliable
// provisional response, for the PRACK; it is not wanted any more when unwanted is
// closed. When the application refuses, falls over or takes too long, it is an answer with
// every port 0, and the error says that the call has to end (RFC 3261
// 13.2.2.4).
func (d *Dialog) answerLate(handler OfferHandler, offer *SimpleBody, unwanted <-chan struct{}) (Body, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 48*d.config().timers().T1)
	defer cancel()
	answer, err := d.await(ctx, unwanted, func() (Body, error) { return d.consult(ctx, handler, offer) })
	if err != nil || isNilBody(answer) {
		return refusedAnswer(offer), err
	}
	return answer, nil
}

// await has the application decide on a goroutine of its own, and waits until ctx
// or the call ends, or is about to, or the decision is unwanted.
func (d *Dialog) await(ctx context.Context, unwanted <-chan struct{}, decide func() (Body, error)) (Body, error) {
	type decision struct {
		made Body
		err  error
	}
	decided, ending := make(chan decision, 1), d.hangsUp()
	if !d.stack.calls.Go(func() {
		result := decision{err: ErrPanic}
		defer func() { decided <- result }()
		result.made, result.err = decide()
	}) {
		return nil, ErrShutdown
	}
	select {
	case result := <-decided:
		return result.made, result.err
	case <-ctx.Done():
		return nil, ErrTimeout
	case <-unwanted:
	case <-ending:
	case <-d.Done():
	}
	return nil, ErrTerminated
}

// hangsUp returns what is closed when a hang-up begins.
func (d *Dialog) hangsUp() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.hungUp == nil {
		d.hungUp = make(chan struct{})
		if d.ending != nil {
			close(d.hungUp)
		}
	}
	return d.hungUp
}
