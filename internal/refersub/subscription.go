package refersub

import "time"

// Subscription is the subscription of one REFER: how long it lasts, what is known of the
// outcome, and which messages are due. The zero value is that of a REFER received, which
// begins with Take; that of a REFER sent begins with Accepted, or a NOTIFY. Each of its
// inputs gets a [Step], to which it adds what follows.
type Subscription struct {
	// Sent is true when the REFER was ours. It is set at construction.
	Sent bool

	life Lifetime
	// active is true while the subscription exists, over once it has ended.
	active, over bool
	// progress is that of the latest NOTIFY; a final one is the outcome and stays.
	// failure says why there will be no outcome.
	progress Progress
	failure  error

	subscriber subscriber
	// queue has the NOTIFYs of ours, call is that which the REFER asks for. followed is
	// true once it is being placed.
	queue    Notifier
	call     Followed
	followed bool
	// leaving is true while the last NOTIFY is being written: no other may be.
	leaving bool
}

// IsActive reports whether the subscription exists.
func (s *Subscription) IsActive() bool { return s.active }

// MaySend reports whether it may have another request of ours: it exists, and its last NOTIFY
// is not being written.
func (s *Subscription) MaySend() bool { return s.active && !s.leaving }

// IsOver reports whether it has ended.
func (s *Subscription) IsOver() bool { return s.over }

// Progress returns the progress of the latest NOTIFY.
func (s *Subscription) Progress() Progress { return s.progress }

// Failure returns the reason why there will be no outcome, or nil: a *Lost, or the error
// of a REFER that was refused.
func (s *Subscription) Failure() error { return s.failure }

// IsDecided reports whether there is an outcome, or will be none.
func (s *Subscription) IsDecided() bool { return s.progress.IsFinal() || s.failure != nil }

// Begins records the progress before the first NOTIFY.
func (s *Subscription) Begins(p Progress) { s.progress = p }

// report records the progress of a NOTIFY. After an outcome nothing is news (RFC 3515
// 2.4.5).
func (s *Subscription) report(step *Step, p Progress) {
	if p == s.progress || s.IsDecided() {
		return
	}
	s.progress = p
	step.add(Effect{Kind: Told, Progress: p})
	if p.IsFinal() {
		step.add(Effect{Kind: Decided})
	}
}

// fail records that there will be no outcome, unless there is one.
func (s *Subscription) fail(step *Step, cause error) {
	if s.IsDecided() {
		return
	}
	s.failure = cause
	step.add(Effect{Kind: Decided})
}

// end ends the subscription. Unless there is an outcome, lost says why there is none.
func (s *Subscription) end(step *Step, lost Lost) {
	if s.over {
		return
	}
	s.over, s.active = true, false
	s.queue.Drop()
	lost.Last = s.progress
	s.fail(step, &lost)
	step.add(Effect{Kind: Ended})
}

// Drop ends the subscription without a NOTIFY.
func (s *Subscription) Drop(step *Step, cause error) {
	s.answer(step, cause)
	s.end(step, Lost{Err: cause})
}

// Close ends the subscription for the application. The peer of a REFER received gets a
// last NOTIFY with the progress, if it can be reached. For a REFER sent the next NOTIFY
// gets 481 (RFC 3515 2.4.4).
func (s *Subscription) Close(step *Step, cause error, reachable bool) {
	if s.Sent || !reachable {
		s.Drop(step, cause)
		return
	}
	s.Queue(step, Notify{State: NoResource})
}

// Expire is the timer of the expiry. A subscription whose call is being placed is kept
// for a transaction more: the outcome is still worth a NOTIFY (RFC 3515 3.4). The peer
// gets a last NOTIFY if it is the subscriber (RFC 6665 4.2.2).
func (s *Subscription) Expire(step *Step) {
	left := s.life.Left(step.Now)
	if s.followed {
		left += step.Transaction
	}
	switch {
	case s.over:
	case left > 0:
		step.add(Effect{Kind: Expires, After: left})
	case s.subscriber.lingers:
		s.end(step, Lost{})
	case s.Sent:
		s.end(step, Lost{Err: ErrTimeout})
	default:
		s.Queue(step, Notify{State: Timeout})
	}
}

// prolong starts or prolongs the subscription, and returns for how long.
func (s *Subscription) prolong(step *Step, life time.Duration) time.Duration {
	life = s.life.Prolong(step.Now, life)
	s.active = true
	step.add(Effect{Kind: Expires, After: life})
	s.schedule(step)
	return life
}

// left is the time until the subscription expires.
func (s *Subscription) left(step *Step) time.Duration {
	if !s.life.Begun() {
		return step.Life
	}
	return s.life.Left(step.Now)
}
