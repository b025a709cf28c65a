package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/usage"
)

// ReferSubscription is the implicit subscription of a REFER that we received or sent
// (RFC 3515 2.4.4). It may outlive the call: a BYE ends the session only (RFC 5057
// 5.5). It ends by its last NOTIFY, its expiry, a failure that ends it by RFC 5057 5.1,
// its Close or the dialog's, or Shutdown. Its methods may be called from any goroutine
// and from inside any callback.
type ReferSubscription struct {
	// ID is the REFER's CSeq header value, such as "2 REFER".
	ID string

	// Set at construction; dialog may be nil.

	dialog     *Dialog
	referToURI sip.Uri
	// first is true for the first REFER of ours in the dialog.
	first bool
	// referredBy is the Referred-By of a REFER received, token the proof in its body.
	// silent is true when the peer wants no subscription.
	referredBy string
	token      []byte
	silent     bool

	// The dialog's mutex guards the fields below.

	// active shows that the subscription exists: from the 2xx, or the first NOTIFY, until
	// its end.
	active bool
	state  refersub.Subscription
	// bytes is the part of the REFER that Limits.CallBytes counts.
	bytes int
	// decided is opened once there is an outcome, or will be none, done when the
	// subscription ends.
	decided, done latch.Latch
	// callbacks are those of OnProgress.
	callbacks       []func(Progress)
	expiry, refresh *deadline.Func
	// answered is closed once the REFER has its final response; err is set when
	// that was no 2xx.
	answered chan struct{}
	err      error
	// notifier has the NOTIFYs that have not left.
	notifier refersub.Notifier

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
	if _, err := r.dialog.transactionLayer(); err == nil && !r.state.Sent {
		r.queueNotify(refersub.Notify{State: refersub.NoResource})
		return
	}
	r.drop(cause)
}

// drop ends the subscription without a NOTIFY.
func (r *ReferSubscription) drop(cause error) {
	r.dialog.mutex.Lock()
	r.answeredLocked(cause)
	r.endLocked(cause)
	r.dialog.mutex.Unlock()
	r.dialog.forgetIfUnused()
}

func (r *ReferSubscription) registryLocked() map[string]*ReferSubscription {
	if r.state.Sent {
		return r.dialog.sentRefersLocked()
	}
	return r.dialog.referSubscriptions
}

// endLocked ends the subscription and forgets it. Unless there is an outcome, cause
// says why there is none. The caller then calls forgetIfUnused, without the mutex.
func (r *ReferSubscription) endLocked(cause error) {
	if !r.state.End() {
		return
	}
	r.active = false
	r.notifier.Drop()
	stopTimer(r.expiry)
	if r.registryLocked()[r.ID] == r {
		delete(r.registryLocked(), r.ID)
	}
	r.failLocked(cause)
	r.done.Open()
	r.freeLocked()
}

// freeLocked stops counting the REFER's bytes when it is no longer needed.
func (r *ReferSubscription) freeLocked() {
	if t := r.dialog.transfers; r.state.IsOver() && (t == nil || !t.followable.Has(r)) {
		r.dialog.holds.Give(r.bytes)
		r.bytes = 0
	}
}

// answeredLocked gives WaitRefer its result, once.
func (r *ReferSubscription) answeredLocked(err error) {
	if r.answered == nil {
		return // received
	}
	select {
	case <-r.answered:
	default:
		r.err = err
		close(r.answered)
	}
}

// activateLocked starts or prolongs the subscription, and returns for how long: the sum
// of all is bounded too.
func (r *ReferSubscription) activateLocked(life time.Duration) time.Duration {
	life = r.state.Prolong(time.Now(), life)
	r.armLocked()
	return life
}

// armLocked sets the timers of a subscription that was prolonged.
func (r *ReferSubscription) armLocked() {
	r.active = true
	r.refreshInTimeLocked()
	left := r.leftLocked()
	if r.expiry == nil {
		r.expiry = r.dialog.after(left, r.expired)
		return
	}
	r.expiry.Reset(left)
}

// expired ends a subscription that has expired. The peer gets a last NOTIFY if it is
// the subscriber (RFC 6665 4.2.2).
func (r *ReferSubscription) expired() {
	r.dialog.mutex.Lock()
	expiry, left := r.state.Expire(time.Now(), r.dialog.transactionTime())
	switch expiry {
	case refersub.NotYet:
		r.expiry.Reset(left)
	case refersub.WithoutOutcome:
		r.endLocked(r.lostLocked("", nil))
	case refersub.TimedOut:
		r.endLocked(r.lostLocked("", ErrTimeout))
	}
	r.dialog.mutex.Unlock()
	if expiry == refersub.TimedOutOfPeer {
		r.queueNotify(refersub.Notify{State: refersub.Timeout})
		return
	}
	r.dialog.forgetIfUnused()
}

// transactionTime is the longest duration of a transaction (RFC 3261 17.1.2.2).
func (d *Dialog) transactionTime() time.Duration { return 64 * d.config().timers().T1 }

// The subscriptions of a dialog.

// inUseLocked reports whether anything but the session keeps the dialog: a
// subscription, or a NOTIFY without a response (RFC 5057 4).
func (d *Dialog) inUseLocked() bool {
	return len(d.referSubscriptions)+len(d.sentRefersLocked()) > 0 || d.transfers != nil && d.transfers.notifying > 0
}

// endSubscriptionsLocked ends all subscriptions without a NOTIFY, when no request finds
// them any more.
func (d *Dialog) endSubscriptionsLocked(cause error) {
	for _, registry := range []map[string]*ReferSubscription{d.referSubscriptions, d.sentRefersLocked()} {
		for _, r := range registry {
			r.answeredLocked(cause)
			r.endLocked(cause)
		}
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

// flushLastNotifies sends the last NOTIFYs that wait.
func (d *Dialog) flushLastNotifies() {
	for _, r := range d.subscriptions() {
		r.flushLast()
	}
}

// dropSubscriptions ends all without a NOTIFY: the dialog has ended.
func (d *Dialog) dropSubscriptions(cause error) {
	for _, r := range d.subscriptions() {
		r.drop(cause)
	}
	// A NOTIFY that still waits for its response no longer keeps the dialog.
	d.mutex.Lock()
	if d.transfers != nil {
		d.transfers.notifying = 0
	}
	d.mutex.Unlock()
	d.forgetIfUnused()
}

func (d *Dialog) subscriptions() []*ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	var list []*ReferSubscription
	for _, registry := range []map[string]*ReferSubscription{d.referSubscriptions, d.sentRefersLocked()} {
		for _, r := range registry {
			list = append(list, r)
		}
	}
	return list
}

// GetReferSubscription returns the active subscription with that ID. A subscription of a
// REFER that we received takes precedence over one that we sent.
func (d *Dialog) GetReferSubscription(id string) (*ReferSubscription, bool) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if r, ok := d.referSubscriptions[id]; ok {
		return r, true
	}
	r, ok := d.sentRefersLocked()[id]
	if !ok || !r.active {
		return nil, false
	}
	return r, true
}

// GetAllReferSubscriptions returns the active subscriptions, received and sent.
func (d *Dialog) GetAllReferSubscriptions() []*ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	var list []*ReferSubscription
	for _, registry := range []map[string]*ReferSubscription{d.referSubscriptions, d.sentRefersLocked()} {
		for _, r := range registry {
			if r.active {
				list = append(list, r)
			}
		}
	}
	return list
}

// referLife is the duration of the subscription of a REFER.
func (c *StackConfig) referLife() time.Duration { return refersub.DefaultLife(c.ringingLimit()) }

// SUBSCRIBE inside a call, for the subscription of a REFER: the subscriber
// prolongs it, or ends it (RFC 3515 2.4.4, RFC 6665 4.1.2.2, 4.1.2.3).

// handleSubscribe handles the peer's SUBSCRIBE for a REFER that we received.
func (d *Dialog) handleSubscribe(tx serverTx, req *sipmsg.Message) {
	life, ok := refersub.Asked(sipheader.Value(req, "Expires"), d.config().referLife())
	d.mutex.Lock()
	r := refersub.Named(d.referSubscriptions, sipheader.Value(req, "Event"), isFirst)
	if r != nil && ok && life > 0 {
		life = r.activateLocked(life).Truncate(time.Second)
	}
	d.mutex.Unlock()
	switch {
	case r == nil && d.isMortal():
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	case r == nil:
		// RFC 3515 2.4.4: nothing but a REFER makes one.
		d.stack.answerWith(tx, sip.StatusForbidden)
		return
	case !ok:
		d.stack.answerWith(tx, sip.StatusBadRequest)
		return
	}
	d.stack.answerWith(tx, sip.StatusOK, d.contactTo(tx), expires(life))
	now := refersub.Notify{}
	if life == 0 {
		now.State = refersub.Timeout // RFC 6665 4.2.1.4
	}
	r.queueNotify(now)
}

func expires(life time.Duration) sip.Header {
	return sip.NewHeader("Expires", sipmsg.FormatSeconds(life))
}

// refreshInTimeLocked arms the timer that refreshes a subscription of ours while a Wait
// is running, and stops it otherwise.
func (r *ReferSubscription) refreshInTimeLocked() {
	wait, ok := r.state.RefreshIn(time.Now(), r.dialog.transactionTime())
	switch {
	case !ok:
		stopTimer(r.refresh)
	case r.refresh == nil:
		r.refresh = r.dialog.after(wait, func() { r.dialog.background(r.prolong) })
	default:
		r.refresh.Reset(wait)
	}
}

// prolong sends a SUBSCRIBE, unless one is pending.
func (r *ReferSubscription) prolong() {
	d := r.dialog
	d.mutex.Lock()
	begins := r.state.BeginRefresh()
	d.mutex.Unlock()
	if !begins {
		return
	}
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
	defer cancel()
	if err := r.subscribe(ctx); err != nil {
		d.log().Debug("SUBSCRIBE could not be sent", "error", err)
		r.refreshed(0)
	}
}

// subscribe writes a SUBSCRIBE that prolongs the subscription.
func (r *ReferSubscription) subscribe(ctx context.Context) error {
	d := r.dialog
	if err := r.lockToSend(ctx, "SUBSCRIBE"); err != nil {
		return err
	}
	defer d.sendSlot.Release()
	life := d.config().referLife()
	s := d.currentLocked()
	req, err := s.nextRequestLocked(sip.SUBSCRIBE)
	if err != nil {
		d.mutex.Unlock()
		return err
	}
	req.AddHeader(r.event())
	req.AddHeader(expires(life))
	req.Add("Accept", sipmsg.Bare(refersub.TypeFrag))
	return s.unlockAndSend(ctx, req, d.currentForkLocked(), r.mayRequestLocked, func(x *retry.Request) {
		x.OnResponse = func(res *sipmsg.Message) { r.subscribeResponse(res, life) }
		x.OnDone = r.subscribeDone
	})
}

// subscribeResponse handles the response to a refresh. A failure that RFC 6665 4.1.2.2
// counts against the subscription ends it; after any other it lasts as long as before.
func (r *ReferSubscription) subscribeResponse(res *sipmsg.Message, asked time.Duration) {
	switch {
	case res.IsProvisional():
		return
	case res.IsSuccess():
		r.refreshed(refersub.Granted(sipheader.Value(res, "Expires"), asked))
		return
	}
	if usage.EffectOf(sip.SUBSCRIBE, res.Status) != usage.EndsNothing {
		r.drop(newResponseError(sip.SUBSCRIBE, res))
	}
	r.refreshed(0)
	r.dialog.failed(nil, sip.SUBSCRIBE, res.Status, res.Reason)
}

// subscribeDone ends the subscription when a refresh gets no response (RFC 5057 5.2).
func (r *ReferSubscription) subscribeDone(err error) {
	if err != nil {
		r.drop(callError(err))
		r.refreshed(0)
	}
}

// refreshed records the result of a refresh; zero: none.
func (r *ReferSubscription) refreshed(life time.Duration) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.state.EndRefresh()
	if life > 0 && !r.state.IsOver() {
		r.activateLocked(life)
	}
}
