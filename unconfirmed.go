package dialog

import (
	"container/list"
	"net/netip"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// unconfirmed are the calls of peers that were answered 200 and not acknowledged. An
// INVITE with a forged source is never acknowledged; an honest caller's ACK takes one
// round trip. So beyond the bound the call that has waited longest ends, and only its
// release goes on (RFC 3261 13.3.1.4, 15). Of those that are being released the oldest
// is dropped in the end without a BYE; later requests of its caller get 481.
type unconfirmed struct {
	// Set at construction; zero: not bounded.
	most, perSource, releasing int

	mu       sync.Mutex // is taken last; guards the fields below
	waiting  list.List  // of *Dialog, the oldest first
	crowded  list.List  // likewise: ended, to make room
	places   map[*Dialog]*list.Element
	bySource map[netip.Addr]int
}

func newUnconfirmed(c *StackConfig) *unconfirmed {
	u := &unconfirmed{
		most: c.unconfirmed(), releasing: max(0, c.maxDialogs()),
		places: make(map[*Dialog]*list.Element), bySource: make(map[netip.Addr]int),
	}
	if u.perSource = c.Limits.UnconfirmedPerSource; u.perSource == 0 {
		u.perSource = min(u.most, max(leastUnconfirmed, (u.most+1)/2))
	}
	return u
}

// enter counts a call. end is a call that ends for it, drop one that is dropped without
// a BYE; usually both are nil.
func (u *unconfirmed) enter(d *Dialog) (end, drop *Dialog) {
	u.mu.Lock()
	defer u.mu.Unlock()
	source := transport.Source(d.source())
	switch {
	case u.perSource > 0 && u.bySource[source] >= u.perSource:
		end = u.oldestLocked(source)
	case u.most > 0 && u.waiting.Len() >= u.most:
		end = u.waiting.Front().Value.(*Dialog)
	}
	if end != nil {
		u.leaveLocked(end)
		u.places[end] = u.crowded.PushBack(end)
	}
	if u.releasing > 0 && u.crowded.Len() > u.releasing {
		drop = u.crowded.Front().Value.(*Dialog)
		u.leaveLocked(drop)
	}
	u.bySource[source]++
	u.places[d] = u.waiting.PushBack(d)
	return end, drop
}

func (u *unconfirmed) oldestLocked(source netip.Addr) *Dialog {
	for e := u.waiting.Front(); e != nil; e = e.Next() {
		if d := e.Value.(*Dialog); transport.Source(d.source()) == source {
			return d
		}
	}
	return nil
}

// leave uncounts a call that was acknowledged or has ended.
func (u *unconfirmed) leave(d *Dialog) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leaveLocked(d)
}

func (u *unconfirmed) leaveLocked(d *Dialog) {
	place := u.places[d]
	if place == nil {
		return
	}
	delete(u.places, d)
	waited := u.waiting.Len()
	u.waiting.Remove(place) // does nothing if it is in the other
	u.crowded.Remove(place)
	if source := transport.Source(d.source()); u.waiting.Len() < waited {
		if u.bySource[source]--; u.bySource[source] <= 0 {
			delete(u.bySource, source)
		}
	}
}

func (u *unconfirmed) len() int {
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.waiting.Len()
}

// unconfirmedNow counts a call that is answered. The result is called without locks.
func (d *Dialog) unconfirmedNow() (makeRoom func()) {
	if d.stack == nil || d.stack.unconfirmed == nil {
		return func() {}
	}
	end, drop := d.stack.unconfirmed.enter(d)
	return func() {
		cause := Cause{By: PartyTimeout, Method: "ACK", Err: ErrTimeout}
		if end != nil && end.endUnconfirmed(because(sip.StatusRequestTimeout, "no ACK", cause)) {
			d.stack.counters.unconfirmed.Add(1)
		}
		if drop != nil {
			drop.clear(cause)
		}
	}
}

// endUnconfirmed ends a call unless its ACK has come.
func (d *Dialog) endUnconfirmed(e *ending) bool {
	both := d.lockBoth()
	if d.phase != phaseAwaitingACK {
		both.unlock()
		return false
	}
	_, release := d.terminateWithLocked(e)
	both.unlock()
	release()
	return true
}

// confirmed counts it out.
func (d *Dialog) confirmed() {
	if d.stack != nil && d.stack.unconfirmed != nil {
		d.stack.unconfirmed.leave(d)
	}
}
