package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// Shutdown ends all calls and then the stack: BYE to established calls, CANCEL
// to those we placed, 503 to those that ring here, and a last NOTIFY (reason
// noresource) where the outcome of a REFER is still due; the peers' answers are
// waited for. New calls are refused meanwhile. It returns when nothing of the
// stack's is left: no call, no goroutine, no socket, no timer.
//
// When ctx ends first it stops waiting, and returns within a tenth of a second. That
// is for what can be written at once: every call has then been sent its BYE, CANCEL or
// final answer, unless RFC 3261 9.1 or 15 forbade it or its peer could not be
// reached, and every subscription its last NOTIFY. Callbacks of the application's that
// do not return are waited for until ctx or the grace time ends. Sockets and timers
// are closed all the same.
//
// It returns nil only when every peer was told, and has said so or has had the 64*T1
// for that after which RFC 3261 counts the call as over; one that has answered an INVITE
// with nothing at all in TxTimeout is not there to be told. Otherwise the error, a
// *ShutdownError, counts what is left. A second call waits for the first, within its
// own ctx, and returns the same. May be called before Start, and inside a callback
// (which is then one of those that do not return).
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

// What Shutdown may take beyond its context: until then what is being written may
// leave, what is closed is waited for, and it returns.
const (
	writeOvertime  = 50 * time.Millisecond
	closeOvertime  = 80 * time.Millisecond
	returnOvertime = 95 * time.Millisecond
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
	s.waitCallbacks(ctx, written)
	s.closeLayers(ctx, written)
	return s.closeJournal(ctx)
}

// closeJournal waits until the log records have left, up to the grace time; the last
// one says what is left behind.
func (s *Stack) closeJournal(ctx context.Context) error {
	late, stop := overtime(ctx, writeOvertime)
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

// hangupAll ends the calls, the next ones when no more than a batch is not answered.
// Where that takes half of T1, by which no BYE is repeated yet, it may be the
// peers that are slow or gone: more go then, and ever more until they keep up. What
// is left when ctx ends goes at once.
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

// waitOpen waits until at most so many calls are left of which a peer is not
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
// when Shutdown's context has ended: that takes no answer of the peer's. So do refusals
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

// waitCallbacks waits for the application's callbacks, up to the grace time.
func (s *Stack) waitCallbacks(ctx, written context.Context) {
	if ctx.Err() != nil { // they have just begun: of the end of their calls
		ctx = written
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
	// Until here what had been received was answered, a BYE that crossed ours
	// by its tombstone.
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
