package dialog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/redirect"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The errors of methods. Their text has the name of the method before, and the reason
// behind: "dialog: NewInvite: transport failed: lookup x.example: no such host". Test
// with errors.Is, never with ==.
var (
	// ErrNotStarted says that Start has not been called, or has failed.
	ErrNotStarted = errors.New("dialog: stack not started")
	// ErrAlreadyStarted says that Start was called before.
	ErrAlreadyStarted = errors.New("dialog: stack already started")
	// ErrShutdown says that the stack is shutting down or has shut down; it
	// does not restart.
	ErrShutdown = errors.New("dialog: stack shut down")
	// ErrMaxDialogs says that StackConfig.MaxDialogs calls exist, or
	// Limits.SubscribedCalls subscriptions outside calls.
	ErrMaxDialogs = errors.New("dialog: too many dialogs")
	// ErrInvalidArgument says that an argument is nil or out of range.
	ErrInvalidArgument = errtext.ErrInvalidArgument
	// ErrState says that the method does not fit the dialog's state or role. It is
	// returned as a *StateError.
	ErrState = errors.New("dialog: wrong state")
	// ErrPending says that something else must end first: an INVITE, an
	// UPDATE, an offer that has no answer, an ACK that waits for its answer, or
	// reliable provisional responses that wait for their PRACKs.
	ErrPending = errors.New("dialog: another request or offer is pending")
	// ErrAnswered says that the final response to an INVITE was decided at the same
	// moment by something else: Accept, Reject, a CANCEL, Close, the ringing limit, or
	// a PRACK that did not come. Once the state shows it, the error is a *StateError.
	ErrAnswered = errors.New("dialog: final response already decided")
	// ErrReplaced says that the call to be replaced has ended or was already replaced,
	// or that it was answered and the INVITE asked for an early one only. The incoming
	// call has been refused with 603 or 486.
	ErrReplaced = errors.New("dialog: call cannot be replaced any more")
	// ErrCanceled says that the call was cancelled before it was answered.
	ErrCanceled = errors.New("dialog: call canceled")
	// ErrTerminated says that the dialog has ended.
	ErrTerminated = errors.New("dialog: dialog terminated")
	// ErrTimeout says that no response came in time.
	ErrTimeout = errors.New("dialog: no response in time")
	// ErrTransport says that a message could not be sent or a connection
	// was lost; it wraps the reason.
	ErrTransport = errors.New("dialog: transport failed")
	// ErrFlowLost says that the connection of the [Flow] for a request is lost. It is a
	// kind of ErrTransport, and wraps the reason. A proxy answers 430 for it (RFC 5626
	// 5.3.1); a telephone registers again.
	ErrFlowLost = errtext.As(ErrTransport, errors.New("dialog: flow lost"))
	// ErrNoRefer says that there is no REFER for WaitRefer or FollowRefer.
	ErrNoRefer = errors.New("dialog: no such REFER")
	// ErrNoSubscription says that a REFER subscription has ended or cannot
	// be used.
	ErrNoSubscription = errors.New("dialog: subscription not active")
	// ErrNoOutcome says that the outcome of a transfer will not be known. It is
	// returned as a *TransferError.
	ErrNoOutcome = errors.New("dialog: outcome of the transfer not reported")
	// ErrReference says that FollowRefer cannot follow a Refer-To: its method is not
	// INVITE, or its URI is not a SIP URI.
	ErrReference = errors.New("dialog: reference cannot be followed")
	// ErrNoSession says that we have offered or answered no SDP in this call.
	ErrNoSession = offeranswer.ErrNoSession
	// ErrInfoPackage says that the peer does not accept INFOs of that package.
	ErrInfoPackage = errors.New("dialog: Info Package not accepted by the peer")
	// ErrMalformed says that a message or header of the peer cannot be used.
	ErrMalformed = errors.New("dialog: malformed message")
	// ErrPanic says that a function of the application panicked.
	ErrPanic = errors.New("dialog: application function panicked")
	// ErrVersion says that a snapshot is of a later version.
	ErrVersion = errors.New("dialog: snapshot of a later version")
	// ErrExists says that the call to be restored is here already.
	ErrExists = errors.New("dialog: call exists")
	// ErrUnsupportedTransport says that the transport is known but cannot be
	// served.
	ErrUnsupportedTransport = errors.New("dialog: unsupported transport")
)

// StateError says that a method was called in the wrong state. errors.Is(err, ErrState)
// holds for it, and ErrTerminated too once the dialog has ended.
type StateError struct {
	// Op is the method that was called, such as "ReInvite".
	Op string
	// State is the dialog's state at that moment.
	State DialogState
	// Need says which state the method needs, such as "Established state".
	Need string
}

// Error names the method, the state, and the state that the method needs.
func (e *StateError) Error() string {
	return fmt.Sprintf("dialog: %s needs %s, dialog is %s", e.Op, e.Need, e.State)
}

// Is makes errors.Is hold for ErrState, and for ErrTerminated once the dialog has ended.
func (e *StateError) Is(target error) bool {
	return target == ErrState || (target == ErrTerminated && e.State == DialogStateTerminated)
}

// ResponseError is a final response of 300 to 699 to a request of ours.
type ResponseError struct {
	// Method is the method of the request.
	Method string
	// StatusCode and Reason are those of the response.
	StatusCode int
	Reason     string
	// Reasons are the values of the Reason header (RFC 6432).
	Reasons []Reason
	// RetryAfter is the delay before another try (RFC 3261 20.33). Zero: none was
	// given, or another try may follow at once.
	RetryAfter time.Duration
	// Contacts are the targets of a redirection (RFC 3261 21.3), the highest q first.
	Contacts []sip.Uri
	// Warnings are the values of the Warning header (RFC 3261 20.43). Accept has those
	// of the Accept header: the types that a 415 asks for.
	Warnings, Accept []string

	// retry is true when the response has a Retry-After.
	retry bool
	// op is the method that returns the error.
	op string
}

func newResponseError(method sip.RequestMethod, res *sipmsg.Message) *ResponseError {
	e := &ResponseError{Method: string(method), StatusCode: res.Status, Reason: res.Reason, Reasons: reasonsOf(res)}
	e.Warnings, e.Accept = sipheader.Listed(res, "Warning"), sipheader.Listed(res, "Accept")
	digits := strings.TrimSpace(sipheader.Value(res, "Retry-After"))
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	e.RetryAfter, e.retry = sipmsg.Seconds(digits)
	if res.IsRedirection() {
		e.Contacts = redirect.ByRank(contactsOf(res))
	}
	return e
}

// Error gives the method that failed, and the request's method, status and reason
// phrase.
func (e *ResponseError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.Method, e.StatusCode, e.Reason)
	if e.op != "" {
		text = e.op + ": " + text
	}
	return errtext.Prefix + text
}

// ShutdownError counts the calls and callbacks that were left when the context of
// Shutdown, or the grace time for callbacks, ended.
type ShutdownError struct {
	// Unreleased counts the calls whose end the peer does not know: it could not be
	// reached, or RFC 3261 9.1 (no CANCEL before a provisional response) or 15 (no BYE
	// of the callee before the ACK) forbade the message until then.
	Unreleased int
	// Unanswered counts the calls whose BYE, CANCEL or final response was sent, but not
	// confirmed by the peer.
	Unanswered int
	// Callbacks counts the callbacks of the application that still run, Trace among
	// them.
	Callbacks int
	// Cause is the context's error; nil if only the grace time ended.
	Cause error
}

// Error gives the counts.
func (e *ShutdownError) Error() string {
	return fmt.Sprintf("dialog: shutdown incomplete: %d calls not released, %d not confirmed, %d callbacks running",
		e.Unreleased, e.Unanswered, e.Callbacks)
}

// Unwrap returns the context's error.
func (e *ShutdownError) Unwrap() error { return e.Cause }

// opErr names the method that returns an error: the caller's own, where one is made
// of others. nil stays nil.
func opErr(op string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *errtext.Named:
		return &errtext.Named{Method: op, Reason: e.Reason}
	case *StateError:
		own := *e
		own.Op = op
		return &own
	case *ResponseError:
		own := *e
		own.op = op
		return &own
	case *ShutdownError:
		return e // its text says so
	}
	return &errtext.Named{Method: op, Reason: err}
}

// naming is opErr for the result of a method, which defers it.
func naming(op string, result *error) { *result = opErr(op, *result) }
