package sessiontimer

import "time"

// View is a Timer, field by field: what is kept of it.
type View struct {
	// Interval is zero without a session timer; Refreshes is true when we refresh.
	Interval  time.Duration
	Refreshes bool
	// Expires is when the session expires.
	Expires time.Time
	// MinSE is the largest Min-SE of the dialog; zero without one.
	MinSE time.Duration
}

// View returns the timer as it is.
func (t *Timer) View() View {
	v := View{Interval: t.interval, Refreshes: t.refreshes, Expires: t.expires, MinSE: t.minSE}
	if !t.Active() {
		v.Refreshes, v.Expires = false, time.Time{}
	}
	return v
}

// Restore returns a timer that continues now. A session that has expired meanwhile is given
// as long again as its BYE is early (RFC 4028 10): one refresh may save it. None lasts
// longer than if it had been refreshed now.
func Restore(v View, now time.Time) Timer {
	t := Timer{interval: v.Interval, refreshes: v.Refreshes, expires: v.Expires, minSE: v.MinSE}
	if latest := now.Add(t.ExpiresIn()); t.expires.After(latest) {
		t.expires = latest
	}
	if t.IsExpired(now) {
		t.expires = now.Add(t.interval - t.ExpiresIn())
	}
	return t
}

// Resume returns what a timer that was restored from v waits for: our refresh, zero when
// that is overdue. An expired session is refreshed at once, whichever side the refresher was.
// ok is false when there is nothing to refresh.
func (v View) Resume(now time.Time) (wait time.Duration, ok bool) {
	t := Timer{interval: v.Interval, refreshes: v.Refreshes, expires: v.Expires}
	switch {
	case !t.Active():
		return 0, false
	case t.IsExpired(now):
		return 0, true
	case !t.refreshes:
		return 0, false
	}
	wait = min(t.expires.Sub(now)-t.ExpiresIn()+t.RefreshIn(), t.RefreshIn())
	return max(wait, 0), true
}
