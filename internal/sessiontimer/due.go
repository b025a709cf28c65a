package sessiontimer

import "time"

// early is how long before the end of a session another process goes on with it, if the
// peer was to refresh it and has not.
const early = 10 * time.Second

// DueAt returns the time at which another process should refresh the session, because the
// one that has the call has not: an eighth of the interval after our refresh, and shortly
// before the end if the peer refreshes. Clocks may differ by that much. It is zero without
// a session timer.
func (t *Timer) DueAt() time.Time {
	switch {
	case !t.Active():
		return time.Time{}
	case t.refreshes:
		return t.expires.Add(t.RefreshIn() + t.interval/8 - t.ExpiresIn())
	}
	return t.expires.Add(-early)
}
