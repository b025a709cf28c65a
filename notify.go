package dialog

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// SendNotify reports the progress of a REFER we received to the peer (RFC 3515
// 2.4.4): 100 to 199 while the new call is under way, 200 to 699 for its
// outcome, which ends the subscription. It blocks until the NOTIFY is answered,
// at most TxTimeout.
//
// Errors: ErrInvalidArgument (status out of range), ErrNoSubscription (it has
// ended, or is one of a REFER we sent), *StateError, *ResponseError,
// ErrTimeout, ErrTransport, ctx's.
func (r *ReferSubscription) SendNotify(ctx context.Context, status int, reason string) error {
	if ctx == nil {
		return errNilContext("SendNotify")
	}
	if status < 100 || status > 699 {
		return fmt.Errorf("%w: status %d", ErrInvalidArgument, status)
	}
	if r == nil || r.dialog == nil || r.sent {
		return ErrNoSubscription
	}
	final, err := r.sendNotify(ctx, Progress{status, oneLine(reason)}, "")
	if err != nil {
		return err
	}
	select {
	case err := <-final:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendNotify writes a NOTIFY and returns where its outcome will be. An empty
// state is the one that fits the progress.
func (r *ReferSubscription) sendNotify(ctx context.Context, progress Progress, state string) (<-chan error, error) {
	d := r.dialog
	if err := d.lockInTurn(ctx, "SendNotify"); err != nil {
		return nil, err
	}
	defer d.turn.release()
	if !r.active {
		d.mutex.Unlock()
		return nil, ErrNoSubscription
	}
	if state == "" {
		state = r.stateLocked(progress)
	}
	req := r.newNotifyLocked(progress, state)
	opt := d.optionsLocked()
	d.mutex.Unlock()

	final := make(chan error, 1)
	x, err := d.exchange(opt, nil)
	if err == nil {
		x.response = func(res *sip.Response) { r.notifyResponse(res, final) }
		x.done = func(err error) { r.notifyDone(err, final) }
		err = x.send(ctx, req)
	}
	if err != nil {
		return nil, fmt.Errorf("dialog: notify: %w", err)
	}
	r.reported(progress, state)
	return final, nil
}

// stateLocked is the Subscription-State that goes with a progress (RFC 3515
// 2.4.7, RFC 6665 4.2.2).
func (r *ReferSubscription) stateLocked(progress Progress) string {
	if progress.Status >= 200 {
		return "terminated;reason=noresource"
	}
	left := referLife
	if !r.until.IsZero() {
		left = max(time.Until(r.until), 0)
	}
	return "active;expires=" + strconv.Itoa(int(left.Seconds()))
}

func (r *ReferSubscription) newNotifyLocked(progress Progress, state string) *sip.Request {
	req := r.dialog.nextRequestLocked(sip.NOTIFY)
	number, _, _ := strings.Cut(r.ID, " ")
	req.AppendHeader(sip.NewHeader("Event", "refer;id="+number))
	req.AppendHeader(sip.NewHeader("Subscription-State", state))
	line := fmt.Sprintf("SIP/2.0 %d %s\r\n", progress.Status, progress.Reason)
	setBody(req, NewBody(typeSIPFrag, []byte(line)))
	return req
}

// reported notes what a NOTIFY that left has said.
func (r *ReferSubscription) reported(progress Progress, state string) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	r.status = progress
	if strings.HasPrefix(state, "terminated") {
		r.endLocked()
	}
}

// notifyResponse takes the answer to a NOTIFY: a failure that RFC 5057 5.1
// counts against the subscription ends it.
func (r *ReferSubscription) notifyResponse(res *sip.Response, final chan<- error) {
	if res.IsProvisional() {
		return
	}
	if res.IsSuccess() {
		final <- nil
		return
	}
	if effectOf(sip.NOTIFY, res.StatusCode) != endsNothing {
		r.dialog.mutex.Lock()
		r.endLocked()
		r.dialog.mutex.Unlock()
	}
	r.dialog.failed(sip.NOTIFY, res.StatusCode, res.Reason)
	final <- newResponseError(sip.NOTIFY, res)
}

// notifyDone ends the subscription of a NOTIFY that nobody answers (RFC 6665
// 4.2.2).
func (r *ReferSubscription) notifyDone(err error, final chan<- error) {
	if err == nil {
		return
	}
	r.dialog.mutex.Lock()
	r.endLocked()
	r.dialog.mutex.Unlock()
	final <- callError(err)
}

// handleNotify takes the peer's report on a REFER of ours (RFC 3515 2.4.5).
func (d *Dialog) handleNotify(tx serverTx, req *sip.Request) {
	_, params, _ := strings.Cut(headerValue(req, "Event"), ";")
	if !d.takeNotify(eventID(params), req) {
		d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
		return
	}
	d.stack.answerWith(tx, sip.StatusOK)
}

// isReferEvent reports whether a NOTIFY is about a REFER.
func isReferEvent(req *sip.Request) bool {
	event, _, _ := strings.Cut(headerValue(req, "Event"), ";")
	return strings.EqualFold(strings.TrimSpace(event), "refer")
}

// eventID returns the id parameter of an Event header.
func eventID(params string) string {
	for _, param := range strings.Split(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "id") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// takeNotify notes what a NOTIFY says, and reports whether it belongs to a
// REFER of ours. It may come before the 202 (RFC 3515 2.4.4).
func (d *Dialog) takeNotify(id string, req *sip.Request) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	r := d.sentReferLocked(id)
	if r == nil {
		return false
	}
	if progress, ok := sipfrag(req.Body()); ok {
		r.status = progress
	}
	state, params, _ := strings.Cut(headerValue(req, "Subscription-State"), ";")
	if strings.EqualFold(strings.TrimSpace(state), "terminated") {
		r.answeredLocked(nil)
		r.endLocked()
		return true
	}
	r.activateLocked(lifeOf(params))
	return true
}

// sentReferLocked finds the REFER with that CSeq number. Without an id it is
// the first one (RFC 3515 2.4.6).
func (d *Dialog) sentReferLocked(id string) *ReferSubscription {
	if id != "" {
		return d.sentRefers[id+" REFER"]
	}
	if len(d.sentRefers) == 1 {
		for _, r := range d.sentRefers {
			return r
		}
	}
	return nil
}

// lifeOf reads the expires parameter of a Subscription-State.
func lifeOf(params string) time.Duration {
	for _, param := range strings.Split(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		seconds, err := strconv.Atoi(strings.TrimSpace(value))
		if strings.EqualFold(strings.TrimSpace(name), "expires") && err == nil && seconds > 0 {
			return min(time.Duration(seconds)*time.Second, maxReferLife)
		}
	}
	return referLife
}

// maxReferLife bounds what a peer may ask for.
const maxReferLife = time.Hour

// sipfrag reads the status line that the body of a refer NOTIFY begins with
// (RFC 3515 2.4.5, RFC 3420).
func sipfrag(body []byte) (Progress, bool) {
	line, _, _ := strings.Cut(string(body), "\n")
	version, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !strings.EqualFold(version, "SIP/2.0") || err != nil || status < 100 || status > 699 {
		return Progress{}, false
	}
	return Progress{status, strings.TrimSpace(reason)}, true
}
