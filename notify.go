package dialog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// The NOTIFYs we send, for REFERs we received.

// pendingNotify is the content of a NOTIFY. An empty state is the one that goes with
// the progress; no progress is the last one.
type pendingNotify struct {
	progress Progress
	state    string
	// retry is true when the NOTIFY is sent again after a 500, unless a later one has
	// left meanwhile: it may have been overtaken.
	retry bool
}

// The ends of a Subscription-State (RFC 3515 2.4.7, RFC 6665 4.2.2).
const (
	stateNoResource = "terminated;reason=noresource"
	stateTimeout    = "terminated;reason=timeout"
)

// isLast reports whether the NOTIFY ends the subscription.
func (n pendingNotify) isLast() bool { return n.progress.final() || n.state != "" }

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
	if r == nil || r.dialog == nil || r.sent {
		return ErrNoSubscription
	}
	if r.dialog.awaitsOurACK() {
		return ErrPending
	}
	answered := make(chan error, 1)
	err = r.notify(ctx, pendingNotify{progress: Progress{status, reason}}, func(err error) { answered <- err })
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
func (r *ReferSubscription) notify(ctx context.Context, n pendingNotify, answered func(error)) error {
	d := r.dialog
	if err := r.lockToSend(ctx, "SendNotify"); err != nil {
		return err
	}
	defer d.sendSlot.Release()
	if n.progress == (Progress{}) {
		n.progress = r.status
	}
	if n.state == "" {
		n.state = r.stateLocked(n.progress)
	}
	req := r.newNotifyLocked(n)
	r.latest++
	sent := &sentNotify{r: r, number: r.latest, answered: answered}
	r.unanswered++
	d.transfersLocked().notifying++
	err := d.currentLocked().unlockAndSend(ctx, req, d.currentForkLocked(), sent.mayRepeatLocked, func(x *clientRequest) {
		x.overtaken, x.response, x.done = n.retry, sent.response, sent.done
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

// stateLocked is the Subscription-State that goes with a progress (RFC 3515
// 2.4.7, RFC 6665 4.2.2).
func (r *ReferSubscription) stateLocked(progress Progress) string {
	if progress.final() {
		return stateNoResource
	}
	left := r.dialog.config().referLife()
	if !r.until.IsZero() {
		left = max(time.Until(r.until), 0)
	}
	return "active;expires=" + strconv.Itoa(int(left.Seconds()))
}

func (r *ReferSubscription) newNotifyLocked(n pendingNotify) *sip.Request {
	req := r.dialog.currentLocked().nextRequestLocked(sip.NOTIFY)
	req.AppendHeader(r.event())
	req.AppendHeader(sip.NewHeader("Subscription-State", n.state))
	line := fmt.Sprintf("SIP/2.0 %d %s\r\n", n.progress.Status, n.progress.Reason)
	setBody(req, NewBody(typeSIPFrag, []byte(line)))
	return req
}

// event is the Event header of the subscription (RFC 3515 2.4.6).
func (r *ReferSubscription) event() sip.Header {
	number, _, _ := strings.Cut(r.ID, " ")
	return sip.NewHeader("Event", "refer;id="+number)
}

// notifySent records the content of a NOTIFY that has left.
func (r *ReferSubscription) notifySent(n pendingNotify) {
	r.dialog.mutex.Lock()
	r.progressedLocked(n.progress)
	if n.progress.final() {
		r.unfollowedLocked() // the application did it otherwise
	}
	if reason, ended := strings.CutPrefix(n.state, "terminated;reason="); ended {
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
	if n.r.latest != n.number {
		return ErrPending
	}
	return nil
}

// response handles the response to a NOTIFY. A failure that ends the subscription by RFC
// 5057 5.1 ends it. The new call continues (RFC 3515 2.4.4).
func (n *sentNotify) response(res *sip.Response) {
	switch {
	case res.IsProvisional():
	case res.IsSuccess():
		n.ended(nil)
	default:
		err := newResponseError(sip.NOTIFY, res)
		if effectOf(sip.NOTIFY, res.StatusCode) != endsNothing {
			n.r.drop(err)
		}
		n.ended(err)
		n.r.dialog.failed(nil, sip.NOTIFY, res.StatusCode, res.Reason)
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
	n.r.unanswered--
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

// maxPendingNotifies bounds the NOTIFYs in the queue; beyond it the newest progress
// replaces the last.
const maxPendingNotifies = 32

// queueNotify queues a NOTIFY and returns. It leaves when all before it have been
// answered, so that they arrive in order.
func (r *ReferSubscription) queueNotify(n pendingNotify) {
	r.dialog.mutex.Lock()
	if !r.active || r.closing {
		r.dialog.mutex.Unlock()
		return
	}
	r.closing, n.retry = n.isLast(), true
	if len(r.queue) >= maxPendingNotifies {
		r.queue = r.queue[:maxPendingNotifies-1]
	}
	r.queue = append(r.queue, n)
	start := r.flusherLocked()
	r.dialog.mutex.Unlock()
	start()
}

// flusherLocked returns a function that begins to flush, if a NOTIFY may leave now.
// Shutdown waits for it when the last NOTIFY is in the queue. It is called without
// locks.
func (r *ReferSubscription) flusherLocked() (start func()) {
	switch may := r.mayFlushLocked(); {
	case may && r.closing:
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
	var waiting []pendingNotify
	if r.closing {
		waiting, r.queue = r.queue, nil
	}
	r.dialog.mutex.Unlock()
	if len(waiting) > 0 {
		r.dialog.finalGoodbye(func() { r.write(waiting[len(waiting)-1]) })
	}
}

// mayFlushLocked reports whether a NOTIFY may leave now; the caller then calls flush.
func (r *ReferSubscription) mayFlushLocked() bool {
	may := len(r.queue) > 0 && r.unanswered == 0 && !r.flushing
	r.flushing = r.flushing || may
	return may
}

// flush writes the first NOTIFY in the queue, and the next if that failed.
func (r *ReferSubscription) flush() {
	for more := true; more; {
		r.dialog.mutex.Lock()
		if len(r.queue) == 0 {
			r.flushing = false
			r.dialog.mutex.Unlock()
			return // ended meanwhile
		}
		n := r.queue[0]
		r.queue = r.queue[1:]
		r.dialog.mutex.Unlock()
		r.write(n)
		r.dialog.mutex.Lock()
		r.flushing = false
		more = r.mayFlushLocked()
		r.dialog.mutex.Unlock()
	}
}

// write writes one NOTIFY of the queue. If the last cannot be written, the subscription
// still ends.
func (r *ReferSubscription) write(n pendingNotify) {
	ctx, cancel := context.WithTimeout(r.dialog.baseContext(), r.dialog.config().txTimeout())
	defer cancel()
	err := r.notify(ctx, n, func(error) {})
	if err == nil {
		return
	}
	r.dialog.log().Debug("NOTIFY could not be sent", "error", err)
	if n.isLast() {
		r.drop(err)
	}
}
