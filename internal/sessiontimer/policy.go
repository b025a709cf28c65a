package sessiontimer

import "time"

// Policy is what one side wants of the session timer.
type Policy struct {
	// Interval is the session interval that we ask for; zero asks for none, and
	// takes what the peer asks for.
	Interval time.Duration
	// MinSE is the smallest interval that we take; less than [Smallest] is that.
	MinSE time.Duration
}

// Request is what a session refresh request (INVITE or UPDATE) says.
type Request struct {
	Expires Expires
	// MinSE is zero without a Min-SE header.
	MinSE time.Duration
	// SupportsTimer is true when the Supported header lists "timer".
	SupportsTimer bool
}

// Smallest is the smallest interval that we take.
func (p Policy) Smallest() time.Duration { return max(p.MinSE, Smallest) }

// IsTooSmall reports whether the request gets 422, with our Smallest as Min-SE. A UAC
// that does not support the timer could do nothing about it (RFC 4028 9).
func (p Policy) IsTooSmall(r Request) bool {
	return r.SupportsTimer && r.Expires.Interval > 0 && r.Expires.Interval < p.Smallest()
}

// Grant is the Session-Expires of the 2xx to a request: what the request asks for, or
// what we want; without an Interval there is none (RFC 4028 9). The UAC's choice of
// the refresher counts; the refresher is the UAS where the UAC does not support the
// timer, and the UAC where it has not chosen (RFC 4028 9, table 2). An interval is
// raised only where the rules leave no other: to the Min-SE, and to our smallest
// where the UAC cannot be refused.
func (p Policy) Grant(r Request) Expires {
	granted := r.Expires
	if granted.Interval == 0 {
		granted.Interval = p.Interval
	}
	if granted.Interval <= 0 {
		return Expires{}
	}
	granted.Interval = max(granted.Interval, r.MinSE, p.Smallest())
	switch {
	case !r.SupportsTimer:
		granted.Refresher = UAS
	case granted.Refresher == Undecided:
		granted.Refresher = UAC
	}
	return granted
}
