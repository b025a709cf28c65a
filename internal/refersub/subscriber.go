package refersub

import "github.com/emiago/sipgo/sip"

// The inputs of the subscription of a REFER that we sent.

// subscriber is what only such a subscription has.
type subscriber struct {
	// answered is true once the REFER has its final response, or will get none; refusal
	// is its error.
	answered bool
	refusal  error
	// lingers is true once the peer has ended it while the outcome may still come.
	lingers bool
	// waiters counts those that wait for the outcome. refreshing is true while a
	// SUBSCRIBE has no response.
	waiters    int
	refreshing bool
}

// Refusal returns the error of a REFER that got no 2xx.
func (s *Subscription) Refusal() error { return s.subscriber.refusal }

// answer records the final response to the REFER, once.
func (s *Subscription) answer(step *Step, refusal error) {
	if !s.Sent || s.subscriber.answered {
		return
	}
	s.subscriber.answered, s.subscriber.refusal = true, refusal
	step.add(Effect{Kind: Answered})
}

// Accepted is a 2xx to the REFER. silent is true when there is no subscription (RFC 4488
// 4). A NOTIFY may have come before it, and may change the duration later.
func (s *Subscription) Accepted(step *Step, silent bool) {
	s.answer(step, nil)
	switch {
	case silent:
		s.end(step, Lost{Err: ErrNone})
	case !s.over && !s.life.Begun():
		s.prolong(step, step.Life)
	}
}

// Refused is any other end of the REFER: there is no subscription.
func (s *Subscription) Refused(step *Step, err error) {
	s.answer(step, err)
	s.fail(step, err)
	s.end(step, Lost{Err: err})
}

// Abandon drops the subscription of a REFER that has no response yet.
func (s *Subscription) Abandon(step *Step, cause error) {
	if !s.subscriber.answered {
		s.Drop(step, cause)
	}
}

// Notified is a NOTIFY of the peer's (RFC 3515 2.4.5, RFC 6665 4.1.3). It may come before
// the 202 (RFC 3515 2.4.4). It reports progress, and prolongs the subscription or ends it.
func (s *Subscription) Notified(step *Step, n Received) Reply {
	if s.over {
		return Reply{Status: statusUnknown}
	}
	if reply, refused := n.refusal(); refused {
		return reply
	}
	if n.HasProgress {
		s.report(step, n.Progress)
	}
	change := n.Change(s.IsDecided())
	s.subscriber.lingers = change == Lingers
	switch change {
	case Continues:
		s.prolong(step, n.Life(step.Life))
	case Lingers:
		s.prolong(step, step.Transaction)
	case Ends:
		s.answer(step, nil)
		s.end(step, n.lost())
	}
	return Reply{Status: sip.StatusOK, HasContact: true} // it may make the dialog (RFC 6665 4.4.1)
}

// Wait counts one more that waits for the outcome: such a subscription is refreshed.
func (s *Subscription) Wait(step *Step) {
	s.subscriber.waiters++
	s.schedule(step)
}

// Waited counts one less.
func (s *Subscription) Waited(step *Step) {
	s.subscriber.waiters--
	s.schedule(step)
}

// needsRefresh reports whether somebody waits for an outcome that a refresh may bring.
func (s *Subscription) needsRefresh() bool {
	return s.active && s.Sent && s.subscriber.waiters > 0 && !s.subscriber.lingers && !s.IsDecided()
}

// schedule sets the timer of the refresh (RFC 6665 4.1.2.2).
func (s *Subscription) schedule(step *Step) {
	switch {
	case !s.Sent:
	case s.needsRefresh():
		step.add(Effect{Kind: Refreshes, After: s.life.RefreshIn(step.Now, step.Transaction)})
	default:
		step.add(Effect{Kind: Rests})
	}
}

// Refresh is the timer of the refresh: a SUBSCRIBE is sent, unless another has no response.
func (s *Subscription) Refresh(step *Step) {
	if s.subscriber.refreshing || !s.needsRefresh() {
		return
	}
	s.subscriber.refreshing = true
	step.add(Effect{Kind: Subscribes, After: step.Life})
}

// Refreshed is the outcome of a SUBSCRIBE: the Expires of the 2xx, or a failure. A failure
// that does not end the subscription leaves it as long as before (RFC 6665 4.1.2.2).
func (s *Subscription) Refreshed(step *Step, expires string, failure Failure) {
	s.subscriber.refreshing = false
	switch {
	case failure.ends(sip.SUBSCRIBE):
		s.Drop(step, failure.Err)
	case failure.Err == nil && !s.over:
		s.prolong(step, Granted(expires, step.Life))
	}
}
