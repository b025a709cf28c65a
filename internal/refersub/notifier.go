package refersub

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
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

// Write adds what only a filled NOTIFY has, for the REFER with that CSeq (RFC 3515 2.4.4,
// 2.4.7).
func (n Notify) Write(req *draft.Request, cseq string) {
	req.Add("Event", Event(cseq))
	req.Add("Subscription-State", n.State)
	req.Add("Content-Type", TypeFrag)
	req.Body = n.Progress.Frag()
}

// WriteSubscribe adds what only a SUBSCRIBE has that refreshes the subscription of the
// REFER with that CSeq.
func WriteSubscribe(req *draft.Request, cseq string, life time.Duration) {
	req.Add("Event", Event(cseq))
	req.Add("Expires", sipmsg.FormatSeconds(life))
	req.Add("Accept", sipmsg.Bare(TypeFrag))
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
	// closing is true when the last NOTIFY is, or was, in the queue, writing while one
	// of the queue is being written.
	closing, writing bool
	// unanswered are the numbers of those that have left and have no response, latest is
	// that of the last that has left.
	unanswered []int
	latest     int
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

// Begin takes the first NOTIFY, if one may leave now: until Written no other does.
func (q *Notifier) Begin() (n Notify, may bool) {
	if len(q.queue) == 0 || len(q.unanswered) > 0 || q.writing {
		return Notify{}, false
	}
	n, q.queue, q.writing = q.queue[0], q.queue[1:], true
	return n, true
}

// Written says that the NOTIFY of Begin was written, or could not be.
func (q *Notifier) Written() { q.writing = false }

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
	q.unanswered = append(q.unanswered, q.latest)
	return q.latest
}

// Answered says that the NOTIFY with that number has its response, or will get none, and
// reports whether that is new.
func (q *Notifier) Answered(number int) bool {
	before := len(q.unanswered)
	q.unanswered = slices.DeleteFunc(q.unanswered, func(other int) bool { return other == number })
	return len(q.unanswered) < before
}

// IsLatest reports whether no NOTIFY has left after the one with that number.
func (q *Notifier) IsLatest(number int) bool { return q.latest == number }

// Drop drops what waits: the subscription has ended.
func (q *Notifier) Drop() { q.queue = nil }
