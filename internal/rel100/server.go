package rel100

import (
	"iter"
	"time"
)

// Server is the reliable provisional responses R to one INVITE (RFC 3262 3). One is
// outstanding at a time, as is a MUST for the first and RECOMMENDED for all. Not safe
// for concurrent use; nil is one that has sent none.
type Server[R any] struct {
	// cseq is the INVITE's, rseq the number of the response to be sent next.
	cseq, rseq uint32
	// outstanding waits for its PRACK while waits is true.
	outstanding R
	waits       bool
	queue       []R
	// started is true once a response was sent, closed once the INVITE is answered.
	started, closed bool
}

// MaxFirstRSeq is the largest number of a first response (RFC 3262 3).
const MaxFirstRSeq = 1<<31 - 1

// NewServer returns the responses to an INVITE with that CSeq number. The first is
// numbered first, which is at least 1 and at most [MaxFirstRSeq].
func NewServer[R any](cseq, first uint32) *Server[R] {
	return &Server[R]{cseq: cseq, rseq: first}
}

// Enqueue takes a response in, to be sent by Next. It reports false when [MaxQueued]
// wait already, or the INVITE is answered.
func (s *Server[R]) Enqueue(response R) bool {
	if s.closed || len(s.queue) >= MaxQueued {
		return false
	}
	s.queue = append(s.queue, response)
	return true
}

// Next returns the response to be sent now, and its RSeq; ok is false while one waits
// for its PRACK, and when there is none.
func (s *Server[R]) Next() (response R, rseq uint32, ok bool) {
	if s.waits || len(s.queue) == 0 {
		return response, 0, false
	}
	response, rseq = s.queue[0], s.rseq
	s.queue = s.queue[1:]
	s.outstanding, s.waits, s.started = response, true, true
	return response, rseq, true
}

// Acknowledge takes a PRACK: it returns the outstanding response that the PRACK
// acknowledges, which is outstanding no more; false for one that gets 481 (RFC 3262
// 3). It still matches once the INVITE is answered.
func (s *Server[R]) Acknowledge(ack RAck) (response R, ok bool) {
	if s == nil || !s.waits || ack != s.Awaited() {
		return response, false
	}
	response = s.outstanding
	var none R
	s.outstanding, s.waits = none, false
	s.rseq++ // RFC 3262 3: greater by exactly one
	return response, true
}

// Awaited is what the next PRACK has to say; zero when none is expected.
func (s *Server[R]) Awaited() RAck {
	if s == nil || !s.waits {
		return RAck{}
	}
	return RAck{s.rseq, s.cseq, "INVITE"}
}

// Outstanding returns the response that waits for its PRACK, if there is one.
func (s *Server[R]) Outstanding() (response R, ok bool) {
	if s == nil {
		return response, false
	}
	return s.outstanding, s.waits
}

// Unacknowledged are the outstanding response and those that wait for it, in their
// order.
func (s *Server[R]) Unacknowledged() iter.Seq[R] {
	return func(yield func(R) bool) {
		if s == nil || s.waits && !yield(s.outstanding) {
			return
		}
		for _, response := range s.queue {
			if !yield(response) {
				return
			}
		}
	}
}

// Queued is how many responses wait for the outstanding one.
func (s *Server[R]) Queued() int { return len(s.queue) }

// IsIdle reports whether every response was acknowledged.
func (s *Server[R]) IsIdle() bool { return !s.waits && len(s.queue) == 0 }

// Started reports whether a response was sent.
func (s *Server[R]) Started() bool { return s != nil && s.started }

// Close drops what was not sent: the INVITE is answered, and no new response follows
// (RFC 3262 3).
func (s *Server[R]) Close() {
	if s != nil {
		s.queue, s.closed = nil, true
	}
}

// Schedule is when one response is sent again: after T1, and after intervals that
// double without a cap, until 64*T1 are over (RFC 3262 3).
type Schedule struct {
	interval time.Duration
	deadline time.Time
}

// NewSchedule returns the schedule of a response that is sent now; the first wait is
// T1.
func NewSchedule(now time.Time, t1 time.Duration) Schedule {
	return Schedule{t1, now.Add(64 * t1)}
}

// Next is the wait after the retransmission now; ok is false when there is none, and
// the INVITE gets a 5xx.
func (s *Schedule) Next(now time.Time) (wait time.Duration, ok bool) {
	left := s.deadline.Sub(now)
	if left <= 0 {
		return 0, false
	}
	s.interval *= 2
	return min(s.interval, left), true
}
