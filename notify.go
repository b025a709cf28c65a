package dialog

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/usage"
)

// The NOTIFYs we send, for REFERs we received.

// SendNotify reports the progress of a REFER that we received to the peer (RFC 3515
// 2.4.4): 100 to 199 while the new call is in progress, 200 to 699 for its outcome,
// which ends the subscription. It may be called after the end of the call (RFC 5057
// 5.5). It blocks until the NOTIFY is answered, at most TxTimeout.
//
// Errors: ErrInvalidArgument (status out of range), ErrNoSubscription (it has ended, or
// the REFER was ours), ErrPending, *ResponseError, ErrTimeout, ErrTransport, that of ctx.
func (r *ReferSubscription) SendNotify(ctx context.Context, status int, reason string) (err error) {
	defer naming("SendNotify", &err)
	if ctx == nil {
		return errNilContext("SendNotify")
	}
	if err := firstError(validCode("SendNotify", status, 100, 699), checkText("reason", reason)); err != nil {
		return err
	}
	if r == nil || r.dialog == nil || r.state.Sent {
		return ErrNoSubscription
	}
	if r.dialog.awaitsOurACK() {
		return ErrPending
	}
	answered := make(chan error, 1)
	err = r.notify(ctx, refersub.Notify{Progress: refersub.Progress{Status: status, Reason: reason}}, func(err error) { answered <- err })
	if err != nil {
		return err
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notify writes a NOTIFY and returns. Unless it returns an error, answered is called
// once with the outcome.
func (r *ReferSubscription) notify(ctx context.Context, n refersub.Notify, answered func(error)) error {
	d := r.dialog
	if err := r.lockToSend(ctx, "SendNotify"); err != nil {
		return err
	}
	defer d.sendSlot.Release()
	n = n.Filled(r.state.Progress(), r.leftLocked())
	req, err := r.newNotifyLocked(n)
	if err != nil {
		d.mutex.Unlock()
		return err
	}
	sent := &sentNotify{r: r, number: r.notifier.Sent(), answered: answered}
	d.transfersLocked().notifying++
	err = d.currentLocked().unlockAndSend(ctx, req, d.currentForkLocked(), sent.mayRepeatLocked, func(x *retry.Request) {
		x.Overtaken, x.OnResponse, x.OnDone = n.Retry, sent.response, sent.done
	})
	if err != nil {
		sent.answered = func(error) {}
		sent.ended(err)
		return err
	}
	r.notifySent(n)
	return nil
}

// lockToSend is Dialog.lockToSend for a request of a subscription, which may outlive
// the call. While an ACK waits for the application, and so holds the send slot, it
// waits.
func (r *ReferSubscription) lockToSend(ctx context.Context, op string) error {
	for {
		err := r.dialog.lockToSendIf(ctx, op, r.mayRequestLocked)
		if err != nil || !r.dialog.ackWaits {
			return err
		}
		r.dialog.mutex.Unlock()
		r.dialog.sendSlot.Release()
	}
}

func (d *Dialog) awaitsOurACK() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.ackWaits
}

func (r *ReferSubscription) mayRequestLocked() error {
	switch {
	case !r.active:
		return ErrNoSubscription
	case r.dialog.currentLocked().RemoteTag() == "" && r.dialog.state <= DialogStateTrying:
		return ErrState // no dialog yet to send it in (RFC 3261 12.1.2)
	case r.dialog.earlyDialogsEndedLocked():
		return ErrTerminated // it would overtake the BYE that releases a fork
	}
	return nil
}

// leftLocked is how long the subscription goes on.
func (r *ReferSubscription) leftLocked() time.Duration {
	return r.state.Left(time.Now(), r.dialog.config().referLife())
}

func (r *ReferSubscription) newNotifyLocked(n refersub.Notify) (*draft.Request, error) {
	req, err := r.dialog.currentLocked().nextRequestLocked(sip.NOTIFY)
	if err != nil {
		return nil, err
	}
	req.AddHeader(r.event())
	req.Add("Subscription-State", n.State)
	putBody(req, NewBody(refersub.TypeFrag, n.Progress.Frag()))
	return req, nil
}

// event is the Event header of the subscription (RFC 3515 2.4.6).
func (r *ReferSubscription) event() sip.Header { return sip.NewHeader("Event", refersub.Event(r.ID)) }

// notifySent records the content of a NOTIFY that has left.
func (r *ReferSubscription) notifySent(n refersub.Notify) {
	r.dialog.mutex.Lock()
	if r.state.Report(n.Progress) {
		r.tellProgressLocked()
	}
	if n.Progress.IsFinal() {
		r.unfollowedLocked() // the application did it otherwise
	}
	if reason, ends := n.Ends(); ends {
		r.endLocked(r.lostLocked(reason, nil))
	}
	r.dialog.mutex.Unlock()
	r.dialog.forgetIfUnused()
}

// sentNotify is a NOTIFY that has left.
type sentNotify struct {
	// Set at construction.

	r        *ReferSubscription
	number   int
	answered func(error)

	// over is true once the NOTIFY has its response, or will get none.
	over atomic.Bool
}

// mayRepeatLocked returns an error for a NOTIFY that is out of date: it is not sent
// again.
func (n *sentNotify) mayRepeatLocked() error {
	if !n.r.notifier.IsLatest(n.number) {
		return ErrPending
	}
	return nil
}

// response handles the response to a NOTIFY. A failure that ends the subscription by RFC
// 5057 5.1 ends it. The new call continues (RFC 3515 2.4.4).
func (n *sentNotify) response(res *sipmsg.Message) {
	switch {
	case res.IsProvisional():
	case res.IsSuccess():
		n.ended(nil)
	default:
		err := newResponseError(sip.NOTIFY, res)
		if usage.EffectOf(sip.NOTIFY, res.Status) != usage.EndsNothing {
			n.r.drop(err)
		}
		n.ended(err)
		n.r.dialog.failed(nil, sip.NOTIFY, res.Status, res.Reason)
	}
}

// done ends the subscription when a NOTIFY gets no response (RFC 6665 4.2.2).
func (n *sentNotify) done(err error) {
	if err != nil {
		n.r.drop(callError(err))
		n.ended(callError(err))
	}
}

// ended lets the next NOTIFY leave.
func (n *sentNotify) ended(err error) {
	if !n.over.CompareAndSwap(false, true) {
		return
	}
	d := n.r.dialog
	d.mutex.Lock()
	n.r.notifier.Answered()
	if t := d.transfersLocked(); t.notifying > 0 { // dropSubscriptions counts no more
		t.notifying--
	}
	next := n.r.flusherLocked()
	d.mutex.Unlock()
	d.forgetIfUnused()
	n.answered(err)
	next()
}

// The NOTIFYs that wait: of one subscription one is unanswered at a time.

// queueNotify queues a NOTIFY and returns. It leaves when all before it have been
// answered, so that they arrive in order.
func (r *ReferSubscription) queueNotify(n refersub.Notify) {
	r.dialog.mutex.Lock()
	if !r.active || !r.notifier.Queue(n) {
		r.dialog.mutex.Unlock()
		return
	}
	start := r.flusherLocked()
	r.dialog.mutex.Unlock()
	start()
}

// flusherLocked returns a function that begins to flush, if a NOTIFY may leave now.
// Shutdown waits for it when the last NOTIFY is in the queue. It is called without
// locks.
func (r *ReferSubscription) flusherLocked() (start func()) {
	switch may := r.notifier.Begin(); {
	case may && r.notifier.IsClosing():
		return func() { r.dialog.finalGoodbye(r.flush) }
	case may:
		return func() { r.dialog.background(r.flush) }
	}
	return func() {}
}

// flushLast writes the last NOTIFY without waiting for the response to another, for
// which there is no time left.
func (r *ReferSubscription) flushLast() {
	r.dialog.mutex.Lock()
	last, found := r.notifier.TakeLast()
	r.dialog.mutex.Unlock()
	if found {
		r.dialog.finalGoodbye(func() { r.write(last) })
	}
}

// flush writes the first NOTIFY in the queue, and the next if that failed.
func (r *ReferSubscription) flush() {
	for more := true; more; {
		r.dialog.mutex.Lock()
		n, found := r.notifier.Next()
		r.dialog.mutex.Unlock()
		if !found {
			return // ended meanwhile
		}
		r.write(n)
		r.dialog.mutex.Lock()
		more = r.notifier.Written()
		r.dialog.mutex.Unlock()
	}
}

// write writes one NOTIFY of the queue. If the last cannot be written, the subscription
// still ends.
func (r *ReferSubscription) write(n refersub.Notify) {
	ctx, cancel := context.WithTimeout(r.dialog.baseContext(), r.dialog.config().txTimeout())
	defer cancel()
	err := r.notify(ctx, n, func(error) {})
	if err == nil {
		return
	}
	r.dialog.log().Debug("NOTIFY could not be sent", "error", err)
	if n.IsLast() {
		r.drop(err)
	}
}
