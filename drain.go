package dialog

import (
	"context"
	"fmt"
)

// Drain prepares the end of the stack without the end of its calls: new calls of peers get
// 503 with Retry-After, and so does OPTIONS outside calls, so that a proxy in front sends
// both elsewhere. All calls go on, those in setup too, and NewInvite still works, since a
// call may need another one. An INVITE that replaces or joins a call of this stack (RFC
// 3891, RFC 3911) is admitted: only this stack has that call.
//
// Drain returns when no call is left and no subscription of a REFER, or when ctx ends. The
// stack then still refuses new calls; Drain may be called again, and Shutdown ends the calls
// that are left. Several calls of Drain may wait at the same time.
//
// Errors: *DrainError (ctx has ended; calls are left), ErrShutdown (Shutdown was called,
// before or meanwhile: it ends the calls), ErrNotStarted.
func (s *Stack) Drain(ctx context.Context) (err error) {
	defer naming("Drain", &err)
	if ctx == nil {
		return errNilContext("Drain")
	}
	if err := s.refuseCalls(); err != nil {
		return err
	}
	done := s.waitOpen(ctx, 0)
	if err := s.ready(); err != nil {
		return err
	}
	if !done {
		return s.notDrained(ctx)
	}
	return nil
}

// refuseCalls has new calls of peers be refused from now on.
func (s *Stack) refuseCalls() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	s.draining = true
	return nil
}

func (s *Stack) isDraining() bool {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.draining
}

// refusesLocked reports whether a call that arrives is refused since the stack drains.
func (s *Stack) refusesLocked(d *Dialog) bool {
	return s.draining && d.arrived != nil && d.incoming.replacement == nil
}

func (s *Stack) notDrained(ctx context.Context) error {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return &DrainError{Calls: s.openLocked(), Cause: ctx.Err()}
}

// DrainError says that calls were left when the context of [Stack.Drain] ended.
type DrainError struct {
	// Calls counts the calls that are left, with those that have ended and whose peer does
	// not know it yet, and those that have only subscriptions of REFERs left.
	Calls int
	// Cause is the context's error.
	Cause error
}

// Error gives the number of calls.
func (e *DrainError) Error() string {
	return fmt.Sprintf("dialog: not drained: %d calls left", e.Calls)
}

// Unwrap returns the context's error.
func (e *DrainError) Unwrap() error { return e.Cause }
