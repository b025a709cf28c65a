// Package tasks counts goroutines, so that whoever started them can wait for
// them with a bound and say how many are left.
package tasks

import (
	"context"
	"runtime"
	"sync"
)

// Group counts the goroutines started through it, and those that run something
// of it. Unlike a sync.WaitGroup it
// can be waited for with a context, says how many still run, and refuses new
// ones once it is closed. The zero value is ready to use.
type Group struct {
	mu sync.Mutex // guards the fields below
	// running is the number of functions that have not returned.
	running int
	closed  bool
	// idle is closed when running drops to zero; nil while nobody waits.
	idle chan struct{}
}

// Go runs f on a goroutine of its own and counts it until it returns. It
// reports false, and does not run f, after Close.
func (g *Group) Go(f func()) bool {
	if !g.Begin() {
		return false
	}
	go func() {
		// Deferred, so that a Goexit inside f is counted out as well.
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

// GoLean is Go for what mostly waits, of which there are many: its stack begins as
// small as they come.
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

// stackNeeded is what handling a message takes of a goroutine's stack.
const stackNeeded = 8 << 10

// growStack makes room on a new goroutine's stack while it is empty. It begins
// with 2 KiB, and to copy it twice when it is full of frames costs more than
// the rest of a message's goroutine: 12 % of the CPU of a server.
//
//go:noinline
func growStack() {
	var room [stackNeeded]byte
	runtime.KeepAlive(&room)
}

// Run runs f on the calling goroutine and counts it until f returns. It reports
// false, and does not run f, after Close. It is for goroutines that somebody
// else starts: those of time.AfterFunc.
func (g *Group) Run(f func()) bool {
	if !g.Begin() {
		return false
	}
	// Deferred, so that a panic or a Goexit inside f is counted out as well.
	defer g.End()
	f()
	return true
}

// Close makes later calls to Go and Run report false. What runs goes on.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Running returns how many functions have not returned.
func (g *Group) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// Wait blocks until nothing runs or ctx ends, and returns how many functions
// still run: zero unless ctx ended first.
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

// CloseIdle waits as Wait does, and then closes: in the moment in which nothing
// runs, so that nothing begins in between, or when ctx ends.
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

// Begin counts something that the caller does until End. It reports false after
// Close, and nothing is counted then.
func (g *Group) Begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running++
	return true
}

// End counts out what Begin has counted.
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
