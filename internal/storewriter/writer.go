package storewriter

import (
	"context"
	"sync"
	"time"
)

// Writer writes one call. All methods may be called from any goroutine, and, but for Wait
// and Confirm, with any lock of the call held; a nil Writer does nothing.
type Writer struct {
	group *Group
	key   Key

	mu    sync.Mutex // guards the fields below
	fence uint64
	call  Call // nil once the call has ended
	stage stage
	// marked counts the changes, saved those that are saved, and read those that the Save under
	// way has in it.
	marked, saved, read uint64
	// certain is true if no process can continue the call: its peer has ended it.
	certain bool
	// tried is true once a Save was begun, or the store had the call before: it may have it.
	tried bool
	// busy is true while an operation is being done, or waits to be tried again after pause.
	busy  bool
	pause time.Duration
	// confirmed is when the store has last said that the call is ours.
	confirmed time.Time
	// progress is closed when something was saved, or nothing will be; nil without
	// waiters.
	progress chan struct{}
}

// stage is what a Writer has to do.
type stage uint8

const (
	keeping  stage = iota // to save the changes
	dropping              // to tell the store that the call has ended
	released              // nothing: the call has ended
	moved                 // nothing: another process has the call
)

// NewCall returns the Writer of a new call, of which the store knows nothing.
func (g *Group) NewCall(key Key, call Call) *Writer {
	return &Writer{group: g, key: key, fence: 1, call: call}
}

// TakenCall returns the Writer of a call that another process had before. confirmed is when
// the store has said that it is ours; the zero value if it has not.
func (g *Group) TakenCall(key Key, call Call, fence uint64, confirmed time.Time) *Writer {
	return &Writer{group: g, key: key, fence: fence, call: call, tried: true, confirmed: confirmed}
}

// Fence returns the fence of the call, zero for a nil Writer.
func (w *Writer) Fence() uint64 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fence
}

// Key names the call.
func (w *Writer) Key() Key { return w.key }

// Raise says that the call was taken from the store once more, by this process, at confirmed.
// It is saved with its new fence.
func (w *Writer) Raise(fence uint64, confirmed time.Time) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if fence <= w.fence {
		return
	}
	w.fence, w.confirmed = fence, confirmed
	if w.stage == keeping {
		w.marked++
		w.startLocked()
	}
}

// Mark says that the call has changed. It will be saved.
func (w *Writer) Mark() { w.change(true) }

// Note is Mark for one who calls Wait next: that begins the Save.
func (w *Writer) Note() { w.change(false) }

func (w *Writer) change(begins bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage != keeping {
		return
	}
	w.marked++
	if begins {
		w.startLocked()
	}
}

// Reading says that Save reads the call now, with its lock: what was marked since that Save
// was begun is in it too.
func (w *Writer) Reading() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read = w.marked
}

// Drop says that the call has ended. If the peer has ended it, that is certain: the call goes
// from the store even if another process has taken it meanwhile. Otherwise that one may go
// on with it.
func (w *Writer) Drop(certain bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == keeping {
		w.certain = certain
		w.toLocked(dropping)
		if w.tried {
			w.startLocked()
		}
	}
}

// Release says that the call is no longer ours, though it has not ended: nothing more is
// written of it.
func (w *Writer) Release() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == keeping {
		w.toLocked(released)
	}
}

// ReleaseSaved is Release for a call whose changes are all saved. It reports false, and does
// nothing, for any other.
func (w *Writer) ReleaseSaved() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage != keeping || w.saved < w.marked {
		return false
	}
	w.toLocked(released)
	return true
}

// Wait waits until all changes are saved that were marked before. It is Done also for a call
// that has ended, and Unknown if ctx ends first.
func (w *Writer) Wait(ctx context.Context) Result {
	if w == nil {
		return Done
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for marked := w.marked; ; {
		switch {
		case w.stage == moved:
			return Moved
		case w.stage != keeping || w.saved >= marked:
			return Done
		case !w.busy && w.saveLocked(ctx):
			continue
		}
		if !w.waitLocked(ctx) {
			w.group.down.Store(true)
			return Unknown
		}
	}
}

// saveLocked begins the Save that Note has left to Wait. With a prompt store it does it, without
// the mutex, and reports true: to have another goroutine do it, and wait for that, costs more
// than all the rest of a Save.
func (w *Writer) saveLocked(ctx context.Context) (tried bool) {
	if !w.group.IsPrompt {
		w.startLocked()
		return false
	}
	w.beginLocked()
	w.mu.Unlock()
	defer w.mu.Lock()
	if !w.group.Run(func() { w.stepAside(ctx) }) {
		w.rest()
		return false
	}
	return true
}

// waitLocked waits for progress, without the mutex, and reports false when ctx has ended.
func (w *Writer) waitLocked(ctx context.Context) bool {
	if w.progress == nil {
		w.progress = make(chan struct{})
	}
	progress := w.progress
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-progress:
		return true
	case <-ctx.Done():
		return false
	}
}

// Confirm reports whether the call is ours: it asks the store unless that has said so within
// the time age. Unknown means that the store does not answer; a call that has ended is Done.
func (w *Writer) Confirm(ctx context.Context, age time.Duration) Result {
	if w == nil {
		return Done
	}
	w.mu.Lock()
	stage, fence, isFresh := w.stage, w.fence, w.freshLocked(age)
	w.mu.Unlock()
	switch {
	case stage == moved:
		return Moved
	case stage != keeping || isFresh:
		return Done
	}
	began := time.Now()
	result := w.group.ask(ctx, func(ctx context.Context) Result { return w.group.Store.Check(ctx, w.key, fence) })
	switch result {
	case NotKept: // the store has lost the record, or does not have it yet
		w.Mark()
		result = Done
	case Moved:
		if !w.lose(fence) {
			result = Done
		}
	}
	if result == Done {
		w.confirm(began)
	}
	return result
}

// IsConfirmed reports whether the store has said within the time age that the call is ours.
// It does not ask.
func (w *Writer) IsConfirmed(age time.Duration) bool {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.freshLocked(age)
}

func (w *Writer) freshLocked(age time.Duration) bool {
	return !w.confirmed.IsZero() && time.Since(w.confirmed) <= age
}

func (w *Writer) confirm(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at.After(w.confirmed) {
		w.confirmed = at
	}
}

// lose ends the writing of a call that another process has. It reports false if this process
// has a higher fence by now.
func (w *Writer) lose(fence uint64) bool {
	w.mu.Lock()
	if w.fence > fence {
		w.mu.Unlock()
		return false
	}
	call, ours := w.call, w.stage == keeping
	if ours {
		w.toLocked(moved)
	}
	w.mu.Unlock()
	if ours {
		call.Moved()
	}
	return true
}

// toLocked enters another stage. The call itself is no longer needed.
func (w *Writer) toLocked(next stage) {
	w.stage, w.call = next, nil
	w.progressLocked()
}

func (w *Writer) progressLocked() {
	if w.progress != nil {
		close(w.progress)
		w.progress = nil
	}
}

// startLocked starts the goroutine, unless it runs. A Writer that waits before it retries an
// operation keeps waiting.
func (w *Writer) startLocked() {
	if w.busy {
		return
	}
	w.beginLocked()
	if !w.spawnLocked() {
		w.restLocked()
	}
}

func (w *Writer) beginLocked() {
	w.busy = true
	w.group.begin()
}

// spawnLocked has what there is to do done elsewhere, and reports false when the process ends.
func (w *Writer) spawnLocked() bool {
	return w.stage == dropping && w.group.dropSoon(w) || w.group.Go(w.work)
}

func (w *Writer) restLocked() {
	w.busy = false
	w.group.end()
}

func (w *Writer) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restLocked()
}

// operation is one of the store: a Drop, or a Save.
type operation struct {
	isDrop, isCertain bool
	call              Call
	fence             uint64
}

// work executes operations. It returns when none is left, or when one has to be retried
// later.
func (w *Writer) work() {
	for w.step(w.group.Base) {
	}
}

// stepAside does one operation, and leaves what else there is to do to others.
func (w *Writer) stepAside(ctx context.Context) {
	if w.step(ctx) {
		w.goOn()
	}
}

// goOn has done elsewhere what else there is to do.
func (w *Writer) goOn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, more := w.pendingLocked(); !more || !w.spawnLocked() {
		w.restLocked()
	}
}

// step does one operation, and reports whether there may be another one to do at once. If the
// store ends the goroutine (runtime.Goexit), it has not answered.
func (w *Writer) step(ctx context.Context) (more bool) {
	o, ok := w.next()
	if !ok {
		return false
	}
	returned := false
	defer func() {
		if !returned {
			w.later()
		}
	}()
	began := time.Now()
	result := w.group.ask(ctx, func(ctx context.Context) Result { return w.do(ctx, o) })
	more = w.did(o, result, began)
	returned = true
	return more
}

// did continues after an operation.
func (w *Writer) did(o operation, result Result, began time.Time) (more bool) {
	switch {
	case result == Unknown, result == Moved && o.isCertain && !w.reclaim():
		w.later()
		return false
	case result == Moved && o.fence < w.Fence(): // it was not, or is ours again: once more
	case o.isDrop: // if it has moved, it is not ours to drop
		w.dropped()
	case result == Moved:
		w.lose(o.fence)
	default:
		o.call.Saved()
		w.wrote(began)
	}
	return true
}

// reclaim takes a call that has ended from the process that has taken it meanwhile, so that
// it can be dropped. It reports false if the store does not answer.
func (w *Writer) reclaim() bool {
	var fence uint64
	result := w.group.ask(w.group.Base, func(ctx context.Context) (r Result) {
		fence, r = w.group.Store.Take(ctx, w.key)
		return r
	})
	if result == Done {
		w.Raise(fence, time.Time{})
	}
	return result != Unknown
}

func (w *Writer) do(ctx context.Context, o operation) Result {
	if o.isDrop {
		return w.group.Store.Drop(ctx, w.key, o.fence)
	}
	return o.call.Save(ctx, o.fence)
}

// next returns the next operation, and false if there is none.
func (w *Writer) next() (o operation, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o, ok = w.pendingLocked(); !ok {
		w.restLocked()
	}
	w.tried, w.read = w.tried || ok, w.marked
	return o, ok
}

func (w *Writer) pendingLocked() (o operation, ok bool) {
	switch {
	case w.stage == keeping && w.saved < w.marked:
		return operation{call: w.call, fence: w.fence}, true
	case w.stage == dropping && w.tried:
		return operation{isDrop: true, isCertain: w.certain, fence: w.fence}, true
	}
	return operation{}, false
}

// later tries again after a pause.
func (w *Writer) later() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var wait time.Duration
	w.pause, wait = nextPause(w.pause)
	if !w.group.after(w, wait) {
		w.restLocked()
	}
}

// again is later's second half.
func (w *Writer) again() {
	if !w.group.Run(w.work) {
		w.rest()
	}
}

func (w *Writer) wrote(began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saved, w.pause = w.read, 0
	if began.After(w.confirmed) {
		w.confirmed = began
	}
	w.progressLocked()
}

func (w *Writer) dropped() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stage = released
}
