package dialog

import (
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// The NOTIFYs that arrive, for REFERs we sent.

// handleSubscriptions takes a request that belongs to the subscription of a REFER
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
func isReferEvent(req *sipmsg.Message) bool {
	return strings.EqualFold(sipmsg.Bare(headerValue(req, "Event")), "refer")
}

// allowEvents lists the event that we know (RFC 6665 4.4.4).
func allowEvents() sip.Header { return sip.NewHeader("Allow-Events", "refer") }

// eventID returns the id parameter of an Event header.
func eventID(req *sipmsg.Message) string {
	_, params := sipmsg.CutParams(headerValue(req, "Event"))
	return params.Text("id")
}

// handleNotify takes the peer's NOTIFY for a REFER of ours (RFC 3515 2.4.5).
func (d *Dialog) handleNotify(tx serverTx, req *sipmsg.Message) {
	switch code := d.takeNotify(req); code {
	case sip.StatusUnsupportedMediaType:
		d.stack.answerWith(tx, code, sip.NewHeader("Accept", mediaType(typeSIPFrag)))
	case sip.StatusOK:
		d.stack.answerWith(tx, code, d.contactTo(tx)) // it may make the dialog (RFC 6665 4.4.1)
	default:
		d.stack.answerWith(tx, code)
	}
	d.forgetIfUnused()
}

// takeNotify takes a NOTIFY and returns the status of its response. It may come before
// the 202 (RFC 3515 2.4.4), and after the end of the call. Without a readable body it
// reports no progress, but the state of the subscription counts.
func (d *Dialog) takeNotify(req *sipmsg.Message) int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	r := numberedLocked(d.sentRefersLocked(), eventID(req))
	if r == nil {
		return sip.StatusCallTransactionDoesNotExists // RFC 6665 4.1.3
	}
	state, params := sipmsg.CutParams(headerValue(req, "Subscription-State"))
	state = strings.ToLower(state)
	progress, isNews := sipfrag(req.Body())
	switch {
	case state == "":
		return sip.StatusBadRequest // RFC 6665 4.1.3: it must be there
	case !isNews && !isSIPFrag(req) && state != "terminated":
		return sip.StatusUnsupportedMediaType // RFC 3261 8.2.3
	}
	if isNews { // a status line is one, whatever its type is said to be
		r.progressedLocked(progress)
	}
	switch {
	case state != "terminated":
		r.lingers = false
		r.activateLocked(lifeOf(params.Text("expires"), d.config().referLife()))
		return sip.StatusOK
	case isNews && !r.isDecidedLocked() && params.Text("reason") == "":
		r.lingerLocked()
		return sip.StatusOK
	}
	r.answeredLocked(nil)
	r.endLocked(r.terminatedLocked(params))
	return sip.StatusOK
}

// lingerLocked keeps a subscription that the peer has ended without a reason while the
// new call was in progress: some peers send "terminated" in every NOTIFY, and the
// outcome in a later one.
func (r *ReferSubscription) lingerLocked() {
	r.lingers = true
	stopTimer(r.refresh)
	r.activateLocked(64 * r.dialog.config().timers().T1)
}

// terminatedLocked is the error for the last NOTIFY of a subscription without an
// outcome (RFC 6665 4.1.3).
func (r *ReferSubscription) terminatedLocked(params sipmsg.Params) *TransferError {
	e := r.lostLocked(oneLine(params.Text("reason")), nil)
	if e.Reason == "timeout" {
		e.Err = ErrTimeout
	}
	e.RetryAfter, _ = sipmsg.Seconds(params.Text("retry-after"))
	return e
}

// numberedLocked finds the REFER with that CSeq number. Without an id it is the
// dialog's first, or the only one (RFC 3515 2.4.6).
func numberedLocked(registry map[string]*ReferSubscription, id string) *ReferSubscription {
	if id != "" {
		return registry[id+" REFER"]
	}
	for _, r := range registry {
		if r.first || len(registry) == 1 {
			return r
		}
	}
	return nil
}

// lifeOf reads how long a subscription lasts: the expires parameter of a
// Subscription-State, or an Expires header.
func lifeOf(expires string, otherwise time.Duration) time.Duration {
	if life, _ := sipmsg.Seconds(expires); life > 0 {
		return min(life, maxReferLife)
	}
	return otherwise
}

// isSIPFrag reports whether the body of a NOTIFY has the required type (RFC 3515
// 2.4.4), or is missing.
func isSIPFrag(req *sipmsg.Message) bool {
	t := headerValue(req, "Content-Type")
	return len(req.Body()) == 0 || t == "" || strings.EqualFold(mediaType(t), mediaType(typeSIPFrag))
}

// sipfrag reads the status line at the beginning of the body of a NOTIFY (RFC 3515
// 2.4.5, RFC 3420).
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
