package rel100

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/usage"
)

// Client has the order of the reliable provisional responses to one INVITE in one dialog,
// and of the PRACKs P to them (RFC 3262 4). It is not safe for concurrent use. The zero
// value has received no response.
type Client[P any] struct {
	// latest is the RSeq of the latest accepted response; zero: none.
	latest uint32
	// pracks are the PRACKs to be sent; the first is in progress.
	pracks []P
	// failed is a PRACK that failed, failedRSeq the RSeq of its response; zero: none.
	failed     P
	failedRSeq uint32
}

// Order is the handling of a reliable provisional response (RFC 3262 4).
type Order int

const (
	// InOrder: the response is accepted and acknowledged. It is the first, or its RSeq
	// is one higher than that of the latest.
	InOrder Order = iota
	// Repeated: the response is a retransmission of the latest. It gets no second
	// PRACK, unless the first has failed: see Resend.
	Repeated
	// OutOfOrder: the response is older, or one before it is missing. It is ignored.
	OutOfOrder
	// TooMany: the peer has not answered the PRACKs to [MaxQueued] earlier responses.
	// The response is ignored.
	TooMany
)

// Check returns the handling of a response. It changes nothing.
func (c *Client[P]) Check(rseq uint32) Order {
	switch {
	case c.latest == 0:
		return InOrder
	case rseq == c.latest:
		return Repeated
	case rseq != c.latest+1 || rseq == 0: // an RSeq does not wrap around
		return OutOfOrder
	case len(c.pracks) >= MaxQueued:
		return TooMany
	default:
		return InOrder
	}
}

// Take records that a response was accepted.
func (c *Client[P]) Take(rseq uint32) { c.latest = rseq }

// Started reports whether a response was accepted.
func (c *Client[P]) Started() bool { return c.latest != 0 }

// Enqueue appends a PRACK to the queue. Each PRACK is sent after the response to the one
// before it, so that they arrive in the order of their CSeq. Enqueue reports whether this
// one should be sent now.
func (c *Client[P]) Enqueue(prack P) (now bool) {
	c.pracks = append(c.pracks, prack)
	return len(c.pracks) == 1
}

// Done records that the PRACK in progress has ended. It returns the next one to be sent;
// ok is false if there is none.
func (c *Client[P]) Done() (next P, ok bool) {
	if len(c.pracks) > 0 {
		c.pracks = c.pracks[1:]
	}
	if len(c.pracks) == 0 {
		return next, false
	}
	return c.pracks[0], true
}

// Outcome is the outcome of a PRACK.
type Outcome uint8

const (
	// Accepted: it has a 2xx.
	Accepted Outcome = iota
	// Failed: it could not be written, a later request overtook it (500, RFC 3261 12.2.2), or
	// the peer refuses its offer (488, RFC 6337 2.3). It is sent again when its response is
	// repeated.
	Failed
	// Refused: the peer does not know the response (481), or is not there (408). That ends
	// the early dialog, or the call (RFC 5057).
	Refused
)

// OutcomeOf returns the outcome of a PRACK that has that final response.
func OutcomeOf(status int) Outcome {
	switch {
	case status < 300:
		return Accepted
	case usage.EffectOf(sip.PRACK, status) == usage.EndsNothing:
		return Failed
	default:
		return Refused
	}
}

// End ends the PRACK in progress, which acknowledges rseq. It returns the next one to be sent;
// ok is false if there is none. kept reports whether the one that failed is kept for Resend.
func (c *Client[P]) End(prack P, rseq uint32, outcome Outcome) (next P, ok, kept bool) {
	kept = outcome == Failed && c.Fail(rseq, prack)
	next, ok = c.Done()
	return next, ok, kept
}

// Drop drops all queued PRACKs.
func (c *Client[P]) Drop() { c.pracks = nil }

// Fail keeps a failed PRACK until its response is repeated. It reports false if a later
// response was accepted: the peer no longer repeats the earlier one.
func (c *Client[P]) Fail(rseq uint32, prack P) bool {
	if rseq != c.latest {
		return false
	}
	c.failed, c.failedRSeq = prack, rseq
	return true
}

// Resend returns the failed PRACK, which is sent again for a repeated response; ok is
// false if the PRACK to that response has not failed.
func (c *Client[P]) Resend(rseq uint32) (prack P, ok bool) {
	if c.failedRSeq == 0 || rseq != c.failedRSeq {
		return prack, false
	}
	var none P
	prack, c.failed, c.failedRSeq = c.failed, none, 0
	return prack, true
}
