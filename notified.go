package dialog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The NOTIFYs that arrive, for REFERs we sent.

// handleSubscriptions handles a request that belongs to the subscription of a REFER
// rather than to the session (RFC 5057 5.3), and reports whether it did. It does so
// also after the end of the session.
func (d *Dialog) handleSubscriptions(tx serverTx, req *sipmsg.Message) bool {
	switch {
	case !isReferEvent(req):
		return false
	case req.Method == sip.NOTIFY:
		d.handleNotify(tx, req)
	case req.Method == sip.SUBSCRIBE:
		d.handleSubscribe(tx, req)
	default:
		return false
	}
	return true
}

// isReferEvent reports whether the event of a request is refer.
func isReferEvent(req *sipmsg.Message) bool { return refersub.IsRefer(sipheader.Value(req, "Event")) }

// allowEvents lists the event that we know (RFC 6665 4.4.4).
func allowEvents() sip.Header { return sip.NewHeader("Allow-Events", "refer") }

// handleNotify handles the peer's NOTIFY for a REFER of ours (RFC 3515 2.4.5).
func (d *Dialog) handleNotify(tx serverTx, req *sipmsg.Message) {
	switch code := d.takeNotify(req); code {
	case sip.StatusUnsupportedMediaType:
		d.stack.answerWith(tx, code, sip.NewHeader("Accept", sipmsg.Bare(refersub.TypeFrag)))
	case sip.StatusOK:
		d.stack.answerWith(tx, code, d.contactTo(tx)) // it may make the dialog (RFC 6665 4.4.1)
	default:
		d.stack.answerWith(tx, code)
	}
	d.forgetIfUnused()
}

// takeNotify handles a NOTIFY and returns the status of its response. It may come before
// the 202 (RFC 3515 2.4.4), and after the end of the call. Without a readable body it
// reports no progress, but the state of the subscription counts.
func (d *Dialog) takeNotify(req *sipmsg.Message) int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	r := refersub.Named(d.sentRefersLocked(), sipheader.Value(req, "Event"), isFirst)
	if r == nil {
		return sip.StatusCallTransactionDoesNotExists // RFC 6665 4.1.3
	}
	n := refersub.Read(sipheader.Value(req, "Subscription-State"), sipheader.Value(req, "Content-Type"), req.Body())
	if refusal := n.Refusal(); refusal != 0 {
		return refusal
	}
	isNews, effect := r.state.Receive(time.Now(), n, d.config().referLife(), d.transactionTime())
	if isNews {
		r.tellProgressLocked()
	}
	if effect == refersub.Ends {
		r.answeredLocked(nil)
		r.endLocked(r.terminatedLocked(n))
	} else {
		r.armLocked()
	}
	return sip.StatusOK
}

// terminatedLocked is the error for the last NOTIFY of a subscription without an
// outcome (RFC 6665 4.1.3).
func (r *ReferSubscription) terminatedLocked(n refersub.Received) *TransferError {
	reason, retryAfter := n.Reason()
	e := r.lostLocked(sipheader.OneLine(reason), nil)
	if e.Reason == "timeout" {
		e.Err = ErrTimeout
	}
	e.RetryAfter = retryAfter
	return e
}

func isFirst(r *ReferSubscription) bool { return r.first }

// Progress is a status line of the transferred call (RFC 3515 2.4.5); zero before the
// first.
type Progress struct {
	Status int
	Reason string
}

// TransferError is the error for a transfer whose outcome will not be known. errors.Is
// holds for it with ErrNoOutcome, and with every error that Err matches.
type TransferError struct {
	// Last is the last progress that was reported; zero: none.
	Last Progress
	// Reason is the reason in the NOTIFY that ended the subscription without an outcome,
	// such as "noresource" or "rejected" (RFC 6665 4.1.3); empty if it has none.
	// RetryAfter is the NOTIFY's delay before another attempt.
	Reason     string
	RetryAfter time.Duration
	// Err is the error that ended the subscription: ErrTimeout (it expired, or the peer
	// did not respond), ErrTerminated (closed), ErrShutdown, ErrNoSubscription (the peer
	// agreed to none), ErrMaxDialogs (the call ended, and other ended calls had used up
	// Limits.SubscribedCalls), a *ResponseError (a request of the dialog got a final
	// response that ends it), or nil (a NOTIFY).
	Err error
}

// Error returns the reason for the end of the subscription, and the last progress.
func (e *TransferError) Error() string {
	text := ErrNoOutcome.Error()
	if e.Last.Status != 0 {
		text += fmt.Sprintf(", last %d %s", e.Last.Status, e.Last.Reason)
	}
	if e.Reason != "" {
		text += ", reason " + e.Reason
	}
	if e.Err != nil {
		text += ": " + errtext.Bare(e.Err)
	}
	return text
}

// Is makes errors.Is hold for ErrNoOutcome.
func (e *TransferError) Is(target error) bool { return target == ErrNoOutcome }

// Unwrap returns Err.
func (e *TransferError) Unwrap() error { return e.Err }

// Status returns the last progress: sent by us for a REFER that we received, by the
// peer for a REFER of ours. From 200 on it does not change.
func (r *ReferSubscription) Status() Progress {
	if r == nil || r.dialog == nil {
		return Progress{}
	}
	r.dialog.mutex.RLock()
	defer r.dialog.mutex.RUnlock()
	return Progress(r.state.Progress())
}

// Wait waits for the outcome of a REFER: the first final status, 200 to 699, in a
// NOTIFY. A transfer that failed is an outcome too: its error is nil. While a Wait for
// a REFER of ours is running, the subscription is refreshed before it expires. A second
// call, or a later one, returns the same. With an error Wait also returns the last
// progress.
//
// Errors: *TransferError (there will be no outcome), *ResponseError (the REFER was
// refused), ErrTimeout or ErrTransport (it got no response), ErrNoSubscription (not a
// subscription of a dialog), ErrInvalidArgument, that of ctx.
func (r *ReferSubscription) Wait(ctx context.Context) (result Progress, err error) {
	defer naming("Wait", &err)
	if ctx == nil {
		return Progress{}, errNilContext("Wait")
	}
	if r == nil || r.dialog == nil {
		return Progress{}, ErrNoSubscription
	}
	select {
	case <-r.waiting():
	case <-ctx.Done():
	}
	return r.result(ctx)
}

// waiting counts one more waiter, and returns a channel that is closed when the result
// of Wait is known.
func (r *ReferSubscription) waiting() <-chan struct{} {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.state.Wait()
	r.refreshInTimeLocked()
	return r.decided.OpenIf(r.state.IsDecided()).C()
}

// result counts one waiter less, and returns the result of Wait.
func (r *ReferSubscription) result(ctx context.Context) (Progress, error) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.state.Waited()
	r.refreshInTimeLocked()
	last := Progress(r.state.Progress())
	if !r.state.IsDecided() {
		return last, ctx.Err()
	}
	return last, r.state.Failure() // nil for an outcome
}

// OnProgress registers a callback for the progress: the last one at once, if there is
// one, then each that differs from the one before, in order, one at a time, with no
// lock held. A final status, 200 to 699, is the last. A subscription that ends without
// one is reported by Done and Wait only. A nil callback is ignored. It never blocks.
func (r *ReferSubscription) OnProgress(callback func(Progress)) {
	if r == nil || r.dialog == nil || callback == nil {
		return
	}
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if last := Progress(r.state.Progress()); last.Status != 0 {
		r.mailbox.Push(func() { callback(last) })
	}
	r.callbacks = append(r.callbacks, callback)
}

// tellProgressLocked reports new progress.
func (r *ReferSubscription) tellProgressLocked() {
	p := Progress(r.state.Progress())
	calls := make([]func(), len(r.callbacks))
	for i, callback := range r.callbacks {
		calls[i] = func() { callback(p) }
	}
	if r.state.IsDecided() {
		r.mailbox.Push(calls...)
		r.decided.Open()
		return
	}
	if len(calls) > 0 && !r.mailbox.Offer(calls...) && r.dialog.stack != nil {
		r.dialog.stack.counters.progress.Add(1)
	}
}

// failLocked records that there will be no outcome, unless there is one.
func (r *ReferSubscription) failLocked(cause error) {
	if r.state.IsDecided() {
		return
	}
	if lost := (*TransferError)(nil); !errors.As(cause, &lost) {
		cause = r.lostLocked("", cause)
	}
	r.state.Fail(cause)
	r.decided.Open()
}

// lostLocked is the error of a subscription that ends without an outcome.
func (r *ReferSubscription) lostLocked(reason string, err error) *TransferError {
	return &TransferError{Last: Progress(r.state.Progress()), Reason: reason, Err: err}
}
