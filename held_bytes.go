package dialog

import (
	"sync"
	"sync/atomic"

	"sipdialog.example/dialog/internal/sipmsg"
)

const (
	// bytesPerCall is what a call may hold by default, on average.
	bytesPerCall = 16 << 10
	// leastCallBytes is the bound of a stack with few calls.
	leastCallBytes = 16 << 20
	// bytesPerRoute is the size of a route that was read, above its text.
	bytesPerRoute = 300
)

// heldBytes counts the bytes of peers' messages that all calls hold: the INVITE or
// the response to ours, bodies that wait for a callback, REFERs without an outcome.
type heldBytes struct {
	most int64 // set at construction; zero: not bounded
	now  atomic.Int64
}

func (c *StackConfig) callBytes() int64 {
	switch most := c.Limits.CallBytes; {
	case most > 0:
		return int64(most)
	case most < 0 || c.maxDialogs() < 0:
		return 0
	}
	return max(leastCallBytes, int64(c.maxDialogs())*bytesPerCall)
}

// take counts bytes, unless there is no room for them. There always is for fewer.
func (h *heldBytes) take(bytes int) bool {
	if now := h.now.Add(int64(bytes)); bytes <= 0 || h.most == 0 || now <= h.most {
		return true
	}
	h.now.Add(-int64(bytes))
	return false
}

// holding is one call's part of it. After its end nothing is counted.
type holding struct {
	all *heldBytes // set at construction; nil without a stack

	mu    sync.Mutex // is taken last; guards the fields below
	bytes int
	over  bool
}

// take counts bytes, and reports whether they are within the bound.
func (h *holding) take(bytes int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil || h.over {
		return true
	}
	if !h.all.take(bytes) {
		return false
	}
	h.bytes += bytes
	return true
}

// add counts bytes for which there has to be room, or gives them back.
func (h *holding) add(bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all != nil && !h.over {
		h.all.now.Add(int64(bytes))
		h.bytes += bytes
	}
}

// end gives everything back.
func (h *holding) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all != nil && !h.over {
		h.over = true
		h.all.now.Add(-int64(h.bytes))
	}
}

// size is what a message that was put aside holds; zero for none.
func size(kept *sipmsg.Kept) int {
	if kept == nil {
		return 0
	}
	return kept.Size()
}

func sizeOfBody(body Body) int {
	if isNilBody(body) {
		return 0
	}
	return len(body.Data())
}

// holdInvite counts what a new call of the peer's holds, which nobody else knows of
// yet; it reports whether it is within the bound.
func (d *Dialog) holdInvite() bool {
	return d.holds.take(size(d.arrived) + sizeOfBody(d.keptBody) + len(d.currentLocked().RouteSet())*bytesPerRoute)
}

// putAsideLocked keeps a body for the first who registers, instead of the one
// before; where there is no room it is dropped.
func (d *Dialog) putAsideLocked(body *SimpleBody) {
	before := sizeOfBody(d.keptBody)
	d.keptBody, d.keptOffer = body, false
	if d.holds.take(sizeOfBody(body) - before) {
		return
	}
	d.holds.add(-before)
	d.keptBody = nil
	d.stack.counters.bodies.Add(1)
}

// takeAsideLocked returns the body that was kept, for one who gives its bytes back.
func (d *Dialog) takeAsideLocked() (kept Body, release func()) {
	kept, d.keptBody = d.keptBody, nil
	bytes := sizeOfBody(kept)
	return kept, func() { d.holds.add(-bytes) }
}

// dropAsideLocked forgets the body that was kept.
func (d *Dialog) dropAsideLocked() {
	_, release := d.takeAsideLocked()
	release()
}

// keepResponseLocked notes the latest response to the INVITE; where there is no room
// for its body, without that.
func (d *Dialog) keepResponseLocked(kept *sipmsg.Kept) {
	before := size(d.answeredBy)
	if !d.holds.take(size(kept) - before) {
		kept = kept.WithoutBody()
		d.holds.add(size(kept) - before)
		d.stack.counters.bodies.Add(1)
	}
	d.answeredBy = kept
}

// keepBodyLocked notes the latest body of an early dialog's, if there is room.
func (e *earlyDialog) keepBodyLocked(body *SimpleBody) {
	if e.d.holds.take(sizeOfBody(body) - sizeOfBody(e.body)) {
		e.body = body
		return
	}
	e.d.stack.counters.bodies.Add(1)
}
