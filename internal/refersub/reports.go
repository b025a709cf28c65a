package refersub

import (
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// The inputs of the subscription of a REFER of the peer.

// Take accepts the REFER; silent is true when the peer wants no subscription (RFC 4488 4).
func (s *Subscription) Take(step *Step, silent bool) {
	if silent {
		s.end(step, Lost{Err: ErrNone})
		return
	}
	s.active = true
}

// Start begins the time of the subscription, unless a SUBSCRIBE has, and reports whether
// there is one: then its first NOTIFY is due (RFC 3515 2.4.4).
func (s *Subscription) Start(step *Step) (isDue bool) {
	if s.active && !s.life.Begun() {
		s.prolong(step, step.Life)
	}
	return s.active
}

// Subscribed is a SUBSCRIBE of the peer's, which prolongs the subscription, or ends it
// (RFC 6665 4.2.1.1, 4.2.1.4). A NOTIFY follows the response.
func (s *Subscription) Subscribed(step *Step, expires string) Reply {
	life, ok := Asked(expires, step.Life)
	switch {
	case s.over:
		return Reply{Status: statusUnknown}
	case !ok:
		return Reply{Status: sip.StatusBadRequest}
	}
	now := Notify{State: Timeout}
	if life > 0 {
		now, life = Notify{}, s.prolong(step, life).Truncate(time.Second)
	}
	s.Queue(step, now)
	return Reply{Status: sip.StatusOK, HasContact: true, Header: sip.NewHeader("Expires", sipmsg.FormatSeconds(life))}
}

// Queue has a NOTIFY written when all before it have been answered, so that they arrive in
// order. Nothing follows the last.
func (s *Subscription) Queue(step *Step, n Notify) {
	if s.active && s.queue.Queue(n) {
		s.next(step)
	}
}

// next has the first NOTIFY of the queue written, if that is possible now.
func (s *Subscription) next(step *Step) {
	if n, may := s.queue.Begin(); may {
		step.add(Effect{Kind: Writes, Notify: n, Last: s.queue.IsClosing()})
	}
}

// Written says that a NOTIFY of the queue was written, or why it could not be. If the last
// cannot be written, the subscription still ends.
func (s *Subscription) Written(step *Step, n Notify, err error) {
	s.queue.Written()
	if err != nil && n.IsLast() && !s.leaving {
		s.Drop(step, err)
	}
	s.next(step)
}

// TakeLast returns the last NOTIFY, if it waits: there is no time left for the responses
// to those before it, which are dropped.
func (s *Subscription) TakeLast() (n Notify, found bool) { return s.queue.TakeLast() }

// Leave counts a NOTIFY that leaves, and returns it with what it does not say itself, and
// its number.
func (s *Subscription) Leave(step *Step, n Notify) (Notify, int) {
	n = n.Filled(s.progress, s.left(step))
	_, s.leaving = n.Ends()
	return n, s.queue.Sent()
}

// IsLatest reports whether no NOTIFY has left after the one with that number: an older one
// is not sent again.
func (s *Subscription) IsLatest(number int) bool { return s.queue.IsLatest(number) }

// Left records a NOTIFY that has left.
func (s *Subscription) Left(step *Step, n Notify) {
	s.report(step, n.Progress)
	if n.Progress.IsFinal() {
		step.add(Effect{Kind: Unfollowed})
	}
	if reason, ends := n.Ends(); ends {
		s.end(step, Lost{Reason: reason})
	}
}

// NotifyOver is the response to the NOTIFY with that number, or that there is none. It
// reports whether it is the first. The next NOTIFY may leave.
func (s *Subscription) NotifyOver(step *Step, number int, failure Failure) (isFirst bool) {
	if !s.queue.Answered(number) {
		return false
	}
	if failure.Unsent {
		s.leaving = false
	}
	if failure.ends(sip.NOTIFY) {
		s.Drop(step, failure.Err)
	}
	step.add(Effect{Kind: NotifyOver})
	s.next(step)
	return true
}

// Follow says that the call that the REFER asks for is being placed.
func (s *Subscription) Follow() { s.followed = true }

// IsFollowed reports whether Follow was called.
func (s *Subscription) IsFollowed() bool { return s.followed }

// CallResponse is a response to the INVITE of that call.
func (s *Subscription) CallResponse(step *Step, p Progress) {
	if s.call.Response(p) {
		s.Queue(step, Notify{Progress: p})
	}
}

// Decline reports 603 for a REFER that no function of the application takes: its 202 has
// left, and the peer would wait for an outcome until the subscription expires.
func (s *Subscription) Decline(step *Step) {
	step.add(Effect{Kind: Unfollowed})
	s.Queue(step, Notify{Progress: Progress{sip.StatusGlobalDecline, "Decline"}})
}

// CallOver is the outcome of that call; zero for one that was established, which is
// reported by its 2xx.
func (s *Subscription) CallOver(step *Step, p Progress) {
	if p == (Progress{}) {
		p = s.call.Accepted()
	}
	s.Queue(step, Notify{Progress: p})
}
