// Package unconfirmed bounds the calls that were answered and not acknowledged.
package unconfirmed

import (
	"container/list"
	"net/netip"
	"sync"
)

// Calls has the calls of peers that got a 200 and have not sent their ACK. An INVITE with
// a forged source is never acknowledged; the ACK of an honest caller takes one round trip.
// So beyond the bound the call that has waited longest ends, and only its release continues
// (RFC 3261 13.3.1.4, 15). If too many calls are being released, the oldest is dropped
// without a BYE; later requests of its caller get 481.
//
// It is safe for concurrent use. A nil *Calls counts nothing.
type Calls[C comparable] struct {
	// Set at construction; zero: not bounded.
	most, perSource, releasing int
	sourceOf                   func(C) netip.Addr

	mu       sync.Mutex // is taken last; guards the fields below
	waiting  list.List  // of C, the oldest first
	crowded  list.List  // likewise: ended at a bound
	places   map[C]*list.Element
	bySource map[netip.Addr]int
}

// New returns Calls with a bound for all calls, for those of one source, and for those that
// have ended and are being released; zero or less means no bound. sourceOf returns the
// source of a call, always the same one.
func New[C comparable](most, perSource, releasing int, sourceOf func(C) netip.Addr) *Calls[C] {
	return &Calls[C]{
		most: max(0, most), perSource: max(0, perSource), releasing: max(0, releasing), sourceOf: sourceOf,
		places: make(map[C]*list.Element), bySource: make(map[netip.Addr]int),
	}
}

// Enter counts a call. At a bound it returns the calls that must leave: end ends, drop is
// dropped without a BYE. Usually both are the zero value.
func (u *Calls[C]) Enter(call C) (end, drop C) {
	if u == nil {
		return end, drop
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	source := u.sourceOf(call)
	if oldest := u.crowdedOutLocked(source); oldest != nil {
		end = oldest.Value.(C)
		u.leaveLocked(end)
		u.places[end] = u.crowded.PushBack(end)
	}
	if u.releasing > 0 && u.crowded.Len() > u.releasing {
		drop = u.crowded.Front().Value.(C)
		u.leaveLocked(drop)
	}
	u.bySource[source]++
	u.places[call] = u.waiting.PushBack(call)
	return end, drop
}

// crowdedOutLocked returns the call that must end for another one of a source; nil below
// the bounds.
func (u *Calls[C]) crowdedOutLocked(source netip.Addr) *list.Element {
	switch {
	case u.perSource > 0 && u.bySource[source] >= u.perSource:
		for e := u.waiting.Front(); e != nil; e = e.Next() {
			if u.sourceOf(e.Value.(C)) == source {
				return e
			}
		}
	case u.most > 0 && u.waiting.Len() >= u.most:
		return u.waiting.Front()
	}
	return nil
}

// Leave stops counting a call that was acknowledged or has ended.
func (u *Calls[C]) Leave(call C) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leaveLocked(call)
}

func (u *Calls[C]) leaveLocked(call C) {
	e := u.places[call]
	if e == nil {
		return
	}
	delete(u.places, call)
	waited := u.waiting.Len()
	u.waiting.Remove(e) // does nothing if it is in the other
	u.crowded.Remove(e)
	if source := u.sourceOf(call); u.waiting.Len() < waited {
		if u.bySource[source]--; u.bySource[source] <= 0 {
			delete(u.bySource, source)
		}
	}
}

// Len returns the number of calls that wait for their ACK.
func (u *Calls[C]) Len() int {
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.waiting.Len()
}
