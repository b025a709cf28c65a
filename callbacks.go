package dialog

import (
	"log/slog"
	"runtime/debug"

	"sipdialog.example/dialog/internal/mailbox"
)

// callbacks are the functions of the application that a call has. The dialog's mutex
// guards them.
type callbacks struct {
	state    []func(DialogState)
	body     []func(Body)
	fork     []func(ForkInfo)
	identity []*identityWatcher
	dtmf     func(DTMF)
	offer    offerDecider
	refer    ReferHandler
	// requests are those of OnRequest, waiting the queue in which requests wait for them.
	requests handlerMap
	waiting  *mailbox.Mailbox
}

// callbacksLocked returns the callbacks that are registered, registerLocked where to
// register one.
func (d *Dialog) callbacksLocked() callbacks {
	if d.callbacks == nil {
		return callbacks{}
	}
	return *d.callbacks
}

func (d *Dialog) registerLocked() *callbacks {
	if d.callbacks == nil {
		d.callbacks = new(callbacks)
	}
	return d.callbacks
}

// callDefaults are the functions that serve the calls that have none of their own. They are
// never changed once they are in place: they are read without a lock.
type callDefaults struct {
	offer    offerDecider
	requests handlerMap
	dtmf     func(*Dialog, DTMF)
}

// setDefaults changes the functions of all calls.
func (s *Stack) setDefaults(change func(*callDefaults)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	next := s.defaultsNow()
	change(&next)
	s.defaults.Store(&next)
}

func (s *Stack) defaultsNow() callDefaults {
	if s != nil {
		if c := s.defaults.Load(); c != nil {
			return *c
		}
	}
	return callDefaults{}
}

// guard calls a function of the application, and then, unless it is nil, also when
// the function panics or ends its goroutine (runtime.Goexit). Either is counted and
// logged; a panic ends here. Without locks.
func (s *Stack) guard(log func() *slog.Logger, name string, callback, then func()) {
	returned := false
	defer func() {
		if value := recover(); !returned {
			s.logPanic(log(), name, value, debug.Stack())
		}
		if then != nil {
			then()
		}
	}()
	callback()
	returned = true
}

// logger returns the log for records that belong to no call.
func (s *Stack) logger() *slog.Logger { return s.log }

// logPanic counts a panic of the application, and logs it.
func (s *Stack) logPanic(log *slog.Logger, where string, value any, stack []byte) {
	s.counters.panics.Add(1)
	log.Error("application code panicked", "where", where, "panic", value, "stack", string(stack))
}
