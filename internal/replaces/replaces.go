// Package replaces decides what an INVITE means that names another call: to replace it
// (Replaces, RFC 3891), or to be joined to it (Join, RFC 3911). It knows no dialog: calls
// are described to it.
package replaces

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
)

// Claim is what an INVITE asks of the call that it names.
type Claim struct {
	// Join is false when the INVITE replaces the call, true when it joins it.
	Join bool
	// EarlyOnly is true when a confirmed call is not replaced.
	EarlyOnly bool
}

// ClaimOf is the claim of a Replaces or Join header. A Join has no early-only (RFC 3911
// 7.1).
func ClaimOf(name dialogname.Replaces, join bool) Claim {
	return Claim{Join: join, EarlyOnly: name.EarlyOnly && !join}
}

// Call is the state of a call that is named.
type Call struct {
	// Outgoing is true when its INVITE was ours, Confirmed once a 2xx has made the dialog
	// (RFC 3261 12).
	Outgoing, Confirmed bool
	// Ending is true once its end is decided, Replaced while another INVITE, which is
	// being accepted or was, has replaced it.
	Ending, Replaced bool
}

// Refusal is the status for an INVITE whose call cannot be replaced or joined now; zero
// for one that may (RFC 3891 3, RFC 3911 4).
func (c Claim) Refusal(call Call) int {
	switch {
	case call.Replaced, call.Ending:
		return sip.StatusGlobalDecline
	case c.Join:
		return 0
	case call.Confirmed && c.EarlyOnly:
		return sip.StatusBusyHere
	case !call.Confirmed && !call.Outgoing:
		return sip.StatusCallTransactionDoesNotExists
	}
	return 0
}

// Accept decides when the INVITE is accepted: of several that name one call the first to
// be accepted replaces it, and reserves it until its 2xx has left. When it is too late, the
// INVITE is refused with a status. A call that its own sides ended meanwhile keeps no
// INVITE from being accepted.
func (c Claim) Accept(call Call) (reserve bool, refusal int) {
	switch {
	case c.Join:
		return false, 0
	case call.Replaced:
		return false, sip.StatusGlobalDecline
	case call.Ending:
		return false, 0
	case c.EarlyOnly && call.Confirmed:
		return false, sip.StatusBusyHere
	}
	return true, 0
}

// Authorized is the status with which an INVITE is refused after the application's answer:
// zero for one that is permitted. late is true when the answer came too late; the named
// call may have changed meanwhile.
func (c Claim) Authorized(answer int, late bool, call Call) int {
	switch {
	case late:
		return sip.StatusGatewayTimeout
	case answer == 0 || answer/100 == 2:
		return c.Refusal(call)
	}
	return answer
}

// Tags are the tags of a dialog.
type Tags struct{ Local, Remote string }

// Named returns the tags of the dialogs that a header may name, as if they were a request's
// (RFC 3891 3, 6.1).
func Named(name dialogname.Replaces) (list []Tags) {
	for _, local := range dialogname.Tags(name.ToTag) {
		for _, remote := range dialogname.Tags(name.FromTag) {
			list = append(list, Tags{local, remote})
		}
	}
	return list
}

// Search is the search for the call that a header names; D is a call. Its zero value is
// ready.
type Search[D comparable] struct {
	call           D
	found, several bool
	ended          bool
}

// Found says that a call has those tags.
func (s *Search[D]) Found(call D) {
	s.several = s.several || s.found && s.call != call
	s.call, s.found = call, true
}

// Ended says that a dialog with those tags ended lately.
func (s *Search[D]) Ended() { s.ended = true }

// Result returns the one call that was found, or the status for an INVITE that names none,
// or several (RFC 3891 3). 603 keeps the new call from ringing although the other one has
// ended.
func (s *Search[D]) Result() (call D, refusal int) {
	var none D
	switch {
	case s.several:
		return none, sip.StatusCallTransactionDoesNotExists
	case s.found:
		return s.call, 0
	case s.ended:
		return none, sip.StatusGlobalDecline
	}
	return none, sip.StatusCallTransactionDoesNotExists
}
