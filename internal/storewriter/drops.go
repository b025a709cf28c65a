package storewriter

import (
	"context"
	"slices"
	"time"
)

// Ended calls are dropped together: no caller waits for that, and the main cost of a drop is
// waking the process.

const (
	// dropPause is the least time between two rounds. A call that ends later than that after
	// the one before is dropped at once.
	dropPause = 20 * time.Millisecond
	// mostDrops bounds what the store is asked at once.
	mostDrops = 256
)

// Dropped is a call of Group.DropAll.
type Dropped struct {
	Key   Key
	Fence uint64
}

// drops are the calls that wait for the next round. The Group's mutex guards it.
type drops struct {
	calls []*Writer
	// isSoon is true until the round that is to be, or is under way, has ended; timer begins it.
	isSoon bool
	timer  *time.Timer
	last   time.Time
}

// close forgets the calls, and returns how many they were.
func (d *drops) close() int {
	if d.timer != nil {
		d.timer.Stop()
	}
	n := len(d.calls)
	d.calls = nil
	return n
}

// dropSoon has a call dropped in the next round. It reports false if there are none.
func (g *Group) dropSoon(w *Writer) bool {
	if g.DropAll == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.drops.calls = append(g.drops.calls, w)
	if !g.drops.isSoon {
		g.nextRoundLocked()
	}
	return true
}

func (g *Group) nextRoundLocked() {
	g.drops.isSoon = true
	if wait := time.Until(g.drops.last.Add(dropPause)); wait > 0 {
		g.drops.timer = time.AfterFunc(wait, func() { g.Run(g.dropRound) })
		return
	}
	g.Go(g.dropRound)
}

// dropRound drops the calls that wait.
func (g *Group) dropRound() {
	g.mu.Lock()
	calls := g.drops.calls
	g.drops.calls, g.drops.last = nil, time.Now()
	g.mu.Unlock()
	defer g.endRound()
	for some := range slices.Chunk(calls, mostDrops) {
		g.dropTogether(some)
	}
}

func (g *Group) endRound() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drops.isSoon = false
	if len(g.drops.calls) > 0 && !g.closed {
		g.nextRoundLocked()
	}
}

// dropTogether asks the store once. What it does not answer is tried again call by call, and
// so is what another process has.
func (g *Group) dropTogether(calls []*Writer) {
	results := make([]Result, len(calls))
	defer func() { // also if the store ends the goroutine
		for i, w := range calls {
			g.answered(results[i])
			w.droppedWith(results[i])
		}
	}()
	ctx, cancel := context.WithTimeout(g.Base, operationTime)
	defer cancel()
	asked := make([]Dropped, len(calls))
	for i, w := range calls {
		asked[i] = Dropped{Key: w.key, Fence: w.Fence()}
	}
	copy(results, g.DropAll(ctx, asked))
}

// droppedWith continues after a round.
func (w *Writer) droppedWith(result Result) {
	switch result {
	case Unknown:
		w.later()
	case Moved:
		if !w.group.Go(w.work) {
			w.rest()
		}
	default:
		w.dropped()
		w.rest()
	}
}
