package dialog

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Progress is a status line of the transferred call (RFC 3515 2.4.5); zero before the
// first.
type Progress struct {
	Status int
	Reason string
}

// final reports whether a status is an outcome.
func (p Progress) final() bool { return p.Status >= 200 }

// TransferError says why the outcome of a transfer will not be known. errors.Is holds
// for it with ErrNoOutcome, and with every error that Err matches.
type TransferError struct {
	// Last is the last progress that was reported; zero: none.
	Last Progress
	// Reason is that of the NOTIFY that ended the subscription without an outcome, such
	// as "noresource" or "rejected" (RFC 6665 4.1.3); empty without one. RetryAfter is
	// its delay before another try.
	Reason     string
	RetryAfter time.Duration
	// Err is what ended the subscription: ErrTimeout (it expired, or the peer
	// has not answered), ErrTerminated (closed), ErrShutdown, ErrNoSubscription
	// (the peer granted that there is none), ErrMaxDialogs (the call ended, and
	// Limits.SubscribedCalls were left of others), a *ResponseError (a request of the
	// dialog's got a final answer that ends it), or nil (a NOTIFY).
	Err error
}

// Error says what ended the subscription, and the last progress.
func (e *TransferError) Error() string {
	text := ErrNoOutcome.Error()
	if e.Last.Status != 0 {
		text += fmt.Sprintf(", last %d %s", e.Last.Status, e.Last.Reason)
	}
	if e.Reason != "" {
		text += ", reason " + e.Reason
	}
	if e.Err != nil {
		text += ": " + unprefixed(e.Err)
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
	return r.status
}

// Wait waits for the outcome of a REFER: the first final status, 200 to 699, in a
// NOTIFY. A transfer that failed is an outcome too: its error is nil. While a Wait for
// a REFER of ours is running, the subscription is refreshed before it expires. A second
// call, or a later one, returns the same. An error comes with the last progress.
//
// Errors: *TransferError (there will be no outcome), *ResponseError (the REFER was
// refused), ErrTimeout or ErrTransport (it got no response), ErrNoSubscription (not a
// subscription of a dialog), ErrInvalidArgument, ctx's.
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
	r.waiters++
	r.refreshInTimeLocked()
	return r.decided.OpenIf(r.isDecidedLocked()).C()
}

// result counts one waiter less, and returns the result of Wait.
func (r *ReferSubscription) result(ctx context.Context) (Progress, error) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if r.waiters--; r.waiters == 0 {
		stopTimer(r.refresh)
	}
	switch {
	case r.status.final():
		return r.status, nil
	case r.failure != nil:
		return r.status, r.failure
	default:
		return r.status, ctx.Err()
	}
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
	if last := r.status; last.Status != 0 {
		r.mailbox.Push(func() { callback(last) })
	}
	r.callbacks = append(r.callbacks, callback)
}

// progressedLocked takes the progress of a NOTIFY. After an outcome it does nothing.
func (r *ReferSubscription) progressedLocked(p Progress) {
	if p == r.status || r.isDecidedLocked() {
		return
	}
	r.status = p
	calls := make([]func(), len(r.callbacks))
	for i, callback := range r.callbacks {
		calls[i] = func() { callback(p) }
	}
	if p.final() {
		r.mailbox.Push(calls...)
		r.decided.Open()
		return
	}
	if len(calls) > 0 && !r.mailbox.Offer(calls...) && r.dialog.stack != nil {
		r.dialog.stack.counters.progress.Add(1)
	}
}

// failLocked notes that there will be no outcome, unless there is one.
func (r *ReferSubscription) failLocked(cause error) {
	if r.isDecidedLocked() {
		return
	}
	if lost := (*TransferError)(nil); !errors.As(cause, &lost) {
		cause = r.lostLocked("", cause)
	}
	r.failure = cause
	r.decided.Open()
}

// lostLocked is the error of a subscription that ends without an outcome.
func (r *ReferSubscription) lostLocked(reason string, err error) *TransferError {
	return &TransferError{Last: r.status, Reason: reason, Err: err}
}

func (r *ReferSubscription) isDecidedLocked() bool { return r.status.final() || r.failure != nil }
