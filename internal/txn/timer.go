package txn

import (
	"time"

	"sipdialog.example/dialog/internal/deadline"
)

// Timers are the three values from which RFC 3261 17 derives all timers.
type Timers struct {
	T1 time.Duration // round-trip time estimate; zero: 500 ms
	T2 time.Duration // longest interval of retransmission; zero: 4 s
	T4 time.Duration // how long the network keeps a message; zero: 5 s
}

// minTimerD is the least that RFC 3261 17.1.1.2 allows: the peer's T1 is
// not known.
const minTimerD = 32 * time.Second

// freshTime is the interval at which an INVITE is repeated over UDP while it rings: a
// router or firewall on the way, which may show itself in nothing, forgets a silent
// flow in half a minute, and with it loses the answer (RFC 3581 3).
const freshTime = 20 * time.Second

func (t Timers) withDefaults() Timers {
	if t.T1 <= 0 {
		t.T1 = 500 * time.Millisecond
	}
	if t.T2 <= 0 {
		t.T2 = 4 * time.Second
	}
	if t.T4 <= 0 {
		t.T4 = 5 * time.Second
	}
	return t
}

// limit is 64*T1: Timers B, F, H, J, L and M.
func (t Timers) limit() time.Duration { return 64 * t.T1 }

// trying is the time after which a client's Timer E is reset to T2, and a
// non-INVITE server has to send 100 (RFC 4320 4.1).
func (t Timers) trying() time.Duration {
	var sum time.Duration
	for d := t.T1; d < t.T2; d *= 2 {
		sum += d
	}
	return sum
}

// linger is how long machine m waits in state s for stragglers.
func (t Timers) linger(m *machine, s state, reliable bool) time.Duration {
	switch {
	case s == stateAccepted: // Timers L and M
		return t.limit()
	case reliable: // Timers D, I, J and K
		return 0
	case m == &inviteClient: // Timer D
		return max(minTimerD, t.limit())
	case m == &nonInviteServer: // Timer J
		return t.limit()
	default: // Timers I and K
		return t.T4
	}
}

// slot is a timer of a transaction, whose mutex guards it.
type slot struct {
	tx    *transaction // set at construction
	timer deadline.Timer
	event event // delivered when it fires
	// generation is raised whenever the timer is stopped or replaced, so that
	// one which has fired meanwhile knows that it is stale.
	generation uint32
	set        bool // since it was stopped last
}

// armLocked sets or resets the timer.
func (s *slot) armLocked(wait time.Duration, e event) {
	s.generation++
	s.event, s.set = e, true
	s.tx.layer.deadlines.Set(&s.timer, wait, s, s.generation)
}

func (s *slot) stopLocked() {
	if !s.set {
		return
	}
	s.generation++
	s.set = false
	s.tx.layer.deadlines.Stop(&s.timer)
}

// Expire implements [deadline.Expirer].
func (s *slot) Expire(generation uint32) {
	defer s.tx.layer.survive("timer")
	s.tx.owner.onTimer(s, generation)
}
