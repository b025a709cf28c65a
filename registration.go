package dialog

import (
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// keepRegistered keeps the flow open by which a REGISTER of ours was answered, for as
// long as the registration lasts: calls come by it. That is a connection, and over UDP a
// flow through a NAT of ours.
func keepRegistered(req *sip.Request, res *sip.Response, flow *transport.Flow) {
	if req.Method != sip.REGISTER || !res.IsSuccess() || flow == nil || !flow.Reliable() && !flow.Translated() {
		return
	}
	if asked, known := bindingTime(req); known && asked == 0 {
		return // it takes the registration back
	}
	if granted, known := bindingTime(res); known {
		flow.HoldFor(granted)
	}
}

// bindingTime is how long the bindings in a REGISTER or its answer last, the longest of
// them: their expires parameters, else the Expires header (RFC 3261 10.2.1.1).
func bindingTime(msg sip.Message) (longest time.Duration, known bool) {
	values := []string{headerValue(msg, "Expires")}
	for h := range named(msg, "Contact") {
		if contact, ok := h.(*sip.ContactHeader); ok {
			if expires, found := sipuri.Param(contact.Params, "expires"); found {
				values = append(values, expires)
			}
		}
	}
	if len(values) > 1 {
		values = values[1:]
	}
	for _, value := range values {
		if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
			longest, known = max(longest, time.Duration(seconds)*time.Second), true
		}
	}
	return longest, known
}
