package refersub

import (
	"strconv"
	"strings"
	"time"
)

// The ends of a Subscription-State (RFC 3515 2.4.7, RFC 6665 4.2.2).
const (
	NoResource = terminated + "noresource"
	Timeout    = terminated + "timeout"

	terminated = "terminated;reason="
)

// Notify is the content of a NOTIFY to be sent. An empty State is the one that goes with
// the progress; no progress is the last one.
type Notify struct {
	Progress Progress
	State    string
	// Retry is true when the NOTIFY is sent again after a 500, unless a later one has
	// left meanwhile: it may have been overtaken.
	Retry bool
}

// IsLast reports whether the NOTIFY ends the subscription.
func (n Notify) IsLast() bool { return n.Progress.IsFinal() || n.State != "" }

// Filled completes the NOTIFY: with the latest progress, and with the Subscription-State of a
// subscription that lasts for left (RFC 3515 2.4.7, RFC 6665 4.2.2).
func (n Notify) Filled(latest Progress, left time.Duration) Notify {
	if n.Progress == (Progress{}) {
		n.Progress = latest
	}
	switch {
	case n.State != "":
	case n.Progress.IsFinal():
		n.State = NoResource
	default:
		n.State = "active;expires=" + strconv.Itoa(int(max(left, 0).Seconds()))
	}
	return n
}

// Ends returns the reason for which a filled NOTIFY ends the subscription, and whether
// it does.
func (n Notify) Ends() (reason string, ends bool) { return strings.CutPrefix(n.State, terminated) }

// maxPending bounds the NOTIFYs in a queue; beyond it the newest progress replaces the
// last.
const maxPending = 32

// Notifier is the queue of the NOTIFYs of one subscription: one is unanswered at a time,
// so that they arrive in order. Its zero value is ready.
type Notifier struct {
	queue []Notify
	// closing is true when the last NOTIFY is, or was, in the queue, flushing while one
	// is being written.
	closing, flushing bool
	// unanswered counts those that have left and have no response, latest is the number
	// of the last of them.
	unanswered, latest int
}

// Queue adds a NOTIFY, unless the last one has been added.
func (q *Notifier) Queue(n Notify) bool {
	if q.closing {
		return false
	}
	q.closing, n.Retry = n.IsLast(), true
	if len(q.queue) >= maxPending {
		q.queue = q.queue[:maxPending-1]
	}
	q.queue = append(q.queue, n)
	return true
}

// IsClosing reports whether the last NOTIFY has been added.
func (q *Notifier) IsClosing() bool { return q.closing }

// Begin reports whether a NOTIFY may leave now: then its caller alone takes it, by Next.
func (q *Notifier) Begin() bool {
	may := len(q.queue) > 0 && q.unanswered == 0 && !q.flushing
	q.flushing = q.flushing || may
	return may
}

// Next takes the first NOTIFY; false when the subscription has ended meanwhile.
func (q *Notifier) Next() (n Notify, found bool) {
	if len(q.queue) == 0 {
		q.flushing = false
		return Notify{}, false
	}
	n = q.queue[0]
	q.queue = q.queue[1:]
	return n, true
}

// Written says that the NOTIFY of Next was written, or could not be, and begins with the
// next, as Begin does.
func (q *Notifier) Written() (more bool) {
	q.flushing = false
	return q.Begin()
}

// TakeLast takes the last NOTIFY, if it waits, and drops those before it: there is no
// time left for their responses.
func (q *Notifier) TakeLast() (n Notify, found bool) {
	if !q.closing || len(q.queue) == 0 {
		return Notify{}, false
	}
	n = q.queue[len(q.queue)-1]
	q.queue = nil
	return n, true
}

// Sent counts a NOTIFY that leaves, and returns its number.
func (q *Notifier) Sent() (number int) {
	q.latest++
	q.unanswered++
	return q.latest
}

// Answered counts the response to one, or that there will be none.
func (q *Notifier) Answered() { q.unanswered-- }

// IsLatest reports whether no NOTIFY has left after the one with that number.
func (q *Notifier) IsLatest(number int) bool { return q.latest == number }

// Drop drops what waits: the subscription has ended.
func (q *Notifier) Drop() { q.queue = nil }
