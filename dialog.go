package dialog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/budget"
	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/lockstat"
	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/sendslot"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/values"
)

// Dialog is one call, from its INVITE to its end. A stack makes it; see
// [Stack.NewInvite] and [Stack.OnIncomingDialog].
//
// Every method may be called from any goroutine and from inside any callback, in any
// state: it returns a result or a typed error.
type Dialog struct {
	// Set at construction.

	stack    *Stack
	callID   string
	localTag string
	// arrived is the INVITE that brought the call; nil for a call of ours.
	arrived *sipmsg.Kept
	isUAC   bool
	// outOfDialog is true for the dialog of a REFER outside calls: no call, but the dialog
	// of its subscription. referral is true for a call that follows a REFER.
	outOfDialog, referral bool
	// closeOnce synchronises itself.
	closeOnce sync.Once

	// mutex guards the fields below. It comes after Stack.mutex and before
	// the mailbox; no two dialogs' are ever held at once.
	mutex lockstat.RWMutex

	state DialogState
	// entered says how old the stack was when each state was entered, which for a call that
	// was restored may be before it was made; zero: never.
	entered [DialogStateTerminated + 1]time.Duration
	// ending is how the call will end, once that is decided; ended how it has ended.
	ending *ending
	ended  *ended
	phase  phase
	// peerHungUp is true once the peer's BYE has come, before it is answered.
	peerHungUp bool
	// ackWaits is true while an ACK of ours waits for the application's
	// answer to the offer in the 2xx.
	ackWaits bool
	// replaced is true once the INVITE of another call, which is being accepted or was,
	// has taken this one's place.
	replaced bool
	// rangFirst is true once a response was sent in the early dialog of the automatic 180.
	rangFirst bool
	// secure is true when the INVITE was for a SIPS URI.
	secure bool
	events latches
	// context is made when it is asked for.
	context *callContext

	// current is the state of the dialog with the peer; remoteTarget and routeSet show it.
	// See currentLocked.
	current      atomic.Pointer[dialogState]
	remoteTarget sip.Uri
	routeSet     []sip.Uri
	// local is the From of our requests, without its tag.
	local sipheader.Party
	// contact is our Contact, when the application chose it.
	contact sip.Header
	// kept is the flow that is held open for the call.
	kept  *transport.Flow
	mover *mover // nil: not known yet

	// invite is our INVITE that began the call (UAC), callOutcome the outcome that
	// WaitAnswer waits for, answeredBy the peer's latest response.
	invite      *inviteClient
	callOutcome callOutcome
	answeredBy  *sipmsg.Kept
	// incoming is the peer's INVITE that began it (UAS).
	incoming incoming
	ringing  ringing
	// reinviteOut is a re-INVITE of ours, reinviteIn one of the peer, that
	// has no final response yet.
	reinviteOut *reinviteClient
	reinviteIn  *reinviteServer
	// retransmissions are the 2xx of ours that repeat until their ACK comes.
	retransmissions []*retransmission
	timer           sessionTimer

	// callbacks are the functions of the application, aside the body that waits for one.
	callbacks *callbacks
	aside     aside

	// referSubscriptions are the REFERs received, by CSeq header value; transfers has the
	// other state of REFERs.
	referSubscriptions map[string]*ReferSubscription
	transfers          *refersub.Book[*ReferSubscription]
	// saved is what the call has for its snapshots alone; nil: nothing.
	saved *keptCall

	// The fields below are safe for concurrent use.

	sendSlot    sendslot.Slot
	values      values.Values
	mailbox     mailbox.Mailbox
	holds       budget.Share
	credentials auth.Scope
}

// latches are the events of a call that goroutines wait for.
type latches struct {
	// done is opened when the state becomes Terminated. hungUp is opened when a hang-up
	// begins, after which no decision of the application is awaited. acked wakes when no
	// 2xx of ours waits for its ACK.
	done, hungUp, acked latch.Latch
}

// ended is how a call has ended.
type ended struct {
	cause Cause
	// delivered is closed when Terminated was delivered; nil if there is nothing to wait
	// for.
	delivered <-chan struct{}
}

// causeLocked returns the cause of the end; the zero value before it.
func (d *Dialog) causeLocked() Cause {
	if d.ended == nil {
		return Cause{}
	}
	return d.ended.cause
}

// OfferHandler decides an offer of the peer: it returns the answer, or an error to
// refuse the offer. An offer without Data asks for our offer, and the result is that
// offer. ctx ends when the answer is no longer needed.
type OfferHandler func(ctx context.Context, offer Body) (answer Body, err error)

// Key returns the dialog's present identifier (RFC 3261 12). RemoteTag is empty until
// the peer's tag is known.
func (d *Dialog) Key() DialogKey {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.keyLocked()
}

// State returns the dialog's present state.
func (d *Dialog) State() DialogState {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.state
}

// Cause returns the cause of the end of the call; before the end its By is PartyNone.
func (d *Dialog) Cause() Cause {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.causeLocked()
}

// Done returns a channel that is closed when the state becomes Terminated.
func (d *Dialog) Done() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.events.done.OpenIf(d.state == DialogStateTerminated).C()
}

// SetValue attaches a value of the application's to the call, under a key as for
// context.WithValue; nil removes it. Value returns it, and so does the context of each
// handler of the call (OnOfferRequest, OnRequest, OnRefer) and of Context. It may be called
// in any state, also after the end, and never blocks. The value is freed with the Dialog,
// which the stack forgets once the call and its subscriptions have ended. It is not in
// snapshots; SetAppData is.
//
// Errors: ErrInvalidArgument (a key that is nil, or not comparable).
func (d *Dialog) SetValue(key, value any) error {
	if !values.IsKey(key) {
		return opErr("SetValue", invalid("key of type %T", key))
	}
	d.values.Set(key, value)
	return nil
}

// Value returns what SetValue has set under that key, else the value of InviteOpts.Context;
// nil if there is neither. It never blocks.
func (d *Dialog) Value(key any) any { return d.values.Value(key) }

// IsUAC reports whether we sent the INVITE.
func (d *Dialog) IsUAC() bool { return d.isUAC }

// IsUAS reports whether the peer sent the INVITE.
func (d *Dialog) IsUAS() bool { return !d.isUAC }

// OnStateChange registers a callback for later changes of the state. The callback runs
// in the order of the changes, after callbacks registered before it, one at a time with
// those of OnBody, with no lock held. Terminated is the last state. A nil callback is
// ignored. OnStateChange never blocks.
func (d *Dialog) OnStateChange(callback func(DialogState)) {
	if callback == nil {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	c.state = append(c.state, callback)
}

// OnBody registers a callback for the bodies of the peer's INVITE, UPDATE, 1xx, 2xx,
// ACK and PRACK, unchanged: a multipart body (RFC 5621) is delivered whole. The callback
// does not learn which message carried a body, and not every SDP is an offer or an
// answer. The following are neither:
//
//   - SDP in a 1xx that is not sent reliably: a preview of the answer (RFC 3261
//     13.2.1), which can differ for each fork;
//   - SDP in a 1xx or 2xx after a reliable 1xx with the answer, or the offer (RFC 6337
//     3.1.1, 3.1.2): the session does not change;
//   - SDP in a request that is then refused, for example by OnOffer;
//   - SDP in an ACK, or PRACK, without an offer before it;
//   - a body whose Content-Disposition is not session, such as early-session (RFC 3959).
//
// OnOffer's function gets only offers, and Renegotiate and Update return only answers.
// If no callback is registered, the latest body is kept for the first callback. OnBody
// then waits until that callback has returned, but no longer than the grace time, and
// not inside a callback. An offer that Accept has answered is no longer kept: a callback
// registered after Accept gets later bodies only. A nil callback is ignored.
func (d *Dialog) OnBody(callback func(Body)) {
	if callback == nil {
		return
	}
	d.waitDelivered(context.Background(), d.registerBody(callback))
}

func (d *Dialog) registerBody(callback func(Body)) <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	c.body = append(c.body, callback)
	kept, release := d.takeAsideLocked()
	if kept == nil {
		return nil
	}
	return d.mailbox.Push(func() {
		defer release()
		callback(kept)
	})
}

// OnOffer sets the function that decides the peer's offers: those in its re-INVITEs,
// UPDATEs and PRACKs, and those that an INVITE of ours without a body has asked for, in
// the 2xx or in a reliable provisional response. It replaces the earlier function. Nil
// restores the default answers: the session that the application wants, restricted to
// the offer (RFC 3264 6), and 488 if no stream is left. An offer is the body, or the
// part of it that is SDP (RFC 5621). Without a body, or with one that describes no
// session, the peer asks for our offer. The function does not learn which message
// carried the offer. It runs on its own goroutine with the transaction open, at most for
// this time:
//
//   - a re-INVITE: the ringing limit, then 504;
//   - an UPDATE: two seconds, then 504 (RFC 3311 5.2);
//   - a PRACK: two seconds;
//   - an offer that we asked for: three quarters of 64*T1.
//
// An error refuses the offer with 488 and a Warning, or with the response of a
// [*Refusal]. An error of Renegotiate, ReInvite or Update on the other call of a bridge
// refuses the offer as that call was refused: see [ResponseError.Refusal]; with 491 for
// ErrPending, so that the peer retries; with 504 for ErrTimeout. The version in the
// answer's o= line is raised if it would otherwise decrease (RFC 3264 8).
//
// A PRACK cannot be refused (RFC 3262 3): its answer has port 0 in every line, and our
// last session is offered again by UPDATE; if that is not possible, the call ends. An
// offer that we asked for cannot be refused either: the answer has port 0 in every line,
// and the call ends (RFC 3261 13.2.2.4).
func (d *Dialog) OnOffer(handler OfferHandler) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	if c.offer = (offerDecider{}); handler != nil {
		c.offer.decide = func(ctx context.Context, r *OfferRequest) (Body, error) { return handler(ctx, orEmpty(r.Offer)) }
	}
}

// Accept answers an incoming call with 200 (RFC 3261 13.3.1.4), changed by opts. It may
// be called inside OnIncomingDialog or later. It returns when the 200 has been sent,
// without waiting for the ACK; the state is then Established. It waits, until ctx ends,
// for requests of this dialog that are being written, and for the PRACK of provisional
// responses that were sent reliably with a body (RFC 3262 3). After such a PRACK the
// session is established, and no body is needed here. Nor is one after a Provisional whose
// body was not sent reliably: the 200 repeats that. If this call replaces another (see
// Replaces), the other call then ends in the background, by BYE or CANCEL.
//
// Errors: *StateError (not an incoming call, or not ringing: it was answered or
// cancelled), ErrAnswered (another event decided the final response at the same moment,
// or a PRACK did not come), ErrReplaced (see there), ErrPanic, ErrTransport, that of ctx.
func (d *Dialog) Accept(ctx context.Context, opts ...ResponseOpt) (err error) {
	defer naming("Accept", &err)
	if ctx == nil {
		return errNilContext("Accept")
	}
	tx, err := d.inviteToAnswer("Accept")
	if err != nil {
		return err
	}
	res := d.newAnswer(tx)
	if err := d.customise(res, opts); err != nil {
		return err
	}
	e, err := d.inFork(tx, res)
	if err != nil {
		return err
	}
	if err := d.answerFirst(ctx, tx, res, e); err != nil {
		return err
	}
	delivered, err := d.acceptInOrder(ctx, tx, res, e)
	d.waitDelivered(ctx, delivered)
	return err
}

// Reject refuses an incoming call with a final response of 300 to 699 (RFC 3261
// 13.3.1.2, 13.3.1.3); an empty reason becomes the code's phrase. It may be called in
// the same states as Accept. It does not wait for the network, and ends the dialog.
//
// Errors: ErrInvalidArgument (another code), *StateError and ErrAnswered as for Accept,
// ErrTransport, that of ctx.
func (d *Dialog) Reject(ctx context.Context, code int, reason string) error {
	return opErr("Reject", d.RejectWith(ctx, code, reason))
}

// RejectWith is Reject with a response that opts change: Contacts of a redirection,
// Retry-After, Warning. Its errors are Reject's, and ErrPanic.
func (d *Dialog) RejectWith(ctx context.Context, code int, reason string, opts ...ResponseOpt) (err error) {
	defer naming("RejectWith", &err)
	if ctx == nil {
		return errNilContext("Reject")
	}
	if err := validCode("Reject", code, 300, 699); err != nil {
		return err
	}
	tx, err := d.inviteToAnswer("Reject")
	if err != nil {
		return err
	}
	res := tx.NewResponse(code, reason)
	if err := applyOpts(res, opts); err != nil {
		return err
	}
	if takeForkMark(res) != "" {
		return invalid("WithFork in a refusal: it ends all early dialogs")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.claim() {
		return ErrAnswered
	}
	delivered, err := d.reject(tx, res, Cause{By: PartyLocal, Method: "INVITE", Status: code, Reason: reason, Reasons: ReasonsOf(res)})
	d.waitDelivered(ctx, delivered)
	return err
}

// Provisional sends a provisional response of 101 to 199 to a ringing incoming call: 183
// with a body for early media, for example. It may be called in the same states as
// Accept, any number of times. It does not wait for the network.
//
// The response is sent reliably (RFC 3262), and repeated until the caller's PRACK, if
// the caller requires that. If the caller only supports it, the response is reliable if
// it has a body or opts has WithReliable; see StackConfig.Reliable. Reliable responses
// are sent one after the other: each waits for the PRACK to the one before. If a PRACK
// does not come for 64*T1, the call is refused with 504. The first reliable response
// carries our offer if the INVITE has none; the answer, in the PRACK, goes to OnBody.
//
// Errors: ErrInvalidArgument (another code; a first reliable response without the offer
// that it needs), ErrPending (16 responses wait for PRACK already), *StateError,
// ErrAnswered, ErrPanic, ErrTransport, that of ctx.
func (d *Dialog) Provisional(ctx context.Context, code int, reason string, opts ...ResponseOpt) (err error) {
	defer naming("Provisional", &err)
	if ctx == nil {
		return errNilContext("Provisional")
	}
	if err := validCode("Provisional", code, 101, 199); err != nil {
		return err
	}
	tx, err := d.inviteToAnswer("Provisional")
	if err != nil {
		return err
	}
	res := d.newProvisional(tx, code, reason)
	if err := d.customise(res, opts); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e, err := d.inFork(tx, res)
	if err != nil {
		return err
	}
	if e != nil && code == invite.StatusTerminated {
		return d.terminateFork(tx, res, e)
	}
	if err := d.sendProvisional(tx, res, e); err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.rangFirst = d.rangFirst || e == nil
	if d.incoming.tx != nil {
		d.ringAgainLocked()
	}
	return nil
}

// WaitAnswer waits for the final response to the INVITE of NewInvite: nil means
// established. If ctx ends first, the call is cancelled: CANCEL is sent as soon as RFC
// 3261 9.1 allows, a 2xx that crosses it gets its ACK and a BYE, and WaitAnswer returns
// the error of ctx at once. The CANCEL has the reasons of the context's cause (RFC 3326):
// see [ReasonError]. A second call, or a later one, returns the same outcome. OnFork reports
// each 101 to 199 meanwhile.
//
// Errors: *ResponseError (refused), ErrTimeout, ErrTransport, ErrCanceled (cancelled
// before), ErrShutdown, *StateError (not an outgoing call), that of ctx.
func (d *Dialog) WaitAnswer(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("WaitAnswer")
	}
	if !d.isUAC {
		return &StateError{Op: "WaitAnswer", State: d.State(), Need: "an outgoing call"}
	}
	decided := d.outcomeKnown()
	select {
	case <-decided:
		return opErr("WaitAnswer", d.outcome())
	default:
	}
	select {
	case <-decided:
		return opErr("WaitAnswer", d.outcome())
	case <-ctx.Done():
		if d.cancelUndecided(ctx) {
			return ctx.Err()
		}
		return opErr("WaitAnswer", d.outcome())
	}
}

// ReInvite offers a new session inside an established call (RFC 3261 14.1) and waits for
// the final response, whose ACK is automatic; a body in it goes to OnBody. After Accept
// it first waits for the ACK to the 200. If ctx ends first, the re-INVITE is cancelled
// and the error of ctx returned. A re-INVITE that gets only provisional responses is
// cancelled after the ringing limit. After a 491 the re-INVITE is sent again (RFC 3261
// 14.1), for 64*T1 after the first, and after a 500 or 503 with Retry-After at most three
// times, unless StackConfig.NoRetry is set.
//
// Errors: *StateError (its text contains "Established state"), ErrPending (another
// INVITE, in either direction, has no final response, an offer is open, or an ACK waits
// for OnOffer), *ResponseError, ErrTimeout, ErrTransport, ErrTerminated, that of ctx.
func (d *Dialog) ReInvite(ctx context.Context, opts InviteOpts) (err error) {
	defer naming("ReInvite", &err)
	if ctx == nil {
		return errNilContext("ReInvite")
	}
	_, err = d.renegotiate(ctx, opts, nil)
	return err
}

// Bye ends the call. An established call ends by BYE, with reason as its Reason header
// (RFC 3326); the callee's BYE waits for the ACK to its 2xx, or for 64*T1 (RFC 3261
// 15). An outgoing call that is not answered ends by CANCEL. For an ended call the
// result is nil. Bye waits until the call has ended: with any final response to the BYE,
// or after TxTimeout without one. The end of ctx ends only the wait.
//
// Errors: *StateError (an incoming call that is not answered: use Reject), ErrTimeout
// and ErrTransport (no response to the BYE; the call has still ended), that of ctx.
func (d *Dialog) Bye(ctx context.Context, reason string) error {
	return opErr("Bye", d.ByeWith(ctx, ByeOpts{Reason: reason}))
}

// ByeWith is Bye with further headers for the BYE.
func (d *Dialog) ByeWith(ctx context.Context, opts ByeOpts) (err error) {
	defer naming("ByeWith", &err)
	if ctx == nil {
		return errNilContext("Bye")
	}
	if err := firstError(checkReasons(opts.Reason, opts.Reasons), checkHeaders(opts.Headers, nil, checkHeader)); err != nil {
		return err
	}
	if d.State() == DialogStateTerminated {
		return nil
	}
	if d.IsUAS() && d.isIncoming() {
		return &StateError{Op: "Bye", State: d.State(), Need: "an answered call"}
	}
	reasons := reasonHeaders(opts.Reason, opts.Reasons)
	ours := d.hangup(&ending{
		cause:   Cause{By: PartyLocal, Method: "BYE", Reason: opts.Reason, Reasons: reasonsIn(reasons)},
		reasons: reasons, headers: slices.Clone(opts.Headers),
	})
	return d.waitEnded(ctx, ours)
}

// waitEnded waits until the call has ended, and returns the error of the BYE. ours is
// true when the caller began the end.
func (d *Dialog) waitEnded(ctx context.Context, ours bool) error {
	select {
	case <-d.Done():
	case <-ctx.Done():
		if d.State() != DialogStateTerminated {
			return ctx.Err()
		}
	}
	if ours {
		// Whoever did not begin the end may be called by the end's own callback.
		d.waitDelivered(ctx, d.lastDelivery())
	}
	return d.byeError()
}

// Hangup ends the call in any state: by BYE, by CANCEL, or by 480 to an incoming call
// that is not answered. In the first two cases it is Bye without a reason.
func (d *Dialog) Hangup(ctx context.Context) (err error) {
	defer naming("Hangup", &err)
	if ctx == nil {
		return errNilContext("Hangup")
	}
	// One decision: whether the call has been answered must not change meanwhile.
	d.mutex.Lock()
	e := &ending{cause: Cause{By: PartyLocal, Method: "BYE"}}
	if d.phase == phaseIncoming {
		e.cause = Cause{By: PartyLocal, Method: "INVITE", Status: sip.StatusTemporarilyUnavailable}
	}
	release := d.hangupLocked(e)
	ours := d.ending == e
	d.mutex.Unlock()
	release()
	return d.waitEnded(ctx, ours)
}

// Close ends the dialog at once: when it returns, the state is Terminated, and the
// callbacks have run (unless Close was called inside a callback). It does not wait for
// the network; the peer gets BYE, CANCEL or 480 in the background. Unlike Bye it also
// ends the subscriptions of REFERs ([ReferSubscription.Close]), except those that
// FollowRefer is working on. It may be called any number of times and returns nil.
func (d *Dialog) Close() error {
	var delivered <-chan struct{}
	release := func() {}
	d.closeOnce.Do(func() {
		delivered, release = d.terminate(&ending{cause: Cause{By: PartyLocal}})
		d.closeSubscriptions(ErrTerminated, false)
	})
	release()
	d.waitDelivered(context.Background(), delivered)
	return nil
}

// waitDelivered waits until the callbacks that a method caused have run, but not beyond
// ctx or the grace time. It returns at once for a nil channel.
func (d *Dialog) waitDelivered(ctx context.Context, delivered <-chan struct{}) {
	if delivered == nil {
		return
	}
	select {
	case <-delivered:
		return
	default:
	}
	grace := time.NewTimer(d.config().graceTime())
	defer grace.Stop()
	select {
	case <-delivered:
	case <-ctx.Done():
	case <-grace.C:
	}
}

func errNilContext(op string) error {
	return opErr(op, fmt.Errorf("%w: nil context", ErrInvalidArgument))
}
