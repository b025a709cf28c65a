package invite

import "time"

// Repetition has the times at which a 2xx of ours is repeated, until its ACK comes (RFC 3261
// 13.3.1.4). A 2xx is held while something else has to be done before it is first written.
type Repetition struct {
	// Seq is the CSeq number of the INVITE: its ACK has the same.
	Seq uint32
	// Initial is false for the 2xx to a re-INVITE.
	Initial  bool
	held     bool
	interval time.Duration
	deadline time.Time
}

// Begin begins the repetition of a 2xx that is written now. It returns the first wait.
func (r *Repetition) Begin(now time.Time, t1 time.Duration) (wait time.Duration) {
	r.interval, r.deadline = t1, now.Add(64*t1)
	return t1
}

// Hold holds the 2xx.
func (r *Repetition) Hold() { r.held = true }

// IsHeld reports whether the 2xx is held.
func (r *Repetition) IsHeld() bool { return r.held }

// LetGo is Begin for a 2xx that was held, and is written now.
func (r *Repetition) LetGo(now time.Time, t1 time.Duration) (wait time.Duration) {
	r.held = false
	return r.Begin(now, t1)
}

// Firing is what follows when the time of a repetition has come.
type Firing uint8

const (
	// Later: the 2xx is held.
	Later Firing = iota
	// Again: it is written again.
	Again
	// GiveUp: no ACK has come in 64*T1. The call ends, by BYE.
	GiveUp
)

// Fire returns what follows now, and the wait until it is asked again. The waits double up to
// t2.
func (r *Repetition) Fire(now time.Time, t2 time.Duration) (does Firing, wait time.Duration) {
	left := r.deadline.Sub(now)
	switch {
	case r.held:
		return Later, r.interval
	case left <= 0:
		return GiveUp, 0
	}
	r.interval = min(2*r.interval, t2)
	return Again, min(r.interval, left)
}
