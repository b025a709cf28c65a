package rel100

import (
	"iter"
	"time"
)

// Server has the reliable provisional responses R to one INVITE (RFC 3262 3). Only one is
// outstanding at a time: the RFC requires this for the first, and recommends it for all.
// It is not safe for concurrent use. A nil Server has sent no response.
type Server[R any] struct {
	// cseq is the CSeq number of the INVITE, rseq the RSeq of the next response.
	cseq, rseq uint32
	// outstanding waits for its PRACK while waits is true.
	outstanding R
	waits       bool
	queue       []R
	// started is true once a response was sent, closed once the INVITE has its final
	// response.
	started, closed bool
}

// MaxFirstRSeq is the largest RSeq of a first response (RFC 3262 3).
const MaxFirstRSeq = 1<<31 - 1

// NewServer returns the Server of an INVITE with that CSeq number. The RSeq of its first
// response is first, which is at least 1 and at most [MaxFirstRSeq].
func NewServer[R any](cseq, first uint32) *Server[R] {
	return &Server[R]{cseq: cseq, rseq: first}
}

// Enqueue queues a response for Next. It reports false if [MaxQueued] responses wait
// already, or if the INVITE has its final response.
func (s *Server[R]) Enqueue(response R) bool {
	if s.closed || len(s.queue) >= MaxQueued {
		return false
	}
	s.queue = append(s.queue, response)
	return true
}

// Next returns the response to be sent now, and its RSeq; ok is false if a response waits
// for its PRACK, or if the queue is empty.
func (s *Server[R]) Next() (response R, rseq uint32, ok bool) {
	if s.waits || len(s.queue) == 0 {
		return response, 0, false
	}
	response, rseq = s.queue[0], s.rseq
	s.queue = s.queue[1:]
	s.outstanding, s.waits, s.started = response, true, true
	return response, rseq, true
}

// Acknowledge handles a PRACK: it returns the outstanding response that the PRACK
// acknowledges, and which is then no longer outstanding. ok is false if the PRACK gets 481
// (RFC 3262 3). A PRACK still matches after the final response to the INVITE.
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

// Awaited returns the RAck of the next PRACK; zero if no PRACK is expected.
func (s *Server[R]) Awaited() RAck {
	if s == nil || !s.waits {
		return RAck{}
	}
	return RAck{s.rseq, s.cseq, "INVITE"}
}

// Outstanding returns the response that waits for its PRACK; ok is false if none does.
func (s *Server[R]) Outstanding() (response R, ok bool) {
	if s == nil {
		return response, false
	}
	return s.outstanding, s.waits
}

// Unacknowledged yields the outstanding response and the queued ones, in their order.
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

// Queued returns the number of responses that wait for the outstanding one.
func (s *Server[R]) Queued() int { return len(s.queue) }

// IsIdle reports whether every response was acknowledged.
func (s *Server[R]) IsIdle() bool { return !s.waits && len(s.queue) == 0 }

// Started reports whether a response was sent.
func (s *Server[R]) Started() bool { return s != nil && s.started }

// Close drops the queued responses: after the final response to the INVITE no new
// provisional response is sent (RFC 3262 3).
func (s *Server[R]) Close() {
	if s != nil {
		s.queue, s.closed = nil, true
	}
}

// Schedule has the times of retransmission of one response: after T1, then after
// intervals that double without a cap, until 64*T1 are over (RFC 3262 3).
type Schedule struct {
	interval time.Duration
	deadline time.Time
}

// NewSchedule returns the schedule of a response that is sent now. The first wait is T1.
func NewSchedule(now time.Time, t1 time.Duration) Schedule {
	return Schedule{t1, now.Add(64 * t1)}
}

// Next returns the wait after the retransmission now; ok is false if 64*T1 are over, and
// the INVITE gets a 5xx.
func (s *Schedule) Next(now time.Time) (wait time.Duration, ok bool) {
	left := s.deadline.Sub(now)
	if left <= 0 {
		return 0, false
	}
	s.interval *= 2
	return min(s.interval, left), true
}
