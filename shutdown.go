package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"
)

// Shutdown ends all calls and then the stack: BYE to established calls, CANCEL
// to those we placed, 503 to those that ring here, and a last NOTIFY (reason
// noresource) where the outcome of a REFER is still due; the peers' answers are
// waited for. New calls are refused meanwhile. It returns when nothing of the
// stack's is left: no call, no goroutine, no socket, no timer.
//
// When ctx ends first it stops waiting, but every call has then been sent its
// BYE, CANCEL or final answer, unless RFC 3261 9.1 or 15 forbade it, and every
// subscription its last NOTIFY. Callbacks
// of the application's that do not return are waited for until ctx or the grace
// time ends. The error, a *ShutdownError, counts what is left; sockets and
// timers are closed all the same. A second call waits for the first, within
// its own ctx, and returns the same. May be called before Start, and inside a
// callback (which is then one of those that do not return).
func (s *Stack) Shutdown(ctx context.Context) (err error) {
	defer naming("Shutdown", &err)
	if ctx == nil {
		return errNilContext("Shutdown")
	}
	if s.config == nil {
		return errNotMade
	}
	if !s.beginShutdown() {
		select {
		case <-s.stopped:
			return s.shutdownResult()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.endShutdown(s.stop(ctx))
}

// shutdownInGrace is Shutdown for a context of Start that has ended.
func (s *Stack) shutdownInGrace() {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.graceTime())
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.log.Warn("shutdown incomplete", "error", err)
	}
}

// beginShutdown reports whether the caller is the one to do it.
func (s *Stack) beginShutdown() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.state >= stackStopping {
		return false
	}
	s.state = stackStopping
	if s.unwatch != nil {
		s.unwatch()
	}
	return true
}

func (s *Stack) shutdownResult() error {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.stopErr
}

func (s *Stack) endShutdown(err error) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.state, s.stopErr = stackStopped, err
	close(s.stopped)
	return err
}

// stop does the work of Shutdown, with no lock held over any of it.
func (s *Stack) stop(ctx context.Context) error {
	s.waitStarted(ctx)
	s.hangupAll(ctx)
	for _, d := range s.openCalls() {
		d.closeSubscriptions(ErrShutdown, true)
	}
	s.waitOpen(ctx, 0)
	for _, d := range s.openCalls() {
		d.hurrySubscriptions()
	}
	s.waitWritten()
	result := &ShutdownError{}
	for _, d := range s.openCalls() {
		untold, open := d.unreleased()
		switch {
		case untold:
			result.Unreleased++
		case open:
			result.Unanswered++
		}
		d.finish(Cause{By: PartyShutdown})
		d.dropSubscriptions(ErrShutdown)
	}
	s.waitCallbacks(ctx, result)
	s.closeRooms()
	if result.Unreleased == 0 && result.Unanswered == 0 && result.Callbacks == 0 {
		return nil
	}
	result.Cause = ctx.Err()
	return result
}

// hangupBatch is how many calls Shutdown ends before it looks whether the far ends
// keep up. If all left at once, a stack with many would need a goroutine for each
// BYE, and repeat most of them before it has read the answers.
const hangupBatch = 500

// hangupAll ends the calls, the next ones when no more than a batch is not answered.
// Where that takes half of T1, by which no BYE is repeated yet, it may be the far
// ends that are slow or gone: more go then, and ever more until they keep up. What
// is left when ctx ends goes at once.
func (s *Stack) hangupAll(ctx context.Context) {
	calls := s.openCalls()
	for batch := hangupBatch; len(calls) > 0; {
		next := calls[:min(batch, len(calls))]
		calls = calls[len(next):]
		for _, d := range next {
			d.hangup(&ending{cause: Cause{By: PartyShutdown}, status: sip.StatusServiceUnavailable})
		}
		if s.keepUp(ctx, len(calls)+batch) {
			batch = hangupBatch
		} else {
			batch += hangupBatch
		}
	}
}

// keepUp reports whether within half of T1 at most so many calls are left.
func (s *Stack) keepUp(ctx context.Context, most int) bool {
	ctx, cancel := context.WithTimeout(ctx, s.config.timers().T1/2)
	defer cancel()
	return s.waitOpen(ctx, most)
}

// waitStarted waits until no Start is at work, or ctx ends.
func (s *Stack) waitStarted(ctx context.Context) {
	s.mutex.RLock()
	started := s.started
	s.mutex.RUnlock()
	if started == nil {
		return
	}
	select {
	case <-started:
	case <-ctx.Done():
	}
}

// openCalls returns the calls of which something is left.
func (s *Stack) openCalls() []*Dialog {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	list := make([]*Dialog, 0, len(s.dialogs)+len(s.releasing)+len(s.subscribed))
	for _, index := range []map[DialogKey]*Dialog{s.dialogs, s.releasing, s.subscribed} {
		for _, d := range index {
			list = append(list, d)
		}
	}
	return list
}

// waitOpen waits until at most so many calls are left of which a far end is not
// released or a subscription has not ended, and reports false when ctx ends first.
func (s *Stack) waitOpen(ctx context.Context, most int) bool {
	s.mutex.Lock()
	if s.openLocked() <= most {
		s.mutex.Unlock()
		return true
	}
	few := make(chan struct{})
	s.few, s.most = few, most
	s.mutex.Unlock()
	select {
	case <-few:
		return true
	case <-ctx.Done():
		return false
	}
}

// waitWritten lets the BYEs and last NOTIFYs leave that are being written, also
// when Shutdown's context has ended: that takes no answer of the peer's.
func (s *Stack) waitWritten() {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.graceTime())
	defer cancel()
	s.byes.Wait(ctx)
}

// waitCallbacks waits for the application's callbacks, up to the grace time.
func (s *Stack) waitCallbacks(ctx context.Context, result *ShutdownError) {
	grace, cancel := context.WithTimeout(ctx, s.config.graceTime())
	defer cancel()
	result.Callbacks = s.calls.CloseIdle(grace)
}

// closeRooms ends transactions, sockets, timers and our own goroutines.
func (s *Stack) closeRooms() {
	s.mutex.RLock()
	client, sockets := s.client, s.sockets
	s.mutex.RUnlock()
	s.endDecisions()
	if s.endLife != nil {
		s.endLife()
	}
	s.tasks.Close()
	s.byes.Close()
	if client != nil {
		client.Close()
	}
	// Until here what had been received was answered, a BYE that crossed ours
	// by its tombstone.
	s.mutex.Lock()
	s.client = nil
	s.dropTombsLocked()
	s.mutex.Unlock()
	if sockets != nil {
		_ = sockets.Close()
	}
	// All they wait for has ended or is bounded by a timer of ours.
	s.tasks.Wait(context.Background())
	s.byes.Wait(context.Background())
}
