package dialog

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"time"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/mailbox"
)

func (d *Dialog) keyLocked() DialogKey {
	s := d.currentLocked()
	return DialogKey{CallID: d.callID, LocalTag: s.LocalTag(), RemoteTag: s.RemoteTag()}
}

// ownTag is our tag: that of the early dialog that has become the call. It needs no lock.
func (d *Dialog) ownTag() string { return d.currentLocked().LocalTag() }

// config returns the stack's configuration, or the defaults.
func (d *Dialog) config() *StackConfig { return d.stack.settings() }

// transactionLayer returns the transaction layer, or the reason why there is none.
func (d *Dialog) transactionLayer() (transactionLayer, error) {
	if d.stack == nil {
		return nil, ErrNotStarted
	}
	return d.stack.transactions()
}

// background runs f on a counted goroutine, or here when there is no stack or it has
// ended: f then finds no transaction layer and returns at once.
func (d *Dialog) background(f func()) {
	if d.stack == nil || !d.stack.tasks.Go(f) {
		f()
	}
}

// after is time.AfterFunc for a function that is counted while it runs, and
// does not run once the stack has ended.
func (d *Dialog) after(wait time.Duration, f func()) *deadline.Func {
	return d.stack.timers().AfterFunc(wait, f)
}

// onTime is after for a method of the dialog.
func (d *Dialog) onTime(wait time.Duration, method func(*Dialog)) *deadline.Func {
	return d.after(wait, func() { method(d) })
}

// baseContext is the context of background work: it ends with the transaction layer.
func (d *Dialog) baseContext() context.Context {
	if d.stack == nil || d.stack.base == nil {
		return context.Background()
	}
	return d.stack.base
}

// spawnBye sends the BYE on a counted goroutine.
func (d *Dialog) spawnBye() { d.finalGoodbye(d.sendBye) }

// finalGoodbye is background for a function that writes the last message of a call or a
// subscription: Shutdown waits for it also after the end of its context.
func (d *Dialog) finalGoodbye(f func()) {
	if d.stack == nil || !d.stack.byes.Go(f) {
		f()
	}
}

// source is the address that the INVITE came from; invalid for a call of ours.
func (d *Dialog) source() netip.Addr { return d.arrived.Source() }

// lockBoth takes the stack's mutex and the dialog's, in that order.
func (d *Dialog) lockBoth() (unlock bothLocked) {
	if d.stack != nil {
		d.stack.mutex.Lock()
	}
	d.mutex.Lock()
	return bothLocked{d}
}

type bothLocked struct{ d *Dialog }

func (b bothLocked) unlock() {
	b.d.mutex.Unlock()
	if b.d.stack != nil {
		b.d.stack.mutex.Unlock()
	}
}

// keepBodyLocked gives a body to the callbacks, or keeps it for the first that is
// registered.
func (d *Dialog) keepBodyLocked(body *SimpleBody) {
	if body == nil || d.state == DialogStateTerminated {
		return
	}
	callbacks := d.callbacksLocked().body
	if len(callbacks) == 0 {
		d.putAsideLocked(body)
		return
	}
	if !offerCallsLocked(d, sizeOfBody(body), callbacks, Body(body)) {
		d.stack.counters.bodies.Add(1)
	}
}

// offerCallsLocked calls each callback with a value that holds so many bytes. It reports false,
// and calls none of them, where there is no room for that; a dialog without a stack has room.
func offerCallsLocked[T any](d *Dialog, bytes int, callbacks []func(T), value T) bool {
	calls := make([]func(), len(callbacks))
	for i, callback := range callbacks {
		calls[i] = func() {
			defer d.holds.Give(bytes)
			callback(value)
		}
	}
	if !d.holds.Take(bytes * len(calls)) {
		return false
	}
	if !d.mailbox.Offer(calls...) && d.stack != nil {
		d.holds.Give(bytes * len(calls))
		return false
	}
	return true
}

// keepOfferLocked is keepBodyLocked for an offer that Accept may answer.
func (d *Dialog) keepOfferLocked(offer *SimpleBody) {
	if offer != nil {
		d.keepBodyLocked(offer)
		d.aside.isOffer = true
	}
}

// dropOfferLocked forgets an offer that was kept: it has been answered, and callbacks
// registered from now on get later bodies only.
func (d *Dialog) dropOfferLocked() {
	if d.aside.isOffer {
		d.dropAsideLocked()
		d.aside.isOffer = false
	}
}

// lastDelivery returns a channel that is closed when Terminated has been delivered; nil
// when there is nothing to wait for.
func (d *Dialog) lastDelivery() <-chan struct{} {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.ended == nil {
		return nil
	}
	return d.ended.delivered
}

// stopRingingLocked stops the timers and watches of an unanswered call, and drops the
// INVITE that they hold.
func (d *Dialog) stopRingingLocked() {
	r := d.ringing
	stopTimer(r.limit)
	stopTimer(r.again)
	if r.unwatch != nil {
		r.unwatch()
	}
	d.ringing = ringing{}
}

func stopTimer(t *deadline.Func) { t.Stop() }

// timers are the deadlines of a stack; of none, and of one in the making, each by itself.
func (s *Stack) timers() *deadline.Queue {
	switch {
	case s == nil:
		return deadline.New(func(f func()) bool { f(); return true })
	case s.deadlines == nil:
		return deadline.New(s.tasks.Run)
	}
	return s.deadlines
}

// callbacks are the functions of the application that a call has. The dialog's mutex
// guards them.
type callbacks struct {
	state    []func(DialogState)
	body     []func(Body)
	fork     []func(ForkInfo)
	identity []*identityWatcher
	session  *sessionWatchers // nil: none
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
