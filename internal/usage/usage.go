// Package usage says what a failed request ends: itself, its usage of the dialog, or the
// dialog (RFC 5057 5).
package usage

import "github.com/emiago/sipgo/sip"

// Effect is the part of a dialog that a failed request ends (RFC 5057 5.1).
type Effect int

const (
	EndsNothing Effect = iota
	// EndsUsage ends the subscription of a NOTIFY or SUBSCRIBE, else the call.
	EndsUsage
	EndsDialog
)

// EffectOf is the table of RFC 5057 5.1 and 5.2, with RFC 3261 12.2.1.2: the effect of
// a final response to a request inside a dialog.
func EffectOf(method sip.RequestMethod, code int) Effect {
	switch code {
	case 404, 410, 416, 482, 483, 484, 485, 502, 604:
		return EndsDialog
	case 408, 481:
		switch method {
		case sip.INVITE, sip.BYE, sip.REFER, sip.INFO, sip.UPDATE, sip.PRACK, sip.NOTIFY, sip.SUBSCRIBE:
			return EndsUsage
		}
		// OPTIONS, MESSAGE, and unknown methods (RFC 5057 5.3).
	case 405, 480, 501:
		// These end a usage that cannot do without the method.
		if method == sip.INVITE || OfSubscription(method) {
			return EndsUsage
		}
	case 489:
		// Note 12: elsewhere an unknown 4xx.
		if OfSubscription(method) {
			return EndsUsage
		}
	}
	return EndsNothing
}

// OfSubscription reports whether a method's usage is a subscription (RFC 5057 5.3).
func OfSubscription(method sip.RequestMethod) bool {
	return method == sip.NOTIFY || method == sip.SUBSCRIBE
}
