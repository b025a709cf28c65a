package dialog

import (
	"maps"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/refersub"
)

// ReferSubscription is the implicit subscription of a REFER that we received or sent
// (RFC 3515 2.4.4). It may outlive the call: a BYE ends the session only (RFC 5057
// 5.5). It ends by its last NOTIFY, its expiry, a failure that ends it by RFC 5057 5.1,
// its Close or the dialog's, or Shutdown. Its methods may be called from any goroutine
// and from inside any callback.
type ReferSubscription struct {
	// ID is the REFER's CSeq header value, such as "2 REFER".
	ID string

	// Set at construction; dialog may be nil. Of a REFER of ours, refer has only Silent.

	dialog     *Dialog
	referToURI sip.Uri
	refer      refersub.Arrived

	// The dialog's mutex guards the fields below.

	// state decides; active shows whether it is active. failure is the error of Wait.
	state   refersub.Subscription
	active  bool
	failure error
	// bytes is the part of the REFER that Limits.CallBytes counts.
	bytes int
	// decided is opened once there is an outcome, or will be none, done when the
	// subscription ends.
	decided, done latch.Latch
	// callbacks are those of OnProgress.
	callbacks       []func(Progress)
	expiry, refresh *deadline.Func
	// answered is closed once a REFER of ours has its final response.
	answered chan struct{}

	// The fields below are safe for concurrent use.

	mailbox mailbox.Mailbox // for OnProgress
}

// newSubscription returns one that is in no registry yet.
func (d *Dialog) newSubscription(id string, referTo sip.Uri) *ReferSubscription {
	r := &ReferSubscription{ID: id, dialog: d, referToURI: referTo}
	if s := d.stack; s != nil {
		r.mailbox.Go, r.mailbox.Run = s.deliveries.Go, s.application
		r.mailbox.Panicked = func(value any, stack []byte) { s.logPanic(d.log(), "OnProgress", value, stack) }
	}
	return r
}

// Done returns a channel that is closed when the subscription ends. The end of
// the call does not close it.
func (r *ReferSubscription) Done() <-chan struct{} {
	if r == nil || r.dialog == nil {
		return new(latch.Latch).OpenIf(true).C()
	}
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	return r.done.OpenIf(r.state.IsOver()).C()
}

// Close ends the subscription for the application at once, without waiting for the
// network. The subscription of a REFER that we sent is forgotten: Wait returns, and the
// next NOTIFY gets 481, which ends the subscription for the peer (RFC 3515 2.4.4). For a
// REFER that we received a last NOTIFY is sent, with reason noresource and the last
// progress. The transfer itself continues. Close may be called any number of times and
// returns nil.
func (r *ReferSubscription) Close() error {
	if r != nil && r.dialog != nil {
		r.close(ErrTerminated)
	}
	return nil
}

func (r *ReferSubscription) close(cause error) {
	_, err := r.dialog.transactionLayer()
	r.step(func(s *refersub.Step) { r.state.Close(s, cause, err == nil) })
}

// drop ends the subscription without a NOTIFY.
func (r *ReferSubscription) drop(cause error) {
	r.step(func(s *refersub.Step) { r.state.Drop(s, cause) })
}

// step has an input change the state, and performs what follows from it.
func (r *ReferSubscription) step(input func(*refersub.Step)) { r.perform(r.change(input)) }

// change is the part of step that is done under the mutex; perform does the rest.
func (r *ReferSubscription) change(input func(*refersub.Step)) []refersub.Effect {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	return r.changeLocked(input)
}

func (r *ReferSubscription) changeLocked(input func(*refersub.Step)) []refersub.Effect {
	s := r.newStep()
	input(&s)
	r.active = r.state.IsActive()
	for _, e := range s.Effects {
		r.recordLocked(e)
	}
	return s.Effects
}

func (r *ReferSubscription) newStep() refersub.Step {
	return refersub.Step{Now: time.Now(), Life: r.dialog.config().referLife(), Transaction: r.dialog.transactionTime()}
}

// recordLocked performs what others see as soon as the mutex is released.
func (r *ReferSubscription) recordLocked(e refersub.Effect) {
	switch e.Kind {
	case refersub.Expires:
		r.expiry = r.armLocked(r.expiry, e.After, r.state.Expire)
	case refersub.Refreshes:
		r.refresh = r.armLocked(r.refresh, e.After, r.state.Refresh)
	case refersub.Rests:
		stopTimer(r.refresh)
	case refersub.Told:
		r.tellProgressLocked(e.Progress)
	case refersub.Decided:
		r.failure = transferError(r.state.Failure())
		r.decided.Open()
	case refersub.Answered:
		close(r.answered)
	case refersub.Unfollowed:
		r.unfollowedLocked()
	case refersub.NotifyOver:
		r.dialog.transfers.Notified()
	case refersub.Ended:
		r.forgetLocked()
	}
}

// perform does what is done without locks.
func (r *ReferSubscription) perform(effects []refersub.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case refersub.Writes:
			run := r.dialog.background
			if e.Last {
				run = r.dialog.finalGoodbye
			}
			run(func() { r.writeQueued(e.Notify) })
		case refersub.Subscribes:
			r.dialog.background(func() { r.subscribe(e.After) })
		case refersub.Ended, refersub.NotifyOver:
			r.dialog.forgetIfUnused()
		}
	}
}

// armLocked sets a timer whose input changes the state.
func (r *ReferSubscription) armLocked(t *deadline.Func, wait time.Duration, input func(*refersub.Step)) *deadline.Func {
	if t == nil {
		return r.dialog.after(wait, func() { r.step(input) })
	}
	t.Reset(wait)
	return t
}

// forgetLocked forgets a subscription that has ended.
func (r *ReferSubscription) forgetLocked() {
	stopTimer(r.expiry)
	stopTimer(r.refresh)
	registry := r.dialog.referSubscriptions
	if r.state.Sent {
		registry = r.dialog.transfers.Sent()
	}
	if registry[r.ID] == r {
		delete(registry, r.ID)
	}
	r.done.Open()
	r.freeLocked()
}

// freeLocked stops counting the REFER's bytes when it is no longer needed.
func (r *ReferSubscription) freeLocked() {
	if t := r.dialog.transfers; r.state.IsOver() && (t == nil || !t.Followable.Has(r)) {
		r.dialog.holds.Give(r.bytes)
		r.bytes = 0
	}
}

// transactionTime is the longest duration of a transaction (RFC 3261 17.1.2.2).
func (d *Dialog) transactionTime() time.Duration { return 64 * d.config().timers().T1 }

// referLife is the duration of the subscription of a REFER.
func (c *StackConfig) referLife() time.Duration { return refersub.DefaultLife(c.ringingLimit()) }

// transfersLocked has the state of the REFERs of a call; most calls have none.
func (d *Dialog) transfersLocked() *refersub.Book[*ReferSubscription] {
	if d.transfers == nil {
		d.transfers = new(refersub.Book[*ReferSubscription])
	}
	return d.transfers
}

// subscriptionFor returns the subscription that an Event of the peer's names, of a REFER
// of ours if sent is true; nil for none.
func (d *Dialog) subscriptionFor(event string, sent bool) *ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if sent {
		return d.transfers.NamedSent(event)
	}
	return refersub.Named(d.referSubscriptions, event, "")
}

// GetReferSubscription returns the active subscription with that ID. A subscription of a
// REFER that we received takes precedence over one that we sent.
func (d *Dialog) GetReferSubscription(id string) (*ReferSubscription, bool) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if r, ok := d.referSubscriptions[id]; ok {
		return r, true
	}
	r, ok := d.transfers.Sent()[id]
	if !ok || !r.active {
		return nil, false
	}
	return r, true
}

// GetAllReferSubscriptions returns the active subscriptions, received and sent.
func (d *Dialog) GetAllReferSubscriptions() []*ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return slices.DeleteFunc(d.subscriptionsLocked(), func(r *ReferSubscription) bool { return !r.active })
}

func (d *Dialog) subscriptions() []*ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.subscriptionsLocked()
}

func (d *Dialog) subscriptionsLocked() []*ReferSubscription {
	return slices.AppendSeq(slices.Collect(maps.Values(d.referSubscriptions)), maps.Values(d.transfers.Sent()))
}

// inUseLocked reports whether anything but the session keeps the dialog: a
// subscription, or a NOTIFY without a response (RFC 5057 4).
func (d *Dialog) inUseLocked() bool {
	return len(d.referSubscriptions) > 0 || d.transfers.InUse()
}

// endSubscriptionsLocked ends all subscriptions without a NOTIFY, when no request finds
// them any more.
func (d *Dialog) endSubscriptionsLocked(cause error) {
	for _, r := range d.subscriptionsLocked() {
		r.changeLocked(func(s *refersub.Step) { r.state.Drop(s, cause) })
	}
}

// forgetIfUnused forgets a dialog that has ended when the last of its subscriptions
// has: no new ones begin then.
func (d *Dialog) forgetIfUnused() {
	d.mutex.RLock()
	idle := d.state == DialogStateTerminated && !d.inUseLocked()
	d.mutex.RUnlock()
	if !idle {
		return
	}
	both := d.lockBoth()
	defer both.unlock()
	d.stack.forgetLocked(d)
}

// closeSubscriptions closes all, with even also those that a Follow is working on.
func (d *Dialog) closeSubscriptions(cause error, even bool) {
	for _, r := range d.subscriptions() {
		d.mutex.RLock()
		spared := r.state.IsFollowed() && !even
		d.mutex.RUnlock()
		if !spared {
			r.close(cause)
		}
	}
}

// flushLastNotifies writes the last NOTIFYs that wait, without waiting for the responses
// to others, for which there is no time left.
func (d *Dialog) flushLastNotifies() {
	for _, r := range d.subscriptions() {
		d.mutex.Lock()
		last, found := r.state.TakeLast()
		d.mutex.Unlock()
		if found {
			d.finalGoodbye(func() { r.writeQueued(last) })
		}
	}
}

// dropSubscriptions ends all without a NOTIFY: the dialog has ended. A NOTIFY that waits
// for its response no longer keeps it.
func (d *Dialog) dropSubscriptions(cause error) {
	d.mutex.Lock()
	d.endSubscriptionsLocked(cause)
	d.transfers.Ends()
	d.mutex.Unlock()
	d.forgetIfUnused()
}
