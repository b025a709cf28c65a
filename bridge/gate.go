package bridge

import "sync"

// gate keeps provisional responses before the final one: it lets them pass until it is
// shut, and who shuts it waits for those that are being written.
type gate struct {
	mu     sync.Mutex // guards isShut, and that nothing passes after it
	isShut bool
	inside sync.WaitGroup
}

// pass calls f, unless the gate is shut. f must not shut it.
func (g *gate) pass(f func()) (passed bool) {
	g.mu.Lock()
	if g.isShut {
		g.mu.Unlock()
		return false
	}
	g.inside.Add(1)
	g.mu.Unlock()
	defer g.inside.Done()
	f()
	return true
}

// shut lets nothing pass any more, and waits for what is passing.
func (g *gate) shut() {
	g.mu.Lock()
	g.isShut = true
	g.mu.Unlock()
	g.inside.Wait()
}
