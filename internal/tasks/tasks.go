// Package tasks counts goroutines. So their owner can wait for them with a bound
// and report how many are left.
package tasks

import (
	"context"
	"runtime"
	"sync"
)

// Group counts the goroutines that it starts, and other goroutines while they run
// a function of the group. Unlike a sync.WaitGroup it can be waited for with a
// context, reports how many still run, and refuses new ones after Close. The zero
// value is ready to use.
type Group struct {
	mu sync.Mutex // guards the fields below
	// running is the number of functions that have not returned.
	running int
	closed  bool
	// idle is closed when running drops to zero; nil while no goroutine waits.
	idle chan struct{}
}

// Go runs f on a new goroutine and counts it until f returns. After Close it
// reports false, and does not run f.
func (g *Group) Go(f func()) bool {
	if !g.Begin() {
		return false
	}
	go func() {
		// Deferred, so that End runs after a Goexit in f too.
		defer g.End()
		growStack()
		f()
	}()
	return true
}

// Start runs f on a goroutine that is counted elsewhere.
func Start(f func()) {
	go func() {
		growStack()
		f()
	}()
}

// GoLean is Go for functions that mostly wait, of which there are many: the stack of
// the goroutine has the smallest size at first.
func (g *Group) GoLean(f func()) bool {
	if !g.Begin() {
		return false
	}
	go func() {
		defer g.End() // see Go
		f()
	}()
	return true
}

// stackNeeded is the stack size that handling a message needs.
const stackNeeded = 8 << 10

// growStack enlarges a new goroutine's stack while the stack is empty. A stack
// begins with 2 KiB. To copy it twice when it is full of frames costs more than the
// rest of a message's goroutine: 12 % of the CPU of a server.
//
//go:noinline
func growStack() {
	var stack [stackNeeded]byte
	runtime.KeepAlive(&stack)
}

// Run runs f on the calling goroutine and counts it until f returns. After Close it
// reports false, and does not run f. It is for goroutines that the group does not
// start: those of time.AfterFunc.
func (g *Group) Run(f func()) bool {
	if !g.Begin() {
		return false
	}
	// Deferred, so that End runs after a panic or a Goexit in f too.
	defer g.End()
	f()
	return true
}

// Close makes later calls to Go and Run report false. Running functions continue.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Running returns the number of functions that have not returned.
func (g *Group) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// Wait blocks until no function runs or ctx ends. It returns the number of functions
// that still run: zero unless ctx ended first.
func (g *Group) Wait(ctx context.Context) int {
	for {
		idle, n := g.idleChan()
		if n == 0 {
			return 0
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return g.Running()
		}
	}
}

// CloseIdle waits as Wait does, and closes the group when no function runs, or when ctx
// ends. The check and the close are atomic, so that no function begins in between.
func (g *Group) CloseIdle(ctx context.Context) int {
	for {
		idle, n := g.closeIfIdle()
		if n == 0 {
			return 0
		}
		select {
		case <-idle:
		case <-ctx.Done():
			g.Close()
			return g.Running()
		}
	}
}

func (g *Group) closeIfIdle() (idle <-chan struct{}, running int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = g.closed || g.running == 0
	return g.idleLocked(), g.running
}

// Begin counts the work of the caller until End. After Close it reports false, and
// counts nothing.
func (g *Group) Begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running++
	return true
}

// End ends the work that Begin has counted.
func (g *Group) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.running == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

func (g *Group) idleChan() (<-chan struct{}, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.idleLocked(), g.running
}

func (g *Group) idleLocked() <-chan struct{} {
	if g.running > 0 && g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}
