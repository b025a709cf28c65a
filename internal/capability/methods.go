// Package capability says what this side understands: methods, option tags, bodies; and
// refuses the requests that need more, or lack what their method needs, without a look at
// any call (RFC 3261 8.2.2, 8.2.3).
package capability

import (
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// IsKnown reports whether a method is recognised, if not served (RFC 3261 21.5.2).
func IsKnown(method sip.RequestMethod) bool {
	switch method {
	case sip.INVITE, sip.ACK, sip.CANCEL, sip.BYE, sip.OPTIONS, sip.REFER, sip.NOTIFY, sip.INFO,
		sip.MESSAGE, sip.SUBSCRIBE, sip.REGISTER, sip.PUBLISH, sip.PRACK, sip.UPDATE:
		return true
	}
	return false
}

// Named accepts a known method in any case, and another as it is: names of methods are
// case-sensitive (RFC 3261 7.1).
func Named(method string) sip.RequestMethod {
	if known := sip.RequestMethod(strings.ToUpper(method)); IsKnown(known) {
		return known
	}
	return sip.RequestMethod(method)
}

// BelongsToCalls reports whether no application handles a method.
func BelongsToCalls(method sip.RequestMethod) bool {
	switch method {
	case sip.INVITE, sip.ACK, sip.CANCEL, sip.BYE, sip.PRACK, sip.UPDATE:
		return true
	}
	return false
}

// MakesDialog reports whether a 2xx to a request of that method may make or refresh a
// dialog, so that it has a Contact (RFC 3515 2.2, RFC 3261 12.1.1, RFC 6665 4.1,
// 4.4.1). MESSAGE must not have one (RFC 3428 8); those of a REGISTER are its bindings.
func MakesDialog(method sip.RequestMethod) bool {
	return method == sip.REFER || method == sip.SUBSCRIBE || method == sip.NOTIFY
}

// InsideOnly reports whether a method is served inside calls only.
func (r Rules) InsideOnly(method sip.RequestMethod) bool {
	switch method {
	case sip.BYE, sip.INFO, sip.NOTIFY, sip.UPDATE:
		return true
	}
	return method == sip.PRACK && !r.NoReliable
}

// Methods are those that are served (RFC 3261 20.5): SUBSCRIBE for the event refer (RFC 6665
// 4.1.1), and those of handlers.
func (r Rules) Methods(handled ...sip.RequestMethod) []string {
	methods := []string{"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "UPDATE", "REFER", "SUBSCRIBE", "NOTIFY", "INFO"}
	if !r.NoReliable {
		methods = append(methods, "PRACK")
	}
	own := len(methods)
	for _, method := range handled {
		if !slices.Contains(methods, string(method)) {
			methods = append(methods, string(method))
		}
	}
	slices.Sort(methods[own:])
	return methods
}
