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
	"sipdialog.example/dialog/internal/usage"
)

// handleSubscriptions handles a NOTIFY or SUBSCRIBE that belongs to the subscription of a
// REFER rather than to the session (RFC 5057 5.3), and reports whether it did. It does so
// also after the end of the session.
func (d *Dialog) handleSubscriptions(tx serverTx, req *sipmsg.Message) bool {
	if !isReferEvent(req) || !usage.OfSubscription(req.Method) {
		return false
	}
	isNotify := req.Method == sip.NOTIFY
	r := d.subscriptionFor(sipheader.Value(req, "Event"), isNotify)
	if r == nil {
		d.replyWith(tx, refersub.Stray(req.Method, d.isMortal()))
		return true
	}
	var reply refersub.Reply
	effects := r.change(func(s *refersub.Step) {
		if isNotify {
			reply = r.state.Notified(s, refersub.Read(req))
		} else {
			reply = r.state.Subscribed(s, sipheader.Value(req, "Expires"))
		}
	})
	d.replyWith(tx, reply)
	r.perform(effects)
	return true
}

func (d *Dialog) replyWith(tx serverTx, reply refersub.Reply) {
	var headers []sip.Header
	if reply.HasContact {
		headers = append(headers, d.contactTo(tx))
	}
	if reply.Header != nil {
		headers = append(headers, reply.Header)
	}
	d.stack.answerWith(tx, reply.Status, headers...)
}

// isReferEvent reports whether the event of a request is refer.
func isReferEvent(req *sipmsg.Message) bool { return refersub.IsRefer(sipheader.Value(req, "Event")) }

// allowEvents lists the event that we know (RFC 6665 4.4.4).
func allowEvents() sip.Header { return sip.NewHeader("Allow-Events", "refer") }

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

// transferError is the error of Wait for a subscription without an outcome; nil for one
// that has it.
func transferError(failure error) error {
	var lost *refersub.Lost
	if !errors.As(failure, &lost) {
		return failure
	}
	e := &TransferError{Last: Progress(lost.Last), Reason: sipheader.OneLine(lost.Reason), RetryAfter: lost.RetryAfter, Err: lost.Err}
	switch lost.Err {
	case refersub.ErrTimeout:
		e.Err = ErrTimeout
	case refersub.ErrNone:
		e.Err = ErrNoSubscription
	}
	return e
}

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
	r.changeLocked(r.state.Wait)
	return r.decided.OpenIf(r.state.IsDecided()).C()
}

// result counts one waiter less, and returns the result of Wait.
func (r *ReferSubscription) result(ctx context.Context) (Progress, error) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.changeLocked(r.state.Waited)
	last := Progress(r.state.Progress())
	if !r.state.IsDecided() {
		return last, ctx.Err()
	}
	return last, r.failure // nil for an outcome
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
func (r *ReferSubscription) tellProgressLocked(news refersub.Progress) {
	calls := make([]func(), len(r.callbacks))
	for i, callback := range r.callbacks {
		calls[i] = func() { callback(Progress(news)) }
	}
	if news.IsFinal() {
		r.mailbox.Push(calls...)
		return
	}
	if len(calls) > 0 && !r.mailbox.Offer(calls...) && r.dialog.stack != nil {
		r.dialog.stack.counters.progress.Add(1)
	}
}
