package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// A REFER outside calls makes a dialog that has a subscription and nothing else
// (RFC 3515 2.4.4, RFC 6665 4.4.1): it is a Dialog that is over from the first,
// like that of a call whose subscriptions have outlived it.

// Refer asks target to call referTo, outside any call (RFC 3515): a telephone that is
// to dial, for example. With opts.TargetDialog the REFER belongs to a call of ours (RFC
// 4538). It waits for the response. A 2xx gives the subscription; it has ended already
// when the peer says that there is none. When ctx ends first the subscription is
// dropped, and a NOTIFY gets 481. Later NOTIFYs do not depend on ctx.
//
// Errors: ErrInvalidArgument, ErrNotStarted, ErrShutdown, ErrMaxDialogs
// (Limits.SubscribedCalls), *ResponseError (refused), ErrTimeout, ErrTransport, ctx's.
func (s *Stack) Refer(ctx context.Context, target, referTo sip.Uri, opts ReferOpts) (result *ReferSubscription, err error) {
	defer naming("Refer", &err)
	if ctx == nil {
		return nil, errNilContext("Refer")
	}
	if err := firstError(checkTarget("target", target), opts.check(referTo)); err != nil {
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
	_ = d.sendSlot.Enqueue() // it is free: nobody else knows of the dialog
	d.mutex.Lock()
	err = d.writeRefer(ctx, referTo, &opts)
	if err == nil {
		err = s.ready() // Shutdown may have come before there was a subscription to end
	}
	var r *ReferSubscription
	if err == nil {
		r, err = d.WaitRefer(ctx)
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
	if len(s.subscribed) >= orDefault(s.config.Limits.SubscribedCalls, defaultSubscribed) {
		return ErrMaxDialogs
	}
	// The dialog is new: nobody else holds its mutex.
	s.subscribed[d.keyLocked()] = d
	return nil
}

// findByNotify returns the dialog of a REFER outside calls whose peer is not known
// before this NOTIFY. The NOTIFY may come before the 202, and makes the dialog (RFC
// 6665 4.4.1). When a proxy has forked the REFER, the first peer makes it.
func (s *Stack) findByNotify(notify *sipmsg.Message) *Dialog {
	s.mutex.RLock()
	d := s.subscribed[DialogKey{CallID: callID(notify), LocalTag: toTag(notify)}]
	s.mutex.RUnlock()
	if d == nil || !isReferEvent(notify) || !d.hasSent(eventID(notify)) {
		return nil
	}
	d.establish(fromTag(notify), func(s *dialogState) { s.LearnRequest(saidBy(notify, fromTag(notify))) })
	return d
}

// hasSent reports whether a REFER of ours has that number.
func (d *Dialog) hasSent(id string) bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return numberedLocked(d.sentRefersLocked(), id) != nil
}

// establishFrom is establish for the 2xx to the REFER (RFC 3261 12.1.2).
func (d *Dialog) establishFrom(res *sip.Response) {
	d.establish(toTag(res), func(s *dialogState) { s.LearnResponse(saidBy(res, toTag(res))) })
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
	if s.RemoteTag() != "" || d.stack.subscribed[old] != d {
		return
	}
	learn(s)
	s.publishLocked()
	delete(d.stack.subscribed, old)
	d.stack.subscribed[d.keyLocked()] = d
}
