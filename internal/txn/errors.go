package txn

import "errors"

var (
	// ErrTimeout says that no final response came in time (Timers B and F), or
	// for a server that no ACK came (Timer H).
	ErrTimeout = errors.New("timeout")
	// ErrTransport says that a message could not be sent, or that the
	// connection a response was expected on is lost. It wraps the cause.
	ErrTransport = errors.New("transport failed")
	// ErrCancelled says that an INVITE got no final response within 64*T1 after
	// its CANCEL.
	ErrCancelled = errors.New("cancelled without a final response")
	// ErrClosed says that the layer is closed.
	ErrClosed = errors.New("closed")
	// ErrFinalSent says that another final response has been sent already.
	ErrFinalSent = errors.New("another final response was sent")
	// ErrEnded says that the server transaction has ended.
	ErrEnded = errors.New("transaction has ended")
	// ErrWouldWait says that sending would take a look-up or a dial, which the caller
	// did not want.
	ErrWouldWait = errors.New("send would block")
	// ErrNotAllowed says that the RFCs forbid this message in this place.
	ErrNotAllowed = errors.New("not allowed")
)
