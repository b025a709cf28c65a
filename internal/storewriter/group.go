// Package storewriter writes calls to a store as they change: of each call only the latest
// state, one operation at a time, tried again until the store has done it. It knows neither
// what a call is nor how a store works, and has no goroutine while there is nothing to
// write. No mutex of its own is held while the store is asked.
package storewriter

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Key names a call in the store.
type Key [16]byte

// Result is what the store has said to an operation.
type Result int

const (
	// Unknown: the store could not be reached, or did not answer in time. The operation may
	// have been done or not.
	Unknown Result = iota
	// Done: it was done; the call is ours.
	Done
	// NotKept: the store has nothing under that key. Only Check says so.
	NotKept
	// Moved: another process has the call, or had it at its end.
	Moved
)

// Store is the store, as this process uses it. Its methods are called without locks, and
// return soon after their context ends.
type Store interface {
	Check(ctx context.Context, key Key, fence uint64) Result
	Drop(ctx context.Context, key Key, fence uint64) Result
	// Take makes this process the owner, with the fence that it returns. Moved means that
	// the call has ended.
	Take(ctx context.Context, key Key) (fence uint64, result Result)
}

// Call is what is written. Its methods are called without locks, and never two at once.
type Call interface {
	// Save saves the call as it is now, with that fence, and may call Reading when it reads it.
	// A call of which there is nothing to save is Done.
	Save(ctx context.Context, fence uint64) Result
	// Saved follows a Save that was Done.
	Saved()
	// Moved is called once, when another process has the call.
	Moved()
}

// The times of this package.
const (
	// operationTime bounds one operation.
	operationTime = 5 * time.Second
	// firstPause and longestPause are the pauses before an operation is tried again; each is
	// twice as long as the one before.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
)

// Group has what the writers of one process share. Its fields are set at construction.
type Group struct {
	Store Store
	// Go runs a function on a counted goroutine, and Run on this one; they report false
	// when the process ends.
	Go, Run func(func()) bool
	// Base ends the operations when the process ends.
	Base context.Context
	// IsPrompt promises that an operation returns when its context ends, whatever happens.
	IsPrompt bool
	// DropAll is Store.Drop of several calls at once; nil if the store has no such thing.
	DropAll func(ctx context.Context, calls []Dropped) []Result

	// failures counts the operations that the store has not answered.
	failures atomic.Uint64
	// down is true while the store does not answer, as far as is known.
	down atomic.Bool

	mu sync.Mutex // guards the fields below
	// waiting counts the writers that have something to write.
	waiting int
	// idle is closed when it is zero; nil without waiters.
	idle chan struct{}
	// pauses are the timers of those that wait to try again; closed is true once none may.
	pauses map[*Writer]*time.Timer
	closed bool
	drops  drops
}

// Failures counts the operations that the store has not answered.
func (g *Group) Failures() uint64 { return g.failures.Load() }

// IsDown reports whether the store has not answered lately: it is of little use to wait.
func (g *Group) IsDown() bool { return g.down.Load() }

// Waiting counts the calls whose latest change, or end, is not written yet.
func (g *Group) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// Wait blocks until everything is written, or ctx ends. It returns how many calls are not.
func (g *Group) Wait(ctx context.Context) int {
	for {
		g.mu.Lock()
		if g.waiting == 0 {
			g.mu.Unlock()
			return 0
		}
		if g.idle == nil {
			g.idle = make(chan struct{})
		}
		idle := g.idle
		g.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return g.Waiting()
		}
	}
}

func (g *Group) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting++
}

func (g *Group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	if g.waiting == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// after has a Writer try again later, and reports false once the Group is closed.
func (g *Group) after(w *Writer, wait time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if g.pauses == nil {
		g.pauses = make(map[*Writer]*time.Timer)
	}
	g.pauses[w] = time.AfterFunc(wait, func() {
		if g.endPause(w) {
			w.again()
		}
	})
	return true
}

// endPause reports whether the Writer is still to try again.
func (g *Group) endPause(w *Writer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, waits := g.pauses[w]
	delete(g.pauses, w)
	return waits
}

// Close stops all timers: what was not written stays so.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for w, pause := range g.pauses {
		pause.Stop()
		delete(g.pauses, w)
		g.waiting--
	}
	g.waiting -= g.drops.close()
}

// ask does one operation within its time, and counts it if the store does not answer.
func (g *Group) ask(ctx context.Context, operation func(context.Context) Result) Result {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, operationTime)
		defer cancel()
	}
	result := operation(ctx)
	g.answered(result)
	return result
}

func (g *Group) answered(result Result) {
	if result == Unknown {
		g.failures.Add(1)
	}
	if isDown := result == Unknown; g.down.Load() != isDown {
		g.down.Store(isDown)
	}
}

// nextPause is the pause after one of that length, before the operation is tried again. It
// is spread: many calls may wait for the same store.
func nextPause(last time.Duration) (pause, wait time.Duration) {
	pause = min(max(2*last, firstPause), longestPause)
	return pause, pause/2 + rand.N(pause/2)
}
