package refersub

import "time"

// Subscription is the subscription of one REFER: how long it lasts, and what is known of
// the outcome. The zero value is that of a REFER received; it begins with Prolong, or a
// NOTIFY, and ends with End.
type Subscription struct {
	// Sent is true when the REFER was ours. It is set at construction.
	Sent bool

	life Lifetime
	over bool
	// progress is that of the latest NOTIFY; a final one is the outcome and stays.
	// failure says why there will be no outcome.
	progress Progress
	failure  error
	// lingers is true once the peer has ended it while the outcome may still come,
	// followed once the call that the REFER asks for is being placed.
	lingers, followed bool
	// waiters counts those that wait for the outcome. refreshing is true while a
	// SUBSCRIBE of ours has no response.
	waiters    int
	refreshing bool
}

// HasBegun reports whether the subscription has begun.
func (s *Subscription) HasBegun() bool { return s.life.Begun() }

// IsOver reports whether it has ended.
func (s *Subscription) IsOver() bool { return s.over }

// Progress returns the progress of the latest NOTIFY.
func (s *Subscription) Progress() Progress { return s.progress }

// Failure returns the reason why there will be no outcome, or nil.
func (s *Subscription) Failure() error { return s.failure }

// IsDecided reports whether there is an outcome, or will be none.
func (s *Subscription) IsDecided() bool { return s.progress.IsFinal() || s.failure != nil }

// Report records the progress of a NOTIFY, and reports whether it is news. After an
// outcome nothing is.
func (s *Subscription) Report(p Progress) (isNews bool) {
	if p == s.progress || s.IsDecided() {
		return false
	}
	s.progress = p
	return true
}

// Fail records that there will be no outcome, unless there is one.
func (s *Subscription) Fail(cause error) {
	if !s.IsDecided() {
		s.failure = cause
	}
}

// End ends the subscription, and reports whether it had not ended before.
func (s *Subscription) End() bool {
	before := s.over
	s.over = true
	return !before
}

// Prolong starts or prolongs the subscription, and returns for how long.
func (s *Subscription) Prolong(now time.Time, life time.Duration) time.Duration {
	return s.life.Prolong(now, life)
}

// Left is the time until the subscription expires; life before it has begun.
func (s *Subscription) Left(now time.Time, life time.Duration) time.Duration {
	if !s.HasBegun() {
		return life
	}
	return s.life.Left(now)
}

// Receive handles a NOTIFY of the peer for a REFER of ours (RFC 3515 2.4.5, RFC 6665
// 4.1.3): it records the progress and prolongs the subscription. life is its duration if
// the NOTIFY gives none; transaction is the duration of one that lingers. When the effect
// is Ends, the caller ends it.
func (s *Subscription) Receive(now time.Time, n Received, life, transaction time.Duration) (isNews bool, effect Effect) {
	if n.HasProgress {
		isNews = s.Report(n.Progress)
	}
	switch effect = n.Effect(s.IsDecided()); effect {
	case Continues:
		s.lingers = false
		s.Prolong(now, n.Life(life))
	case Lingers:
		s.lingers = true
		s.Prolong(now, transaction)
	}
	return isNews, effect
}

// Expiry is what follows when the timer of a subscription fires.
type Expiry int

const (
	// Never: it had ended before.
	Never Expiry = iota
	// NotYet: it was prolonged, or its outcome is about to come.
	NotYet
	// WithoutOutcome: the peer had ended it.
	WithoutOutcome
	// TimedOut: it was ours.
	TimedOut
	// TimedOutOfPeer: the peer gets a last NOTIFY (RFC 6665 4.2.2).
	TimedOutOfPeer
)

// Expire says what follows when the timer fires, and for NotYet when it fires again. A
// subscription whose call is being placed is kept for a transaction more: the outcome is
// still worth a NOTIFY (RFC 3515 3.4).
func (s *Subscription) Expire(now time.Time, transaction time.Duration) (Expiry, time.Duration) {
	left := s.life.Left(now)
	if s.followed {
		left += transaction
	}
	switch {
	case s.over:
		return Never, 0
	case left > 0:
		return NotYet, left
	case s.lingers:
		return WithoutOutcome, 0
	case s.Sent:
		return TimedOut, 0
	}
	return TimedOutOfPeer, 0
}

// Follow says that the call that the REFER asks for is being placed.
func (s *Subscription) Follow() { s.followed = true }

// IsFollowed reports whether Follow was called.
func (s *Subscription) IsFollowed() bool { return s.followed }

// Wait counts one more that waits for the outcome: such a subscription is refreshed.
func (s *Subscription) Wait() { s.waiters++ }

// Waited counts one less.
func (s *Subscription) Waited() { s.waiters-- }

// needsRefresh reports whether the application waits for an outcome that a refresh may bring.
func (s *Subscription) needsRefresh() bool {
	return s.Sent && s.waiters > 0 && !s.lingers && !s.IsDecided()
}

// RefreshIn is when a SUBSCRIBE of ours is due (RFC 6665 4.1.2.2); ok is false if none is.
// transaction is how long one may take.
func (s *Subscription) RefreshIn(now time.Time, transaction time.Duration) (wait time.Duration, ok bool) {
	if !s.needsRefresh() || !s.HasBegun() || s.over {
		return 0, false
	}
	return s.life.RefreshIn(now, transaction), true
}

// BeginRefresh reports whether a SUBSCRIBE is sent now: not while another has no
// response.
func (s *Subscription) BeginRefresh() bool {
	if s.refreshing || !s.needsRefresh() {
		return false
	}
	s.refreshing = true
	return true
}

// EndRefresh says that the SUBSCRIBE has its response, or gets none.
func (s *Subscription) EndRefresh() { s.refreshing = false }
