package sessiontimer

import "time"

// Timer is what the two ends of a dialog have agreed upon. The zero value has
// agreed upon nothing. Not safe for concurrent use.
type Timer struct {
	// interval is the session interval of the latest 2xx; zero: none.
	interval time.Duration
	// refreshes is true when we are the refresher.
	refreshes bool
	// expires is when the BYE is due.
	expires time.Time
	// minSE is the largest Min-SE that a request in the dialog has had, ours after a
	// 422 or the peer's; zero without one.
	minSE time.Duration
}

// Active reports whether a session timer runs.
func (t *Timer) Active() bool { return t.interval > 0 }

// NoteMinSE keeps the Min-SE of a request in the dialog, the peer's or one of ours
// that a 422 has changed, for the requests that follow (RFC 4028 7.4). Zero is none.
func (t *Timer) NoteMinSE(minSE time.Duration) { t.minSE = max(t.minSE, minSE) }

// Ask is the Session-Expires and the Min-SE of a session refresh request of ours
// (RFC 4028 7.1, 7.4): the agreed interval and refresher, else what we want. Each is
// left out where it is zero.
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

// Agree takes the Session-Expires of a 2xx that was received or sent now, as the role
// says; without an Interval the timer is off (RFC 4028 7.2, 9). A 2xx that names no
// refresher leaves it to the UAC.
func (t *Timer) Agree(now time.Time, granted Expires, role Refresher) {
	t.interval = granted.Interval
	t.refreshes = (granted.Refresher == UAS) == (role == UAS)
	t.expires = now.Add(t.ExpiresIn())
}

// Stop turns the timer off.
func (t *Timer) Stop() { t.interval = 0 }

// ExpiresIn is the time from the 2xx to the BYE: the session interval but for 32 s, or
// a third where that is less (RFC 4028 10).
func (t *Timer) ExpiresIn() time.Duration {
	return t.interval - min(32*time.Second, t.interval/3)
}

// RefreshIn is the time from the 2xx to our refresh, half of the session interval (RFC
// 4028 7.2); zero when the peer refreshes.
func (t *Timer) RefreshIn() time.Duration {
	if !t.refreshes {
		return 0
	}
	return t.interval / 2
}

// RetryIn is the time from a refresh that failed to the next attempt. It is shorter for
// the callee, as after a 491 (RFC 3261 14.1): two refreshes that have crossed do not
// cross again.
func (t *Timer) RetryIn(isCaller bool) time.Duration {
	wait := t.interval / 8
	if !isCaller {
		wait /= 2
	}
	return max(wait, time.Second)
}

// ExpiresAt is when the session expires: it changes with each 2xx.
func (t *Timer) ExpiresAt() time.Time { return t.expires }

// IsExpired reports whether the refresh is overdue: a BYE is (RFC 4028 10).
func (t *Timer) IsExpired(now time.Time) bool { return t.Active() && !now.Before(t.expires) }
