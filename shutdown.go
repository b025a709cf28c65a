package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// Shutdown ends all calls and then the stack. It sends BYE to established calls, CANCEL
// to unanswered outgoing calls, 503 to ringing incoming calls, and a last NOTIFY (reason
// noresource) for each REFER without an outcome, and waits for the peers' responses. New
// calls are refused meanwhile. It returns when the stack has no call, no goroutine, no
// socket and no timer left.
//
// If ctx ends first, Shutdown stops waiting, and returns within a tenth of a second. This
// time is for messages that can be written at once: every call has then been sent its
// BYE, CANCEL or final response, unless RFC 3261 9.1 or 15 forbade it or its peer could
// not be reached, and every subscription its last NOTIFY. Shutdown waits for running
// callbacks of the application until ctx or the grace time ends. Sockets and timers are
// closed in any case.
//
// Shutdown returns nil only if every peer was told, and has confirmed that, or has had
// the 64*T1 after which the call is over by RFC 3261. A peer that did not respond to an
// INVITE at all in TxTimeout cannot be told, and is not counted. Otherwise Shutdown
// returns a *ShutdownError with the numbers of the calls and callbacks that are left. A
// second call waits for the first, within its own ctx, and returns the same. Shutdown may
// be called before Start, and inside a callback (which then counts as still running).
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
	return s.endShutdown(s.stopInTime(ctx))
}

// The times that Shutdown may take beyond its context: for writes in progress, for the
// callbacks of what ends with them, for the close of the layers, for the log records of all
// that, and until its return. Each step may use up its time.
const (
	writeOvertime    = 50 * time.Millisecond
	callbackOvertime = 65 * time.Millisecond
	closeOvertime    = 80 * time.Millisecond
	logOvertime      = 90 * time.Millisecond
	returnOvertime   = 95 * time.Millisecond
)

// overtime is a context that ends so long after another.
func overtime(ctx context.Context, extra time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(extra, cancel)
		context.AfterFunc(late, func() { timer.Stop() })
	})
	return late, func() { stop(); cancel() }
}

// stopInTime is stop, and returns in time even if a Trace or log handler of the
// application's blocks: the sockets are closed, and the rest follows when that returns.
func (s *Stack) stopInTime(ctx context.Context) error {
	late, cancel := overtime(ctx, returnOvertime)
	defer cancel()
	result := make(chan error, 1)
	s.stopping.Go(func() { result <- s.stop(ctx) })
	select {
	case err := <-result:
		s.stopping.Wait(late) // it has only to return
		return err
	case <-late.Done():
	}
	s.cancelBase()
	if sockets := s.socketsNow(); sockets != nil {
		sockets.CloseBy(late, late)
	}
	for _, d := range s.openCalls() {
		d.countUnreleased()
	}
	return s.leftBehind(ctx, true)
}

// socketsNow is nil before Start.
func (s *Stack) socketsNow() *transport.Layer {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.sockets
}

// shutdownInGrace is Shutdown after the end of Start's context.
func (s *Stack) shutdownInGrace() {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.graceTime())
	defer cancel()
	_ = s.Shutdown(ctx) // logged, and returned by the Shutdown that comes later
}

// beginShutdown reports whether the caller is the first.
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
	written, cancel := overtime(ctx, writeOvertime)
	defer cancel()
	s.waitStarted(ctx)
	s.unwatchStore()
	s.parts.Shutdown()
	if s.handingOver.Load() {
		s.handOverLeft(written)
	}
	s.hangupAll(ctx, written)
	for _, d := range s.openCalls() {
		d.closeSubscriptions(ErrShutdown, true)
	}
	s.waitOpen(ctx, 0)
	for _, d := range s.openCalls() {
		d.flushLastNotifies()
	}
	s.waitWritten(written)
	for _, d := range s.openCalls() {
		d.clearUnreleased()
		d.dropSubscriptions(ErrShutdown)
	}
	s.waitStore(ctx, written)
	s.waitCallbacks(ctx)
	s.closeLayers(ctx, written)
	return s.closeJournal(ctx)
}

// closeJournal waits until the log records are delivered, up to the grace time. The last
// record has the numbers of calls and callbacks that are left.
func (s *Stack) closeJournal(ctx context.Context) error {
	late, stop := overtime(ctx, logOvertime)
	defer stop()
	grace, cancel := context.WithTimeout(late, s.config.graceTime())
	defer cancel()
	s.journal.Wait(grace)
	err := s.leftBehind(ctx, false)
	if err != nil {
		s.log.Warn("shutdown incomplete", "error", err)
	}
	s.journal.Close(grace)
	return err
}

// leftBehind is the result of Shutdown; interrupted says that it was not finished.
func (s *Stack) leftBehind(ctx context.Context, interrupted bool) error {
	s.mutex.Lock()
	result := &ShutdownError{Unreleased: s.untold, Unanswered: s.unanswered, Callbacks: s.callbacksRunning() + s.journal.Running()}
	s.mutex.Unlock()
	if *result == (ShutdownError{}) && !interrupted {
		return nil
	}
	result.Cause = ctx.Err()
	return result
}

// noteEndLocked counts the calls that end during Shutdown by the knowledge of their
// peers.
func (s *Stack) noteEndLocked(told knowledge) {
	switch {
	case s == nil || s.state < stackStopping:
	case told == wasTold:
		s.unanswered++
	case told == knowsNothing:
		s.untold++
	}
}

// hangupBatch is how many calls Shutdown ends before it checks whether the peers
// respond. If all BYEs left at once, a stack with many calls would need a goroutine for
// each, and would repeat most of them before it has read the responses.
const hangupBatch = 500

// hangupAll ends the calls in batches. The next batch follows when at most a batch is
// unanswered, or after half of T1, before any BYE is repeated: then the peers may be slow
// or gone, and each next batch is larger until they keep up. When ctx ends, all remaining
// calls are ended at once.
func (s *Stack) hangupAll(ctx, written context.Context) {
	calls := s.openCalls()
	for batch := hangupBatch; len(calls) > 0; {
		next := calls[:min(batch, len(calls))]
		calls = calls[len(next):]
		for _, d := range next {
			if written.Err() != nil {
				return
			}
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

// waitOpen waits until at most so many calls are left of which a peer is not
// released or a subscription has not ended, and reports false when ctx ends first.
func (s *Stack) waitOpen(ctx context.Context, most int) bool {
	s.mutex.Lock()
	wait := s.registry.Await(most)
	s.mutex.Unlock()
	select {
	case <-wait.Few():
	case <-ctx.Done():
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.registry.GiveUp(wait)
}

// waitWritten lets the BYEs and last NOTIFYs leave that are being written, also
// when Shutdown's context has ended: that needs no response of the peer. So do refusals
// of calls whose connection is lost: they leave by a new one.
func (s *Stack) waitWritten(written context.Context) {
	grace, cancel := context.WithTimeout(written, s.config.graceTime())
	defer cancel()
	s.byes.Wait(grace)
	s.mutex.RLock()
	layer := s.layer
	s.mutex.RUnlock()
	if layer != nil {
		layer.WaitRefused(grace)
	}
}

// waitStore waits until the Store knows how all calls have ended, up to the grace time.
func (s *Stack) waitStore(ctx, written context.Context) {
	if s.writers == nil {
		return
	}
	if ctx.Err() != nil { // the calls have just ended
		ctx = written
	}
	grace, cancel := context.WithTimeout(ctx, s.config.graceTime())
	defer cancel()
	s.writers.Wait(grace)
	s.writers.Close()
}

// waitCallbacks waits for the application's callbacks, up to the grace time.
func (s *Stack) waitCallbacks(ctx context.Context) {
	if ctx.Err() != nil { // they have just begun: of the end of their calls
		late, stop := overtime(ctx, callbackOvertime)
		defer stop()
		ctx = late
	}
	grace, cancel := context.WithTimeout(ctx, s.config.graceTime())
	defer cancel()
	s.deliveries.CloseIdle(grace)
	s.calls.CloseIdle(grace)
	s.running.Wait(grace)
}

// closeLayers ends transactions, sockets, timers and our own goroutines.
func (s *Stack) closeLayers(ctx, written context.Context) {
	closed, stop := overtime(ctx, closeOvertime)
	defer stop()
	closed, cancel := context.WithTimeout(closed, s.config.graceTime())
	defer cancel()
	s.mutex.RLock()
	client, sockets := s.client, s.sockets
	s.mutex.RUnlock()
	s.endDecisions()
	if s.cancelBase != nil {
		s.cancelBase()
	}
	s.tasks.Close()
	s.byes.Close()
	if client != nil {
		client.CloseBy(closed)
	}
	// Until here all received requests were answered, a BYE that crossed ours by its
	// tombstone.
	s.mutex.Lock()
	s.client = nil
	s.dropTombstonesLocked()
	s.mutex.Unlock()
	if sockets != nil {
		sockets.CloseBy(written, closed)
	}
	// All they wait for has ended or is bounded by a timer of ours.
	s.tasks.Wait(closed)
	s.byes.Wait(closed)
}
