package sessiontimer

import "time"

// Policy has the session timer settings of one side.
type Policy struct {
	// Interval is the session interval that we ask for. With zero we ask for none,
	// and accept the interval of the peer.
	Interval time.Duration
	// MinSE is the smallest interval that we accept, at least [Smallest].
	MinSE time.Duration
}

// Request has the timer headers of a session refresh request (INVITE or UPDATE).
type Request struct {
	Expires Expires
	// MinSE is zero without a Min-SE header.
	MinSE time.Duration
	// SupportsTimer is true if the Supported header lists "timer".
	SupportsTimer bool
}

// Smallest returns the smallest interval that we accept.
func (p Policy) Smallest() time.Duration { return max(p.MinSE, Smallest) }

// IsTooSmall reports whether the request gets 422, with our Smallest as Min-SE. A UAC
// that does not support the timer gets none, since it could not raise its interval (RFC
// 4028 9).
func (p Policy) IsTooSmall(r Request) bool {
	return r.SupportsTimer && r.Expires.Interval > 0 && r.Expires.Interval < p.Smallest()
}

// Grant returns the Session-Expires of the 2xx to a request: the interval of the request,
// else ours; if both are zero there is none (RFC 4028 9). The UAC may choose the refresher.
// The refresher is the UAS if the UAC does not support the timer, and the UAC if it has not
// chosen (RFC 4028 9, table 2). The interval is raised only if the rules require it: to the
// Min-SE, and to our smallest interval if the UAC cannot be refused.
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
