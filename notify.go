package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The requests of a subscription that we send: NOTIFYs for REFERs we received, SUBSCRIBEs
// for REFERs we sent.

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
	over := make(chan error, 1)
	if err := r.notify(ctx, refersub.Notify{Progress: refersub.Progress{Status: status, Reason: reason}}, over); err != nil {
		return err
	}
	select {
	case err := <-over:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notify writes a NOTIFY and returns. Unless it returns an error, over, unless nil, gets
// the outcome.
func (r *ReferSubscription) notify(ctx context.Context, n refersub.Notify, over chan<- error) error {
	number := 0
	err := r.send(ctx, sip.NOTIFY, subscriptionRequest{
		fillLocked: func(req *draft.Request) {
			now := r.newStep()
			n, number = r.state.Leave(&now, n)
			r.dialog.transfersLocked().Notifies()
			n.Write(req, r.ID)
		},
		mayRepeatLocked: func() error {
			if !r.state.IsLatest(number) {
				return ErrPending // out of date
			}
			return nil
		},
		over:      func(_ *sipmsg.Message, f refersub.Failure) { r.notifyOver(number, f, over) },
		overtaken: n.Retry,
	})
	if err != nil {
		r.notifyOver(number, refersub.Failure{Err: err, Unsent: true}, nil)
		return err
	}
	r.step(func(s *refersub.Step) { r.state.Left(s, n) })
	return nil
}

// notifyOver lets the next NOTIFY leave. The new call continues whatever the response is
// (RFC 3515 2.4.4).
func (r *ReferSubscription) notifyOver(number int, f refersub.Failure, over chan<- error) {
	isFirst := false
	r.step(func(s *refersub.Step) { isFirst = r.state.NotifyOver(s, number, f) })
	if isFirst && over != nil {
		over <- f.Err
	}
}

// writeQueued writes one NOTIFY of the queue.
func (r *ReferSubscription) writeQueued(n refersub.Notify) {
	ctx, cancel := context.WithTimeout(r.dialog.baseContext(), r.dialog.config().txTimeout())
	defer cancel()
	err := r.notify(ctx, n, nil)
	if err != nil {
		r.dialog.log().Debug("NOTIFY could not be sent", "error", err)
	}
	r.step(func(s *refersub.Step) { r.state.Written(s, n, err) })
}

// subscribe sends a SUBSCRIBE that prolongs the subscription.
func (r *ReferSubscription) subscribe(life time.Duration) {
	ctx, cancel := context.WithTimeout(r.dialog.baseContext(), r.dialog.config().txTimeout())
	defer cancel()
	over := func(res *sipmsg.Message, f refersub.Failure) {
		expires := ""
		if res != nil {
			expires = sipheader.Value(res, "Expires")
		}
		r.step(func(s *refersub.Step) { r.state.Refreshed(s, expires, f) })
	}
	err := r.send(ctx, sip.SUBSCRIBE, subscriptionRequest{
		fillLocked:      func(req *draft.Request) { refersub.WriteSubscribe(req, r.ID, life) },
		mayRepeatLocked: r.mayRequestLocked, over: over,
	})
	if err != nil {
		r.dialog.log().Debug("SUBSCRIBE could not be sent", "error", err)
		over(nil, refersub.Failure{Err: err, Unsent: true})
	}
}

// subscriptionRequest is what a request of a subscription has of its own.
type subscriptionRequest struct {
	// fillLocked adds its headers. mayRepeatLocked forbids that it is sent again.
	fillLocked      func(*draft.Request)
	mayRepeatLocked func() error
	// over gets the outcome: the 2xx, or the failure.
	over func(*sipmsg.Message, refersub.Failure)
	// overtaken is true when it is sent again after a 500.
	overtaken bool
}

// send writes a request of the subscription in its dialog.
func (r *ReferSubscription) send(ctx context.Context, method sip.RequestMethod, m subscriptionRequest) error {
	d := r.dialog
	if err := r.lockToSend(ctx, string(method)); err != nil {
		return err
	}
	defer d.sendSlot.Release()
	s := d.currentLocked()
	req, err := s.nextRequestLocked(method)
	if err != nil {
		d.mutex.Unlock()
		return err
	}
	m.fillLocked(req)
	return s.unlockAndSend(ctx, req, d.currentForkLocked(), m.mayRepeatLocked, func(x *retry.Request) {
		x.Overtaken = m.overtaken
		d.observe(x, method, m.over)
	})
}

// observe reports the outcome of a request of a subscription: first to over, then to what
// else of the dialog a failure ends (RFC 5057 5.1).
func (d *Dialog) observe(x *retry.Request, method sip.RequestMethod, over func(*sipmsg.Message, refersub.Failure)) {
	x.OnResponse = func(res *sipmsg.Message) {
		switch {
		case res.IsProvisional():
		case res.IsSuccess():
			over(res, refersub.Failure{})
		default:
			over(nil, refersub.Failure{Status: res.Status, Err: newResponseError(method, res)})
			d.failed(nil, method, res.Status, res.Reason)
		}
	}
	x.OnDone = func(err error) {
		if err != nil {
			over(nil, refersub.Failure{Err: callError(err)})
			d.unanswered(nil, method, err)
		}
	}
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
	case !r.state.MaySend():
		return ErrNoSubscription
	case r.dialog.currentLocked().RemoteTag() == "" && r.dialog.state <= DialogStateTrying:
		return ErrState // no dialog yet to send it in (RFC 3261 12.1.2)
	case r.dialog.earlyDialogsEndedLocked():
		return ErrTerminated // it would overtake the BYE that releases a fork
	}
	return nil
}
