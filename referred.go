package dialog

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/referredby"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// ReferRequest is a REFER of the peer inside a call.
type ReferRequest struct {
	// Dialog is the call of the REFER.
	Dialog *Dialog
	// ReferTo is the target of the new call. Replaces is the Replaces header in it; nil
	// if there is none.
	ReferTo  sip.Uri
	Replaces *ReplacesInfo
	// ReferredBy is the value of Referred-By (RFC 3892); empty if there is none. It is
	// not verified.
	ReferredBy string
	// Subscription reports the outcome. It becomes active when the REFER is accepted,
	// unless the peer wants no subscription.
	Subscription *ReferSubscription
	// Request is a copy of the request, for [Stack.TargetDialog] among others.
	Request *sip.Request

	// accepted is the function of OnAccepted. The mutex of Dialog guards it.
	accepted func()
}

// OnAccepted has the function run instead of OnIncomingRefer once the REFER has got 202: on
// its own goroutine, after the first NOTIFY, without a time limit. It does what the REFER
// asks for, with [ReferSubscription.Follow] or in another way. A [ReferHandler] calls
// OnAccepted before it returns; later, and for a REFER that is refused, it has no effect.
func (r *ReferRequest) OnAccepted(f func()) {
	r.Dialog.mutex.Lock()
	defer r.Dialog.mutex.Unlock()
	r.accepted = f
}

// callback returns the function that runs after the 202; nil for none.
func (r *ReferRequest) callback() func() {
	r.Dialog.mutex.RLock()
	accepted := r.accepted
	r.Dialog.mutex.RUnlock()
	if all := r.Dialog.stack.callbacksNow().OnIncomingRefer; accepted == nil && all != nil {
		return func() { all(r.Dialog, r.ReferTo, r.Replaces) }
	}
	return accepted
}

// ReferHandler decides a REFER before its response. The zero Answer, or one with a
// status of 200 to 299, accepts it with 202, and the function of
// [ReferRequest.OnAccepted] runs, or else OnIncomingRefer. A status of 300 to 699 refuses
// it; 603 is the safest (RFC 5057 5.6), since some others end the peer's call too. The
// handler runs on its own goroutine and has two seconds, after which
// ctx ends and the REFER is answered 504; a panic is 500. To ask the user first, accept
// the REFER and report 603 later with SendNotify.
type ReferHandler func(ctx context.Context, refer *ReferRequest) Answer

// handleRefer handles a REFER inside the call (RFC 3515 2.4.2).
func (d *Dialog) handleRefer(tx serverTx, req *sipmsg.Message) {
	if d.State() != DialogStateEstablished {
		d.stack.answerWith(tx, sip.StatusRequestPending)
		return
	}
	referTo, replaces, err := referTarget(req)
	if err != nil {
		d.stack.answerWith(tx, sip.StatusBadRequest)
		return
	}
	refer := d.newReferRequest(req, referTo, replaces)
	if over := d.reserveRefer(refer.Subscription, req); over != nil {
		d.stack.busy(tx, over)
		return
	}
	handler := d.referHandler()
	if handler == nil {
		d.answerRefer(tx, refer, Answer{Status: sip.StatusOK})
		return
	}
	refer.Request = ownRequest(req)
	q := d.stack.newDecision(tx, func(ctx context.Context, _ *sip.Request) Answer { return handler(d.values.Context(ctx), refer) },
		func(a Answer) { d.answerRefer(tx, refer, a) })
	if !d.stack.calls.Go(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
}

// reserveRefer counts a REFER against the limit, until answerRefer, and reports whether
// it is within.
func (d *Dialog) reserveRefer(r *ReferSubscription, req *sipmsg.Message) (over *atomic.Uint64) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !d.transfersLocked().Arrives(len(d.referSubscriptions), d.referLimit()) {
		return &d.stack.counters.subscribed
	}
	bytes := len(req.Text()) + len(r.refer.Token)
	if !d.holds.Take(bytes) {
		d.transfers.Decided()
		return &d.stack.counters.bytes
	}
	r.bytes = bytes
	return nil
}

func (d *Dialog) referLimit() int {
	return orDefault(d.config().Limits.SubscriptionsPerDialog, defaultSubscriptions)
}

func (d *Dialog) newReferRequest(req sipheader.Message, referTo sip.Uri, replaces *ReplacesInfo) *ReferRequest {
	r := d.newSubscription(sipheader.CSeqValue(req), referTo)
	r.refer = refersub.ReadRefer(req)
	r.state.Begins(refersub.Progress{Status: sip.StatusTrying, Reason: "Trying"})
	return &ReferRequest{
		Dialog: d, ReferTo: referTo, Replaces: replaces, ReferredBy: r.refer.By,
		Subscription: r,
	}
}

// answerRefer answers a REFER. When it is accepted the subscription exists before the
// 202 leaves; the NOTIFY follows.
func (d *Dialog) answerRefer(tx serverTx, refer *ReferRequest, a Answer) {
	r := refer.Subscription
	d.mutex.Lock()
	d.transfers.Decided()
	d.mutex.Unlock()
	if a.Status >= 300 {
		r.drop(ErrNoSubscription)
		d.stack.replyTo(tx, d.contactTo)(a)
		return
	}
	isNew, err := d.takeRefer(r)
	if err != nil { // the call ended meanwhile
		r.drop(err)
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	if err := tx.Respond(d.newAccepted(tx, a, r.refer.Silent)); err != nil {
		d.log().Debug("REFER could not be answered", "error", err)
		r.follow() // nothing was begun, so nothing is left behind
		r.drop(err)
		return
	}
	switch {
	case !isNew:
		r.drop(ErrNoSubscription)
	case d.referHandler() != nil || refer.callback() != nil:
		d.startRefer(refer)
	default:
		r.step(r.state.Decline)
	}
}

// OnRefer sets the function that decides the REFERs of this call, instead of the stack's
// ([Stack.OnReferRequest]), which nil restores. See [ReferHandler]; what follows an
// accepted REFER is the function of [ReferRequest.OnAccepted].
func (d *Dialog) OnRefer(handler ReferHandler) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.registerLocked().refer = handler
}

// referHandler returns the function that decides REFERs; nil for none.
func (d *Dialog) referHandler() ReferHandler {
	d.mutex.RLock()
	own := d.callbacksLocked().refer
	d.mutex.RUnlock()
	if own != nil {
		return own
	}
	return d.stack.callbacksNow().OnReferRequest
}

func (d *Dialog) newAccepted(tx serverTx, a Answer, silent bool) *sip.Response {
	res := tx.NewResponse(sip.StatusAccepted, "")
	if silent && !refersub.RequiresNoSub(tx.Message()) {
		res.AppendHeader(sip.NewHeader("Refer-Sub", "false"))
	}
	a.decorate(res, tx, d.contactTo)
	return res
}

// referTarget reads the target of a REFER, and the Replaces header in it.
func referTarget(req sipheader.Message) (sip.Uri, *ReplacesInfo, error) {
	uri, err := refersub.ReferTo(req)
	if err != nil {
		return sip.Uri{}, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	replaces, err := replacesIn(uri)
	return uri, replaces, err
}

// HandleIncomingRefer handles a REFER that got 202: it creates the subscription, sends
// the first NOTIFY (RFC 3515 2.4.4), and runs OnIncomingRefer on its own goroutine. The
// stack calls it. A second call for the same CSeq does nothing while the subscription of
// the first one lasts. It does not wait for the network.
//
// Errors: ErrInvalidArgument, ErrMalformed (no CSeq), *StateError.
func (d *Dialog) HandleIncomingRefer(req *sip.Request, referTo sip.Uri, replaces *ReplacesInfo) (err error) {
	defer naming("HandleIncomingRefer", &err)
	if req == nil {
		return fmt.Errorf("%w: no request", ErrInvalidArgument)
	}
	if sipheader.CSeqValue(req) == "" {
		return fmt.Errorf("%w: REFER without CSeq", ErrMalformed)
	}
	refer := d.newReferRequest(req, referTo, replaces)
	isNew, err := d.takeRefer(refer.Subscription)
	if err != nil || !isNew {
		return err
	}
	d.startRefer(refer)
	return nil
}

// takeRefer adds a REFER, once, with its subscription if the peer wants one.
func (d *Dialog) takeRefer(r *ReferSubscription) (isNew bool, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch {
	case d.state == DialogStateTerminated || d.ending != nil:
		return false, &StateError{Op: "HandleIncomingRefer", State: d.state, Need: "a call in progress"}
	case d.referSubscriptions[r.ID] != nil:
		return false, nil
	}
	d.followableLocked(r)
	if !r.refer.Silent {
		if d.referSubscriptions == nil {
			d.referSubscriptions = make(map[string]*ReferSubscription)
		}
		d.referSubscriptions[r.ID] = r
	}
	r.changeLocked(func(s *refersub.Step) { r.state.Take(s, r.refer.Silent) })
	return true, nil
}

// startRefer sends the first NOTIFY and calls the application.
func (d *Dialog) startRefer(refer *ReferRequest) {
	if _, err := d.transactionLayer(); err != nil {
		return // no network: there is no peer to tell
	}
	d.background(func() {
		refer.Subscription.begin()
		if callback := refer.callback(); callback != nil {
			d.stack.calls.Go(func() { d.stack.guard(d.log, "OnIncomingRefer", callback, nil) })
		}
	})
}

// begin starts the subscription's time and sends the first NOTIFY, which goes
// before anything the application sends.
func (r *ReferSubscription) begin() {
	d, isDue := r.dialog, false
	r.step(func(s *refersub.Step) { isDue = r.state.Start(s) })
	if !isDue {
		return
	}
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().timers().T2)
	defer cancel()
	if err := r.notify(ctx, refersub.Notify{}, nil); err != nil {
		d.log().Debug("NOTIFY could not be sent yet", "error", err)
		// As soon as may be; the application need not wait for it.
		r.step(func(s *refersub.Step) { r.state.Queue(s, refersub.Notify{}) })
	}
}

// withToken returns a body with the token beside it, or the body itself without a token.
func withToken(body Body, token []byte) Body {
	if len(token) == 0 {
		return body
	}
	own := orEmpty(body)
	return NewBody(referredby.Beside(sipheader.OneLine(own.ContentType()), own.Data(), token, "part-"+randomHex(12)))
}
