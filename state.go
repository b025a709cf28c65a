package dialog

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
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

// Info is the state of a dialog at one moment, consistent in itself. It shares nothing
// with the dialog.
type Info struct {
	Key   DialogKey
	State DialogState
	// IsUAC is true for a call of ours.
	IsUAC bool
	// Local and Remote are our address and the peer's, from the From and To headers.
	Local, Remote Address
	// Identity is the peer's present identity.
	Identity Identity
	// RemoteTarget is the target of requests to the peer, RouteSet their route (RFC
	// 3261 12).
	RemoteTarget sip.Uri
	RouteSet     []sip.Uri
	// LocalSeq and RemoteSeq are the CSeq numbers of each side's latest
	// request.
	LocalSeq, RemoteSeq uint32
	// PeerInfoPackages are the Info Packages that the peer accepts (RFC 6086 5); nil if
	// it has sent no list.
	PeerInfoPackages []string
	// Cause is the cause of the end of the call.
	Cause Cause
	// History has the states that were entered, in order, with the time of each.
	History []StateChange
}

// StateChange is a state and the time at which it was entered.
type StateChange struct {
	State DialogState
	At    time.Time
}

// Info returns the present state of the dialog.
func (d *Dialog) Info() Info {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	s := d.currentLocked()
	info := Info{
		Key: d.keyLocked(), State: d.state, IsUAC: d.isUAC,
		Local: addressOf(d.local.NameAddr()), Remote: addressOf(s.remote.NameAddr()),
		RemoteTarget: *d.remoteTarget.Clone(),
		LocalSeq:     s.LocalSeq(), RemoteSeq: s.RemoteSeq(), Cause: d.causeLocked(),
	}
	info.Identity = s.peerIdentity.identity()
	info.PeerInfoPackages = slices.Clone(s.peerPackages)
	for _, route := range d.routeSet {
		info.RouteSet = append(info.RouteSet, *route.Clone())
	}
	for state, at := range d.entered {
		if at != 0 {
			info.History = append(info.History, StateChange{DialogState(state), d.stack.birth().Add(at)})
		}
	}
	return info
}

// addressOf is the party that From or To names, for the application.
func addressOf(a sipheader.NameAddr) Address {
	return Address{DisplayName: sipmsg.Unescape(a.Display), URI: *a.URI.Clone()}
}

// Request returns a copy of the INVITE of an incoming call, with the peer's address as its
// Source; nil for a call of ours, and for a restored one.
func (d *Dialog) Request() *sip.Request {
	req, _ := messageOf(d.arrived).(*sip.Request)
	return req
}

// Response returns a copy of the peer's latest response to the INVITE of a call of
// ours, other than 100: at the end the one that accepted or refused it. It is nil before
// the first, for a call of the peer, and for a restored one.
func (d *Dialog) Response() *sip.Response {
	d.mutex.RLock()
	arrived := d.answeredBy
	d.mutex.RUnlock()
	res, _ := messageOf(arrived).(*sip.Response)
	return res
}

// received returns a message as it came; one that was made by hand as it would be written.
func received(msg sip.Message) *sipmsg.Message {
	if m := sipmsg.Of(msg); m != nil {
		return m
	}
	head, body, _ := sipmsg.CutHead(transport.Encode(msg))
	m := sipmsg.Decode(head, len(head))
	m.SetBody(body)
	source, _ := netip.ParseAddrPort(msg.Source())
	m.Arrived(msg.Transport(), source)
	return m
}

// messageOf parses a kept message again, for a caller that may change it; nil for none.
func messageOf(kept *sipmsg.Kept) sip.Message {
	if kept == nil {
		return nil
	}
	return ownMessage(kept.Message())
}

// ownMessage is a message for an application, which may change it.
func ownMessage(m *sipmsg.Message) sip.Message {
	own := m.NewSIP()
	own.SetBody(bytes.Clone(own.Body()))
	return own
}

// ownRequest is ownMessage for a request.
func ownRequest(m *sipmsg.Message) *sip.Request {
	req, _ := ownMessage(m).(*sip.Request)
	return req
}

// callContext is the context of a call.
type callContext struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	// stop ends the wait for the end of InviteOpts.Context; nil for none.
	stop func() bool
}

// Context returns a context that ends when the dialog does; its cause (context.Cause) is
// then an *EndError. It has the values of the call: see Value.
func (d *Dialog) Context() context.Context {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.contextLocked().ctx
}

func (d *Dialog) contextLocked() *callContext {
	if d.context == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		d.context = &callContext{ctx: d.values.Context(ctx), cancel: cancel}
		if d.state == DialogStateTerminated {
			cancel(&EndError{d.causeLocked()})
		}
	}
	return d.context
}

// endContext ends the dialog's context, if there is one. No lock is held: functions of the
// application may run.
func (d *Dialog) endContext() {
	d.mutex.RLock()
	c, cause := d.context, d.causeLocked()
	var stop func() bool
	if c != nil {
		stop = c.stop
	}
	d.mutex.RUnlock()
	if c == nil {
		return
	}
	if stop != nil {
		stop()
	}
	c.cancel(&EndError{cause})
}

// EndError is the cause of a dialog's context once the dialog has ended.
type EndError struct{ Cause Cause }

// Error returns the cause of the end.
func (e *EndError) Error() string { return "dialog: ended: " + e.Cause.String() }

// Is makes errors.Is hold for ErrTerminated.
func (e *EndError) Is(target error) bool { return target == ErrTerminated }
