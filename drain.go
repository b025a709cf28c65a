package dialog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sipdialog.example/dialog/internal/storewriter"
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
	return &DrainError{Calls: s.registry.CountOpen(), Cause: ctx.Err()}
}

// HandOver gives the calls of the stack to the other processes with the same
// StackConfig.Store, for a deployment: Drain without the wait for calls to end. A call at
// rest, without an INVITE, UPDATE or REFER in progress, is saved, and ends here with
// PartyMoved: its peer is not told, and the next process that looks, or gets a request of
// the peer, goes on with it. Other calls follow when they are at rest. Those in setup first
// become established, or fail. A request for a call that was handed over takes it back for
// that request, until Shutdown. A proxy in front sees from the 503 to its OPTIONS that it
// should choose another process.
//
// HandOver returns when no call is left, or when ctx ends. It then saves the established
// calls that are not at rest as they are, for at most StoreTimeout, and lets go of them: the
// exchange that was open is lost, and REFER subscriptions end. Calls that were not answered
// yet stay, and so do calls that the Store did not take. Shutdown, which should follow,
// likewise saves each established call instead of ending it, and ends all others.
//
// Errors: *DrainError (ctx has ended; calls are left), ErrShutdown (Shutdown was called,
// before or meanwhile), ErrInvalidArgument (there is no Store), ErrNotStarted.
func (s *Stack) HandOver(ctx context.Context) (err error) {
	defer naming("HandOver", &err)
	if ctx == nil {
		return errNilContext("HandOver")
	}
	if s.config != nil && s.config.Store == nil {
		return invalid("no Store")
	}
	if err := s.refuseCalls(); err != nil {
		return err
	}
	s.handingOver.Store(true)
	for ctx.Err() == nil && s.ready() == nil {
		s.handOverAll(ctx, (*Dialog).handOver)
		if s.waitOpenFor(ctx, handOverPause) {
			return s.ready()
		}
	}
	if err := s.ready(); err != nil {
		return err
	}
	s.handOverLeft(context.WithoutCancel(ctx))
	if s.waitOpenFor(context.Background(), 0) {
		return nil
	}
	return s.notDrained(ctx)
}

const (
	// handOverPause is the time after which the calls that were busy are looked at again.
	handOverPause = 20 * time.Millisecond
	// handOversAtOnce bounds the calls that are saved at the same time.
	handOversAtOnce = 64
)

// waitOpenFor is waitOpen for at most so long.
func (s *Stack) waitOpenFor(ctx context.Context, wait time.Duration) (none bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.waitOpen(ctx, 0)
}

// handOverLeft hands over, within StoreTimeout, the established calls that are left.
func (s *Stack) handOverLeft(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.config.storeTimeout())
	defer cancel()
	s.handOverAll(ctx, (*Dialog).handOverBusy)
}

// handOverAll does so with all calls, some at a time, until ctx ends.
func (s *Stack) handOverAll(ctx context.Context, handOver func(*Dialog, context.Context)) {
	calls := make(chan *Dialog)
	var workers sync.WaitGroup
	for range handOversAtOnce {
		workers.Go(func() {
			for d := range calls {
				handOver(d, ctx)
			}
		})
	}
	for _, d := range s.openCalls() {
		if ctx.Err() != nil {
			break
		}
		calls <- d
	}
	close(calls)
	workers.Wait()
}

// handOver hands over a call at rest. Its last step is in the queue of its Call-ID, so that
// no request of the peer is being handled meanwhile.
func (d *Dialog) handOver(ctx context.Context) {
	if d.saveFor(ctx, (*Dialog).isAtRestLocked) {
		d.inQueue(ctx, func() { d.leave((*Dialog).isAtRestLocked) })
	}
}

// handOverBusy hands over an established call at once.
func (d *Dialog) handOverBusy(ctx context.Context) {
	if d.saveFor(ctx, (*Dialog).isKeptLocked) {
		d.leave((*Dialog).isKeptLocked)
	}
}

// saveFor saves a call for its next owner, who is to look at it at once.
func (d *Dialog) saveFor(ctx context.Context, mayLocked func(*Dialog) bool) (saved bool) {
	d.mutex.Lock()
	w, may := d.writerLocked(), mayLocked(d)
	if may {
		d.saved.leaving = true
		w.Note()
	}
	d.mutex.Unlock()
	return may && w.Wait(ctx) == storewriter.Done
}

// inQueue runs f in the queue of the Call-ID, and waits for it until ctx ends.
func (d *Dialog) inQueue(ctx context.Context, f func()) {
	d.stack.mutex.RLock()
	layer := d.stack.layer
	d.stack.mutex.RUnlock()
	done := make(chan struct{})
	if layer == nil || !layer.Later(d.callID, func() { defer close(done); f() }) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// leave ends the call here, as it is in the Store, unless it has changed since.
func (d *Dialog) leave(mayLocked func(*Dialog) bool) {
	end := func() {
		both := d.lockBoth()
		if !mayLocked(d) {
			d.staysLocked()
			both.unlock()
			return
		}
		if !d.saved.leaving || !d.writerLocked().ReleaseSaved() {
			both.unlock() // by another HandOver, which is at work; or a later change
			return
		}
		d.moveAwayLocked(ErrMoved)
		_, finish := d.clearLocked(Cause{}, func(*Dialog, Cause) knowledge { return hasAgreed })
		both.unlock()
		finish()
		d.dropSubscriptions(ErrMoved)
	}
	if !d.stack.byes.Run(end) {
		end()
	}
}

// staysLocked undoes saveFor: no other process is to look at the call yet.
func (d *Dialog) staysLocked() {
	if d.isKeptLocked() {
		d.saved.leaving = false
		d.writerLocked().Mark()
	}
}

// isKeptLocked reports whether the call is established and is not being ended: then the
// Store may keep it.
func (d *Dialog) isKeptLocked() bool {
	return d.writerLocked() != nil && d.state == DialogStateEstablished && d.ending == nil && !d.peerHungUp
}

// isAtRestLocked reports whether, besides, nothing is going on in the call that another
// process could not go on with.
func (d *Dialog) isAtRestLocked() bool {
	return d.isKeptLocked() && d.phase == phaseConfirmed && !d.ackWaits && len(d.retransmissions) == 0 &&
		d.mayInviteLocked() == nil && d.currentLocked().updateOut == nil && !d.inUseLocked()
}

// DrainError says that calls were left when the context of [Stack.Drain] or
// [Stack.HandOver] ended.
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
