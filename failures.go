package dialog

import (
	"errors"

	"github.com/emiago/sipgo/sip"
)

// effect is the part of a dialog that a failed request ends (RFC 5057 5.1).
type effect int

const (
	endsNothing effect = iota
	// endsUsage ends the subscription a NOTIFY belongs to, or the call.
	endsUsage
	endsDialog
)

// effectOf is the table of RFC 5057 5.1 and 5.2, with RFC 3261 12.2.1.2: the effect of
// a final response to a request inside a dialog.
func effectOf(method sip.RequestMethod, code int) effect {
	switch code {
	case 404, 410, 416, 482, 483, 484, 485, 502, 604:
		return endsDialog
	case 408, 481:
		switch method {
		case sip.INVITE, sip.BYE, sip.REFER, sip.INFO, sip.UPDATE, sip.PRACK, sip.NOTIFY, sip.SUBSCRIBE:
			return endsUsage
		}
		// OPTIONS, MESSAGE, and what nobody knows (RFC 5057 5.3).
	case 405, 480, 501:
		// These end a usage that cannot do without the method.
		if method == sip.INVITE || isSubscribers(method) {
			return endsUsage
		}
	case 489:
		// Note 12: elsewhere an unknown 4xx.
		if isSubscribers(method) {
			return endsUsage
		}
	}
	return endsNothing
}

// effectOf is that of the table, except with KeepUnanswered: RFC 3261 12.2.1.2 says
// SHOULD for a request without a response.
func (d *Dialog) effectOf(method sip.RequestMethod, code int) effect {
	if code == sip.StatusRequestTimeout && method != sip.INVITE && d.config().KeepUnanswered {
		return endsNothing
	}
	return effectOf(method, code)
}

// isSubscribers reports whether a method's usage is a subscription (RFC 5057
// 5.3).
func isSubscribers(method sip.RequestMethod) bool {
	return method == sip.NOTIFY || method == sip.SUBSCRIBE
}

// failed ends the part that a refused request ends: the call, by BYE, as the peer may
// still count it as established (RFC 3261 12.2.1.2), and with the dialog all its
// subscriptions. A request in an early dialog, unless e is nil, ends nothing else.
func (d *Dialog) failed(e *earlyDialog, method sip.RequestMethod, code int, reason string) {
	effect := d.effectOf(method, code)
	if effect == endsDialog {
		d.dropSubscriptions(&ResponseError{Method: string(method), StatusCode: code, Reason: reason})
	}
	if effect == endsDialog || (effect == endsUsage && !isSubscribers(method)) {
		d.hangupEarly(e, Cause{By: PartyRemote, Method: string(method), Status: code, Reason: reason})
	}
}

// unanswered is failed for a request that got no response: a timeout counts as 408 (RFC
// 3261 8.1.3.1); a lost connection ends nothing, the next request opens another.
func (d *Dialog) unanswered(e *earlyDialog, method sip.RequestMethod, err error) {
	if !errors.Is(callError(err), ErrTimeout) || isSubscribers(method) ||
		d.effectOf(method, sip.StatusRequestTimeout) == endsNothing {
		return
	}
	d.hangupEarly(e, Cause{By: PartyTimeout, Method: string(method), Err: ErrTimeout})
}

// hangupEarly ends an early dialog, and with the last one the call; for nil the call.
func (d *Dialog) hangupEarly(e *earlyDialog, cause Cause) {
	if e == nil {
		d.hangup(&ending{cause: cause})
		return
	}
	both := d.lockBoth()
	release := e.failedLocked(cause)
	both.unlock()
	release()
}
