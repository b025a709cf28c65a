package dialog

import (
	"fmt"
)

// DialogState is the state of a call. docs/states.md draws it.
type DialogState int

const (
	// DialogStateInit: nothing has been sent or answered.
	DialogStateInit DialogState = iota
	// DialogStateTrying: UAC only: the INVITE has left, and no 101 to 199 has come.
	DialogStateTrying
	// DialogStateRinging: UAC: a 101 to 199 has come. UAS: OnIncomingDialog has been
	// called.
	DialogStateRinging
	// DialogStateEstablished: UAC: the 2xx has come and its ACK has left.
	// UAS: the 2xx is leaving or has left.
	DialogStateEstablished
	// DialogStateTerminated: the call has ended. No other state follows.
	DialogStateTerminated
)

// String returns the state's name, or "Unknown".
func (s DialogState) String() string {
	switch s {
	case DialogStateInit:
		return "Init"
	case DialogStateTrying:
		return "Trying"
	case DialogStateRinging:
		return "Ringing"
	case DialogStateEstablished:
		return "Established"
	case DialogStateTerminated:
		return "Terminated"
	default:
		return "Unknown"
	}
}

// mayFollow is the one table of transitions: a state may only move forward, Trying and
// Ringing may be skipped, and Terminated is the last.
func (s DialogState) mayFollow(old DialogState) bool {
	return old != DialogStateTerminated && s > old && s <= DialogStateTerminated
}

// Party is the party that ended a call.
type Party int

const (
	// PartyNone: the call has not ended.
	PartyNone Party = iota
	// PartyLocal: the application, by Bye, Reject, Close or a context.
	PartyLocal
	// PartyRemote: the peer, by BYE, CANCEL or a final response.
	PartyRemote
	// PartyTimeout: a response, an ACK or a decision did not come in time.
	PartyTimeout
	// PartyTransport: a message could not be sent.
	PartyTransport
	// PartyShutdown: the stack was shut down.
	PartyShutdown
	// PartyMoved: another process has the call (StackConfig.Store). It has not ended, and
	// nothing was sent to the peer. Cause.Err is ErrMoved.
	PartyMoved
)

// String returns the party's name.
func (p Party) String() string {
	switch p {
	case PartyNone:
		return "none"
	case PartyLocal:
		return "local"
	case PartyRemote:
		return "remote"
	case PartyTimeout:
		return "timeout"
	case PartyTransport:
		return "transport"
	case PartyShutdown:
		return "shutdown"
	case PartyMoved:
		return "moved"
	default:
		return "unknown"
	}
}

// Cause is the cause of the end of a call. The zero value means that it has not ended.
type Cause struct {
	// By is the party that ended it.
	By Party
	// Method is the request that ended it, or of which the response (or its lack) did,
	// such as "BYE", "CANCEL", "INVITE", "ACK", "PRACK", "INFO"; empty without one.
	Method string
	// Status is the final response that ended it; zero without one.
	Status int
	// Reason is the text of the Reason header (RFC 3326), of the reason phrase, or of
	// the application.
	Reason string
	// Reasons are all values of the Reason header in the BYE, CANCEL or final response
	// that ended the call: a Q.850 cause for example.
	Reasons []Reason
	// Err is the error behind a timeout or a transport failure, and the
	// *ResponseError of a refused call.
	Err error
}

// String reads like "remote BYE" or "remote INVITE 486 Busy Here".
func (c Cause) String() string {
	s := c.By.String()
	if c.Method != "" {
		s += " " + c.Method
	}
	if c.Status != 0 {
		s += fmt.Sprintf(" %d", c.Status)
	}
	if c.Reason != "" {
		s += " " + c.Reason
	}
	return s
}

// setStateLocked is the one writer of Dialog.state. It validates, stores, and queues
// the notification while the mutex is held, so that the order of notifications is the
// order of the changes. It reports whether the state changed. delivered is closed once
// the callbacks have run, or nil: see mailbox.Push.
func (d *Dialog) setStateLocked(next DialogState) (delivered <-chan struct{}, changed bool) {
	if !next.mayFollow(d.state) {
		return nil, false
	}
	old := d.state
	d.state = next
	d.entered[next] = d.stack.age()
	d.logStateLocked(old)
	if next == DialogStateEstablished && d.stack != nil {
		d.stack.counters.answered.Add(1)
	}
	callbacks := d.callbacksLocked().state
	calls := make([]func(), len(callbacks))
	for i, callback := range callbacks {
		calls[i] = func() { callback(next) }
	}
	if next != DialogStateTerminated {
		return d.mailbox.Push(calls...), true
	}
	d.dropAsideLocked()
	delivered = d.mailbox.Seal(calls...)
	d.events.done.Open()
	return delivered, true
}
