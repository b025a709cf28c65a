package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// Refer asks the peer to call target (RFC 3515). It returns when the REFER has been
// written; WaitRefer waits for its response. The call must be established. It ends if
// the REFER gets no response for TxTimeout (RFC 3261 12.2.1.2), unless
// StackConfig.KeepUnanswered is set.
//
// Errors: ErrInvalidArgument, *StateError, ErrPending, ErrTransport, that of ctx.
func (d *Dialog) Refer(ctx context.Context, target sip.Uri, opts ReferOpts) error {
	return opErr("Refer", d.SendRefer(ctx, target, &opts))
}

// ReferReplace asks the peer to call the peer of replaceDialog and to replace that call:
// an attended transfer (RFC 5589 7). replaceDialog must be an established call of this
// package; for another implementation of IDialog use SendReferWithReplaces. In all else
// it is like Refer.
func (d *Dialog) ReferReplace(ctx context.Context, replaceDialog IDialog, opts ReferOpts) (err error) {
	defer naming("ReferReplace", &err)
	return d.SendReferWithReplaces(ctx, sip.Uri{}, replaceDialog, &opts)
}

// SendReferWithReplaces is ReferReplace with a given URI to call. It uses only the Key of
// replaceDialog.
func (d *Dialog) SendReferWithReplaces(ctx context.Context, targetURI sip.Uri, replaceDialog IDialog, opts *ReferOpts) (err error) {
	defer naming("SendReferWithReplaces", &err)
	if ReplacesOf(replaceDialog) == nil {
		return errNothingToReplace()
	}
	attended := ReferOpts{}
	if opts != nil {
		attended = *opts
	}
	attended.Replaces = replaceDialog
	return d.SendRefer(ctx, targetURI, &attended)
}

func errNothingToReplace() error {
	return invalid("no dialog to replace, or one without a peer yet")
}

// referTo returns the URI of Refer-To: target, with the Replaces header of an attended
// transfer.
func (o *ReferOpts) referTo(target sip.Uri) (sip.Uri, error) {
	if o == nil || o.Replaces == nil {
		return target, nil
	}
	info := ReplacesOf(o.Replaces)
	if info == nil {
		return target, errNothingToReplace()
	}
	if other, ok := o.Replaces.(*Dialog); ok && sipuri.LacksHost(target) {
		target = other.peerTarget()
	}
	target = *target.Clone()
	sipuri.RemoveParam(&target.Headers, "Replaces")
	target.Headers.Add("Replaces", sipuri.EscapeHeader(info.BuildReplacesHeader()))
	return target, checkCall(info)
}

// peerTarget is the URI at which the peer is reached.
func (d *Dialog) peerTarget() sip.Uri {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return *d.remoteTarget.Clone()
}

// SendRefer is Refer; nil opts mean the defaults.
func (d *Dialog) SendRefer(ctx context.Context, referTo sip.Uri, opts *ReferOpts) (err error) {
	defer naming("SendRefer", &err)
	_, err = d.sendRefer(ctx, referTo, opts, true)
	return err
}

// Transfer asks the peer to call target, as Refer does, and waits for the response to that
// REFER. A 2xx returns the subscription of this REFER, whatever others are open, and also
// if its NOTIFYs, or a BYE, came before the 2xx: [ReferSubscription.Wait] returns the
// outcome. The subscription has ended already if the peer agreed to none. With
// opts.Replaces the transfer is attended. WaitRefer does not wait for this REFER.
//
// If ctx ends first, the subscription is dropped and a NOTIFY gets 481; the peer may call
// target all the same. The call must be established, and continues: after the outcome the
// application ends it (RFC 5589 6.1).
//
// Errors: those of Refer, *ResponseError (refused), ErrTimeout, ErrTerminated (Close),
// ErrShutdown.
func (d *Dialog) Transfer(ctx context.Context, target sip.Uri, opts ReferOpts) (result *ReferSubscription, err error) {
	defer naming("Transfer", &err)
	r, err := d.sendRefer(ctx, target, &opts, false)
	if err != nil {
		return nil, err
	}
	return r.waitResponse(ctx)
}

// sendRefer checks and writes a REFER. WaitRefer waits for the response if queued is true.
func (d *Dialog) sendRefer(ctx context.Context, target sip.Uri, opts *ReferOpts, queued bool) (*ReferSubscription, error) {
	if ctx == nil {
		return nil, errNilContext("Refer")
	}
	referTo, err := opts.referTo(target)
	if err := firstError(err, opts.check(referTo)); err != nil {
		return nil, err
	}
	if opts != nil && opts.Flow != nil {
		return nil, invalid("a Flow inside a call, which has its own")
	}
	if err := d.lockToSend(ctx, "Refer"); err != nil {
		return nil, err
	}
	return d.writeRefer(ctx, referTo, opts, queued)
}

// writeRefer writes a REFER. The send slot and the mutex are held, and released.
func (d *Dialog) writeRefer(ctx context.Context, referTo sip.Uri, opts *ReferOpts, queued bool) (*ReferSubscription, error) {
	defer d.sendSlot.Release()
	s := d.currentLocked()
	req, err := s.nextRequestLocked(sip.REFER)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	d.decorateReferLocked(req, referTo, opts)
	r := d.newSentReferLocked(req, referTo)
	if queued {
		d.transfers.Unawaited.Push(r)
	}
	r.refer.Silent = opts != nil && opts.RequireNoSub
	err = s.unlockAndSend(ctx, req, nil, r.mayRepeatLocked, func(x *retry.Request) {
		x.Prepared = r.prepared
		d.observe(x, sip.REFER, r.referOver)
	})
	if err != nil {
		d.mutex.Lock()
		d.transfers.Unawaited.Drop(r)
		d.mutex.Unlock()
		r.referOver(nil, refersub.Failure{Err: err, Unsent: true})
		return nil, err
	}
	return r, nil
}

// waitResponse waits for the response to a REFER of ours that no WaitRefer waits for. The
// end of ctx drops the subscription, since no one else has it.
func (r *ReferSubscription) waitResponse(ctx context.Context) (*ReferSubscription, error) {
	select {
	case <-r.answered:
	case <-ctx.Done():
		r.step(func(s *refersub.Step) { r.state.Abandon(s, ctx.Err()) })
	}
	return r.orRefusal()
}

// orRefusal returns the subscription of a REFER that got a 2xx, else its error.
func (r *ReferSubscription) orRefusal() (*ReferSubscription, error) {
	r.dialog.mutex.RLock()
	defer r.dialog.mutex.RUnlock()
	if err := r.state.Refusal(); err != nil {
		return nil, err
	}
	return r, nil
}

// mayRepeatLocked reports why a REFER must not be sent again: its subscription has ended,
// or its call has.
func (r *ReferSubscription) mayRepeatLocked() error {
	switch {
	case r.state.IsOver():
		return ErrNoSubscription
	case r.dialog.outOfDialog:
		return nil
	}
	return r.dialog.mayRequestLocked("Refer")
}

// decorateReferLocked adds the headers that only a REFER has.
func (d *Dialog) decorateReferLocked(req *draft.Request, referTo sip.Uri, opts *ReferOpts) {
	if opts == nil {
		opts = &ReferOpts{}
	}
	refer := refersub.Refer{
		To: referTo, Supported: d.stack.supported(), ReferSub: opts.ReferSub, NoSub: opts.RequireNoSub,
		By: d.referrerLocked(opts), Headers: opts.Headers,
	}
	if opts.NoReferSub {
		no := "false"
		refer.ReferSub = &no
	}
	if key := opts.TargetDialog; key != nil { // as the peer sees it (RFC 4538 3)
		refer.TargetDialog = &dialogname.TargetDialog{CallID: key.CallID, LocalTag: key.RemoteTag, RemoteTag: key.LocalTag}
	}
	refer.Write(req)
}

// referrerLocked is the Referred-By of a REFER; empty before our address is known.
func (d *Dialog) referrerLocked(opts *ReferOpts) string {
	if by := opts.ReferredBy; by != nil {
		return sipheader.NameAddr{Display: sipmsg.Escape(by.DisplayName), URI: by.URI}.To("").Value()
	}
	if local := d.local.NameAddr().URI; local.Host != "" {
		return "<" + local.String() + ">"
	}
	return ""
}

func (d *Dialog) newSentReferLocked(req *draft.Request, referTo sip.Uri) *ReferSubscription {
	r := d.newSubscription(req.Value("CSeq"), referTo)
	r.state.Sent, r.answered = true, make(chan struct{})
	d.transfersLocked().AddSent(r.ID, r)
	return r
}

// prepared gives the subscription the CSeq of the REFER that is sent, by which the peer
// identifies it. No other CSeq was given to the application, which gets the subscription
// only after the 2xx.
func (r *ReferSubscription) prepared(req *draft.Request) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if id := req.Value("CSeq"); id != r.ID && !r.state.IsOver() {
		r.dialog.transfers.Renumber(r.ID, id)
		r.ID = id
	}
}

// referOver handles the outcome of a REFER of ours. A 2xx creates the subscription, unless
// the peer agrees to none (RFC 4488 4).
func (r *ReferSubscription) referOver(res *sipmsg.Message, f refersub.Failure) {
	if f.Err != nil {
		r.step(func(s *refersub.Step) { r.state.Refused(s, f.Err) })
		return
	}
	r.dialog.establishFrom(res)
	silent := r.refer.Silent || refersub.IsFalse(sipheader.Value(res, "Refer-Sub"))
	r.step(func(s *refersub.Step) { r.state.Accepted(s, silent) })
}

// WaitRefer waits for the response to a REFER that was sent. Each call of WaitRefer
// waits for one REFER, in the order of sending. A 2xx returns the subscription, which
// has ended already if the peer agreed to none (Refer-Sub: false). If ctx ends first, a
// later WaitRefer can wait for the REFER again. The call may end meanwhile.
//
// Errors: ErrNoRefer (WaitRefer was called for every REFER), *ResponseError (refused),
// ErrTimeout, ErrTransport, ErrTerminated (Close), ErrShutdown, that of ctx.
func (d *Dialog) WaitRefer(ctx context.Context) (result *ReferSubscription, err error) {
	defer naming("WaitRefer", &err)
	if ctx == nil {
		return nil, errNilContext("WaitRefer")
	}
	d.mutex.Lock()
	r, found := d.transfersLocked().Unawaited.Next()
	d.mutex.Unlock()
	if !found {
		return nil, ErrNoRefer
	}
	select {
	case <-r.answered:
	case <-ctx.Done():
		d.mutex.Lock()
		d.transfers.Unawaited.PutBack(r)
		d.mutex.Unlock()
		return nil, ctx.Err()
	}
	d.mutex.Lock()
	d.transfers.Unawaited.Drop(r)
	d.mutex.Unlock()
	return r.orRefusal()
}

// A REFER outside calls makes a dialog that has a subscription and nothing else
// (RFC 3515 2.4.4, RFC 6665 4.4.1): it is a Dialog that is over from the first,
// like that of a call whose subscriptions have outlived it.

// Refer asks target to call referTo, outside any call (RFC 3515): for example to let a
// telephone dial. With opts.TargetDialog the REFER belongs to a call of ours (RFC 4538).
// Refer waits for the response. A 2xx returns the subscription, which has ended already
// if the peer agreed to none. If ctx ends first, the subscription is dropped, and a
// NOTIFY gets 481. Later NOTIFYs do not depend on ctx.
//
// Errors: ErrInvalidArgument, ErrNotStarted, ErrShutdown, ErrMaxDialogs
// (Limits.SubscribedCalls), *ResponseError (refused), ErrTimeout, ErrTransport, that of
// ctx.
func (s *Stack) Refer(ctx context.Context, target, referTo sip.Uri, opts ReferOpts) (result *ReferSubscription, err error) {
	defer naming("Refer", &err)
	if ctx == nil {
		return nil, errNilContext("Refer")
	}
	referTo, err = opts.referTo(referTo)
	if err := firstError(checkTarget("target", target), err, opts.check(referTo)); err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	flow, err := s.usableFlow(opts.Flow, target)
	if err != nil {
		return nil, err
	}
	d := s.newCaller(target, InviteOpts{}, flow)
	d.outOfDialog, d.state, d.phase = true, DialogStateTerminated, phaseCleared
	if err := s.registerSubscribed(d); err != nil {
		return nil, err
	}
	_ = d.sendSlot.Enqueue() // it is free: no other goroutine has the dialog
	d.mutex.Lock()
	r, err := d.writeRefer(ctx, referTo, &opts, false)
	if err == nil {
		err = s.ready() // Shutdown may have come before there was a subscription to end
	}
	if err == nil {
		r, err = r.waitResponse(ctx)
	}
	if err != nil {
		d.dropSubscriptions(err)
		return nil, err
	}
	return r, nil
}

// registerSubscribed adds the dialog of a REFER outside calls.
func (s *Stack) registerSubscribed(d *Dialog) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	// The dialog is new: no other goroutine holds its mutex.
	return registered(s.registry.Subscribe(d.keyLocked(), d))
}

// findByNotify returns the dialog of a REFER outside calls whose peer is not known
// before this NOTIFY. The NOTIFY may come before the 202, and makes the dialog (RFC
// 6665 4.4.1). When a proxy has forked the REFER, the first peer makes it.
func (s *Stack) findByNotify(notify *sipmsg.Message) *Dialog {
	s.mutex.RLock()
	d := s.registry.Subscribed(DialogKey{CallID: sipheader.CallID(notify), LocalTag: sipheader.ToTag(notify)})
	s.mutex.RUnlock()
	if d == nil || !isReferEvent(notify) || d.subscriptionFor(sipheader.Value(notify, "Event"), true) == nil {
		return nil
	}
	d.establish(sipheader.FromTag(notify), func(s *dialogState) { s.LearnRequest(saidBy(notify, sipheader.FromTag(notify))) })
	return d
}

// establishFrom is establish for the 2xx to the REFER (RFC 3261 12.1.2).
func (d *Dialog) establishFrom(res *sipmsg.Message) {
	d.establish(sipheader.ToTag(res), func(s *dialogState) { s.LearnResponse(saidBy(res, sipheader.ToTag(res))) })
}

// establish makes the dialog of a REFER outside calls with the peer of that tag: learn
// takes tag, target and route set. It does nothing when there is a dialog already.
func (d *Dialog) establish(tag string, learn func(*dialogState)) {
	if !d.outOfDialog || tag == "" {
		return
	}
	both := d.lockBoth()
	defer both.unlock()
	s, old := d.currentLocked(), d.keyLocked()
	if s.RemoteTag() != "" || d.stack.registry.Subscribed(old) != d {
		return
	}
	learn(s)
	s.publishLocked()
	d.rekeyLocked(old)
}
