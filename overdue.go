package dialog

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/takeover"
)

// What a process looks for in the Store by itself: calls of others whose session timer is
// overdue, and calls of its own that others have.

const (
	// sweepPause is the time between two sweeps, on average: those of several processes are
	// not to meet. A sweep takes sweepBatch calls at once, and the next ones after
	// batchPause. sweepTime bounds how long the Store is waited for.
	sweepPause, sweepBatch, batchPause, sweepTime = 5 * time.Second, 200, 100 * time.Millisecond, 5 * time.Second
	// reviewPause is the time between two reviews, which ask the Store for each call that it
	// was not asked for within reviewAge. So one that has lost a call has it again within five
	// minutes.
	reviewPause, reviewAge = time.Minute, 3 * time.Minute
	// noticePause is the time for which notices of the Store are collected.
	noticePause = 200 * time.Millisecond
)

// takeovers is what a stack with a Store has to go on with the calls of others.
type takeovers struct {
	gate    *takeover.Gate[StoreKey]
	failing atomic.Bool // the Store did not answer last time
	notices takeover.Notices[StoreKey]

	// The stack's mutex guards the fields below.

	sweep, review, notice *deadline.Func
	unwatch               func()
}

// watchStore begins to look for what is overdue: at once, since this process may have been
// started anew at the address of one that died.
func (s *Stack) watchStore() {
	t := s.takeovers
	if t == nil {
		return
	}
	if s.config.SessionExpires == 0 {
		s.log.Warn("without SessionExpires, calls of a dead process stay in the Store until the peer sends a request")
	}
	unwatch := func() {}
	if notifier, ok := s.config.Store.(MoveNotifier); ok {
		unwatch = notifier.NotifyMoved(s.owner, s.noticeMoved)
	}
	s.mutex.Lock()
	serves := s.state == stackServing
	if serves {
		t.unwatch = unwatch
		t.sweep = s.every(0, s.sweepOverdue)
		t.review = s.every(reviewPause, s.reviewCalls)
	}
	s.mutex.Unlock()
	if !serves {
		unwatch()
	}
}

// every is a timer of the stack's, which its function sets again.
func (s *Stack) every(wait time.Duration, f func()) *deadline.Func {
	return s.timers().AfterFunc(wait, f)
}

// unwatchStore ends what watchStore has begun.
func (s *Stack) unwatchStore() {
	t := s.takeovers
	if t == nil {
		return
	}
	s.mutex.Lock()
	unwatch := t.unwatch
	t.unwatch = nil
	for _, timer := range []*deadline.Func{t.sweep, t.review, t.notice} {
		stopTimer(timer)
	}
	s.mutex.Unlock()
	if unwatch != nil {
		unwatch()
	}
}

// again sets a timer of watchStore again.
func (s *Stack) again(timer **deadline.Func, wait time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.state == stackServing && *timer != nil {
		(*timer).Reset(wait)
	}
}

// sweepOverdue takes calls over whose session timer is overdue, because their process has
// died or cannot refresh them. They are refreshed at once.
func (s *Stack) sweepOverdue() {
	wait, most := sweepPause/2+rand.N(sweepPause), min(sweepBatch, s.vacant())
	if most > 0 {
		if n := s.takeOverdue(most); n == most {
			wait = batchPause
		}
	}
	s.again(&s.takeovers.sweep, wait)
}

// vacant is how many overdue calls may be taken; none by a stack that drains.
func (s *Stack) vacant() int {
	if s.isDraining() {
		return 0
	}
	return s.room()
}

// room is how many more calls are within MaxDialogs.
func (s *Stack) room() int {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	limit := s.config.maxDialogs()
	switch {
	case s.readyLocked() != nil:
		return 0
	case limit < 0:
		return sweepBatch
	}
	return max(0, limit-len(s.dialogs))
}

// takeOverdue takes over at most so many calls, and returns how many.
func (s *Stack) takeOverdue(most int) int {
	ctx, cancel := context.WithTimeout(s.base, sweepTime)
	defer cancel()
	asked := time.Now()
	var list []Record
	err := ErrPanic
	s.askStore(func(store Store) error {
		if peeker, ok := store.(Peeker); ok {
			list, err = peeker.DueIf(ctx, asked, s.owner, most, s.canGoOn)
		} else {
			list, err = store.Due(ctx, asked, s.owner, most)
		}
		return err
	})
	s.storeAnswered(err)
	for _, r := range list { // also with an error: they are ours
		s.goOnOverdue(r, asked)
	}
	return len(list)
}

// canGoOn reports whether this process can go on with a call of the Store. One with which it
// cannot is looked at again when a request would look at it.
func (s *Stack) canGoOn(r Record) bool {
	gate, now := s.takeovers.gate, time.Now()
	if gate.Remembers(r.Key, takeover.Unusable, now) {
		return false
	}
	if s.readRecord(r) != nil {
		return true
	}
	gate.Note(r.Key, takeover.Unusable, now)
	return false
}

// goOnOverdue goes on with a call in the queue of its Call-ID: a request of the peer may
// have come for it.
func (s *Stack) goOnOverdue(r Record, asked time.Time) {
	snapshot := s.readRecord(r)
	if snapshot == nil {
		return // it is due again for another process
	}
	s.mutex.RLock()
	layer := s.layer
	s.mutex.RUnlock()
	layer.Later(snapshot.CallID, func() { s.goOn(snapshot, ownership{fence: r.Fence, confirmed: asked}, Takeover{}) })
}

// reviewCalls asks the Store for calls that it was not asked for lately: another process may
// have them, or the Store may have lost them.
func (s *Stack) reviewCalls() {
	s.confirmCalls(reviewAge, func(*storewriter.Writer) bool { return true })
	s.again(&s.takeovers.review, reviewPause)
}

// noticeMoved notes that another process has taken a call of ours.
func (s *Stack) noticeMoved(key StoreKey) {
	t := s.takeovers
	if !t.notices.Add(key) {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.state == stackServing {
		t.notice = s.every(noticePause, s.reviewNoticed)
	}
}

// reviewNoticed asks the Store for the calls that it has said were moved: a notice may be
// late.
func (s *Stack) reviewNoticed() {
	moved := s.takeovers.notices.Take()
	s.confirmCalls(0, func(w *storewriter.Writer) bool {
		_, ok := moved[StoreKey(w.Key())]
		return ok
	})
}

// confirmCalls asks the Store for those calls that it was not asked for within the time age.
// Calls that have moved end here. It gives up when the Store does not answer.
func (s *Stack) confirmCalls(age time.Duration, which func(*storewriter.Writer) bool) {
	for _, d := range s.Dialogs() {
		w := d.writer()
		if w == nil || !which(w) {
			continue
		}
		ctx, cancel := context.WithTimeout(s.base, s.config.storeTimeout())
		result := w.Confirm(ctx, age)
		cancel()
		if result == storewriter.Unknown {
			return
		}
	}
}
