package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// SUBSCRIBE inside a call, for the subscription of a REFER: the subscriber
// prolongs it, or ends it (RFC 3515 2.4.4, RFC 6665 4.1.2.2, 4.1.2.3).

// handleSubscribe takes the peer's SUBSCRIBE for a REFER that we received.
func (d *Dialog) handleSubscribe(tx serverTx, req *sipmsg.Message) {
	life, ok := expiresOf(req, d.config().referLife())
	d.mutex.Lock()
	r := numberedLocked(d.referSubscriptions, eventID(req))
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
	now := pendingNotify{}
	if life == 0 {
		now.state = stateTimeout // RFC 6665 4.2.1.4
	}
	r.queueNotify(now)
}

// expiresOf reads how long a SUBSCRIBE wants the subscription to last, which is never
// exceeded (RFC 6665 4.2.1.1). ok is false when it cannot be read.
func expiresOf(req *sipmsg.Message, most time.Duration) (life time.Duration, ok bool) {
	value := headerValue(req, "Expires")
	if value == "" {
		return most, true
	}
	life, ok = sipmsg.Seconds(value)
	return min(life, most), ok
}

func expires(life time.Duration) sip.Header {
	return sip.NewHeader("Expires", sipmsg.FormatSeconds(life))
}

// refreshInTimeLocked arms the timer that refreshes a subscription of ours while a Wait
// is running: the duration of a transaction before its expiry, or after half of its
// time.
func (r *ReferSubscription) refreshInTimeLocked() {
	if !r.sent || !r.active || r.lingers || r.waiters == 0 || r.isDecidedLocked() {
		return
	}
	left := time.Until(r.until)
	wait := max(left-min(left/2, 64*r.dialog.config().timers().T1), 0)
	if r.refresh == nil {
		r.refresh = r.dialog.after(wait, func() { r.dialog.background(r.prolong) })
		return
	}
	r.refresh.Reset(wait)
}

// prolong sends a SUBSCRIBE, unless one is pending.
func (r *ReferSubscription) prolong() {
	d := r.dialog
	d.mutex.Lock()
	skip := r.refreshing || r.lingers || r.waiters == 0 || r.isDecidedLocked()
	r.refreshing = r.refreshing || !skip
	d.mutex.Unlock()
	if skip {
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
	req := d.currentLocked().nextRequestLocked(sip.SUBSCRIBE)
	req.AppendHeader(r.event())
	req.AppendHeader(expires(life))
	req.AppendHeader(sip.NewHeader("Accept", mediaType(typeSIPFrag)))
	opt, e := d.currentLocked().optionsLocked(), d.currentForkLocked()
	d.mutex.Unlock()

	x, err := d.newClientRequest(e, opt, r.mayRequestLocked)
	if err != nil {
		return err
	}
	x.response = func(res *sip.Response) { r.subscribeResponse(res, life) }
	x.done = r.subscribeDone
	return x.send(ctx, req)
}

// subscribeResponse takes the response to a refresh. A failure that RFC 6665 4.1.2.2
// counts against the subscription ends it; after any other it lasts as long as before.
func (r *ReferSubscription) subscribeResponse(res *sip.Response, asked time.Duration) {
	switch {
	case res.IsProvisional():
		return
	case res.IsSuccess():
		r.refreshed(lifeOf(headerValue(res, "Expires"), asked))
		return
	}
	if effectOf(sip.SUBSCRIBE, res.StatusCode) != endsNothing {
		r.drop(newResponseError(sip.SUBSCRIBE, res))
	}
	r.refreshed(0)
	r.dialog.failed(nil, sip.SUBSCRIBE, res.StatusCode, res.Reason)
}

// subscribeDone ends the subscription when a refresh gets no response (RFC 5057 5.2).
func (r *ReferSubscription) subscribeDone(err error) {
	if err != nil {
		r.drop(callError(err))
		r.refreshed(0)
	}
}

// refreshed notes the result of a refresh; zero: none.
func (r *ReferSubscription) refreshed(life time.Duration) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.refreshing = false
	if life > 0 && !r.over {
		r.activateLocked(life)
	}
}
