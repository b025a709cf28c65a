package sessiontimer

import "time"

// early is the time before the end of a session at which another process takes it over at
// the latest: the process has to find it, and the peer to respond.
const early = 10 * time.Second

// DueAt returns the time at which another process should refresh the session, because the
// one that has the call has not: an eighth of the interval after our refresh, and shortly
// before the end if the peer refreshes, or the interval is short. Clocks may differ by that
// much. It is zero without a session timer.
func (t *Timer) DueAt() time.Time {
	if !t.Active() {
		return time.Time{}
	}
	latest := t.expires.Add(-early)
	late := t.expires.Add(t.RefreshIn() + t.interval/8 - t.ExpiresIn())
	if t.refreshes && late.Before(latest) {
		return late
	}
	return latest
}
