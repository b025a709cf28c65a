package dialogtest

import (
	"slices"
	"sort"
	"time"
)

// arrivals holds the datagrams in transit in the order in which they arrive,
// and one timer for the first of them. A timer for each would not keep the order:
// timers that are due at the same instant run in any order. The network's mutex
// guards it.
type arrivals struct {
	waiting []arrival
	timer   *time.Timer
}

type arrival struct {
	at     time.Time
	packet Packet
}

// add inserts a packet behind all that arrive no later. fire runs on its own
// goroutine when a packet is due.
func (a *arrivals) add(delay time.Duration, p Packet, fire func()) {
	at := time.Now().Add(delay)
	i := sort.Search(len(a.waiting), func(i int) bool { return a.waiting[i].at.After(at) })
	a.waiting = slices.Insert(a.waiting, i, arrival{at: at, packet: p})
	if i == 0 {
		a.arm(fire)
	}
}

// due takes out the packets that have arrived and arms the timer for the next.
func (a *arrivals) due(fire func()) []Packet {
	now := time.Now()
	var out []Packet
	for len(a.waiting) > 0 && !a.waiting[0].at.After(now) {
		out = append(out, a.waiting[0].packet)
		a.waiting = a.waiting[1:]
	}
	a.arm(fire)
	return out
}

// stop drops all packets.
func (a *arrivals) stop() {
	a.waiting = nil
	a.arm(nil)
}

// arm replaces the timer. A replaced timer that has already fired finds no packet
// due.
func (a *arrivals) arm(fire func()) {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	if len(a.waiting) == 0 {
		return
	}
	if wait := time.Until(a.waiting[0].at); wait > 0 {
		a.timer = time.AfterFunc(wait, fire)
		return
	}
	go fire() // not a timer of no time: see internal/deadline
}
