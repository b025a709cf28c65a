package sessiontimer

import "time"

// Timer is the session timer that the two ends of a dialog have negotiated. The zero
// value is off. It is not safe for concurrent use.
type Timer struct {
	// interval is the session interval of the latest 2xx; zero: none.
	interval time.Duration
	// refreshes is true if we are the refresher.
	refreshes bool
	// expires is the time of the BYE.
	expires time.Time
	// minSE is the largest Min-SE of the requests in the dialog, ours after a 422 or
	// the peer's; zero: none.
	minSE time.Duration
}

// Active reports whether a session timer runs.
func (t *Timer) Active() bool { return t.interval > 0 }

// NoteMinSE records the Min-SE of a request in the dialog, the peer's or one of ours
// after a 422, for later requests (RFC 4028 7.4). Zero means none.
func (t *Timer) NoteMinSE(minSE time.Duration) { t.minSE = max(t.minSE, minSE) }

// Ask returns the Session-Expires and the Min-SE of a session refresh request of ours
// (RFC 4028 7.1, 7.4): the negotiated interval and refresher, else those of our policy. A
// header is left out if its value is zero.
func (t *Timer) Ask(p Policy) (asked Expires, minSE time.Duration) {
	asked = Expires{Interval: p.Interval}
	if t.Active() {
		asked = Expires{t.interval, UAS}
		if t.refreshes {
			asked.Refresher = UAC
		}
	}
	if asked.Interval <= 0 {
		return Expires{}, 0
	}
	smallest := max(p.Smallest(), t.minSE)
	if smallest > Smallest || t.minSE > 0 {
		minSE = smallest
	}
	return asked.Raised(smallest), minSE
}

// Agree starts the timer with the Session-Expires of a 2xx that we received as UAC or
// sent as UAS; without an Interval the timer is off (RFC 4028 7.2, 9). If the 2xx names no
// refresher, the UAC refreshes.
func (t *Timer) Agree(now time.Time, granted Expires, role Refresher) {
	t.interval = granted.Interval
	t.refreshes = (granted.Refresher == UAS) == (role == UAS)
	t.expires = now.Add(t.ExpiresIn())
}

// Stop turns the timer off.
func (t *Timer) Stop() { t.interval = 0 }

// ExpiresIn returns the time from the 2xx to the BYE: the session interval minus the
// smaller of 32 s and a third of the interval (RFC 4028 10).
func (t *Timer) ExpiresIn() time.Duration {
	return t.interval - min(32*time.Second, t.interval/3)
}

// RefreshIn returns the time from the 2xx to our refresh, half of the session interval
// (RFC 4028 7.2); zero if the peer refreshes.
func (t *Timer) RefreshIn() time.Duration {
	if !t.refreshes {
		return 0
	}
	return t.interval / 2
}

// RetryIn returns the time from a failed refresh to the next attempt. It is shorter for
// the callee, as after a 491 (RFC 3261 14.1), so that two refreshes that have crossed do
// not cross again.
func (t *Timer) RetryIn(isCaller bool) time.Duration {
	wait := t.interval / 8
	if !isCaller {
		wait /= 2
	}
	return max(wait, time.Second)
}

// ExpiresAt returns the time at which the session expires. It changes with each 2xx.
func (t *Timer) ExpiresAt() time.Time { return t.expires }

// IsExpired reports whether the refresh is overdue, so that a BYE is due (RFC 4028 10).
func (t *Timer) IsExpired(now time.Time) bool { return t.Active() && !now.Before(t.expires) }
