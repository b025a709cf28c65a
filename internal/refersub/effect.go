package refersub

import (
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/usage"
)

// Step is one input of a [Subscription]: when it came, and what follows from it.
type Step struct {
	Now time.Time
	// Life is the duration of a subscription for which nobody gives one, Transaction the
	// longest duration of a transaction (RFC 3261 17.1.2.2).
	Life, Transaction time.Duration
	// Effects are performed in their order.
	Effects []Effect
}

func (s *Step) add(e Effect) { s.Effects = append(s.Effects, e) }

// Kind is the kind of an Effect.
type Kind int

const (
	// Expires: the timer of the expiry fires After so long.
	Expires Kind = iota
	// Refreshes: the timer of the refresh fires After so long. Rests: it does not fire.
	Refreshes
	Rests
	// Told: Progress is news for the application.
	Told
	// Decided: there is an outcome, or will be none.
	Decided
	// Answered: the REFER has its final response, or will get none.
	Answered
	// Unfollowed: nobody places the call that the REFER asks for any more.
	Unfollowed
	// Ended: the subscription has ended.
	Ended
	// Writes: Notify is written. With Last it may be the last message to the peer.
	Writes
	// NotifyOver: a NOTIFY has its response, or will get none.
	NotifyOver
	// Subscribes: a SUBSCRIBE for After is sent.
	Subscribes
)

// Effect is what follows from a step. Fields that its Kind does not name are zero.
type Effect struct {
	Kind     Kind
	After    time.Duration
	Progress Progress
	Notify   Notify
	Last     bool
}

// ErrTimeout and ErrNone are causes of an end: the time is over; the peer agreed to no
// subscription, or wants none.
var (
	ErrTimeout = errors.New("timeout")
	ErrNone    = errors.New("no subscription")
)

// Lost says that there will be no outcome.
type Lost struct {
	// Last is the last progress.
	Last Progress
	// Reason and RetryAfter are those of the last NOTIFY (RFC 6665 4.1.3).
	Reason     string
	RetryAfter time.Duration
	// Err ended the subscription; nil: a NOTIFY did.
	Err error
}

// Error implements error.
func (l *Lost) Error() string { return "no outcome" }

// Failure is the failure of a request of ours; the zero value is a success. Without a
// Status there was no response; Unsent is true when the request was not written.
type Failure struct {
	Err    error
	Status int
	Unsent bool
}

// ends reports whether the failure of a request ends its subscription (RFC 5057 5.1, 5.2;
// RFC 6665 4.1.2.2, 4.2.2).
func (f Failure) ends(method sip.RequestMethod) bool {
	switch {
	case f.Err == nil, f.Unsent:
		return false
	case f.Status == 0:
		return true
	}
	return usage.EffectOf(method, f.Status) != usage.EndsNothing
}
