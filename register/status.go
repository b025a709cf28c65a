package register

import (
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// State says how a registration stands.
type State int

const (
	// Registering: a REGISTER is under way, and calls do not come by this registration
	// before it is answered. A refresh stays Registered.
	Registering State = iota
	// Registered: the registrar has bound our Contacts, until Status.Until.
	Registered
	// Failed: the registrar has refused, or not answered, or the connection is lost.
	// Another try follows after Status.RetryIn. Bindings from before may still stand, until
	// Status.Until.
	Failed
	// Unregistered: the registration is over. With a nil Status.Err the registrar has
	// confirmed that, or had never bound us.
	Unregistered
)

// String returns the name of the state.
func (s State) String() string {
	switch s {
	case Registering:
		return "Registering"
	case Registered:
		return "Registered"
	case Failed:
		return "Failed"
	case Unregistered:
		return "Unregistered"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Status is a state of a registration, with what the registrar has said.
type Status struct {
	State State
	// Proxy is the index in Options.Proxies that it is about.
	Proxy int
	// Contacts are those of ours that are bound, as they were sent: of several there may be
	// some that the registrar did not take.
	Contacts []sip.Uri
	// Expires is the time that was granted, the least of all Contacts. Until is its end;
	// zero if nothing is bound.
	Expires time.Duration
	Until   time.Time
	// ServiceRoute is the route for our requests (RFC 3608); see Registration.InviteOpts.
	// Path is the route of calls to us (RFC 3327), for the user to look at.
	ServiceRoute, Path []sip.Uri
	// Outbound is true if registrar and proxies support RFC 5626: calls come by Flow.
	Outbound bool
	// Flow is the way to the registrar.
	Flow *dialog.Flow
	// PublicGRUU and TemporaryGRUU reach this device alone (RFC 5627); they are empty if the
	// registrar gives none, or without an Instance.
	PublicGRUU, TemporaryGRUU sip.Uri
	// Err is the reason of Failed and Unregistered; of Registering, that of the failure
	// before.
	Err error
	// RetryIn is the time from Failed to the next try.
	RetryIn time.Duration
}

// String returns a text for logs.
func (s Status) String() string {
	switch {
	case s.State == Registered:
		return fmt.Sprintf("Registered for %v", s.Expires)
	case s.State == Failed:
		return fmt.Sprintf("Failed: %v; again in %v", s.Err, s.RetryIn.Round(time.Second))
	case s.State == Unregistered && s.Err != nil:
		return fmt.Sprintf("Unregistered: %v", s.Err)
	}
	return s.State.String()
}
