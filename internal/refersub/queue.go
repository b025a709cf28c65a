package refersub

// Named returns the REFER that the Event of a request names by its CSeq number. Without
// a number it is the first REFER of the dialog, or the only one (RFC 3515 2.4.6). It is
// zero if there is no such REFER. The keys are the CSeqs of the REFERs, first is that of the first.
func Named[R any](referrals map[string]R, event, first string) (found R) {
	if id := EventID(event); id != "" {
		return referrals[CSeqOf(id)]
	}
	for cseq, r := range referrals {
		if cseq == first || len(referrals) == 1 {
			return r
		}
	}
	return found
}

// maxQueue bounds the REFERs without a waiter for their response.
const maxQueue = 1000

// Queue has the REFERs sent whose response was not taken, in the order of sending. The
// zero value is ready. Beyond a bound the oldest are dropped.
type Queue[R comparable] struct{ list []queued[R] }

type queued[R comparable] struct {
	refer R
	// waited is true while a caller waits for the response.
	waited bool
}

// Push adds a REFER.
func (q *Queue[R]) Push(r R) {
	if len(q.list) >= maxQueue {
		q.list = q.list[1:]
	}
	q.list = append(q.list, queued[R]{refer: r})
}

// Next returns the first REFER without a waiter, for its caller to wait for.
func (q *Queue[R]) Next() (r R, found bool) {
	for i := range q.list {
		if e := &q.list[i]; !e.waited {
			e.waited = true
			return e.refer, true
		}
	}
	return r, false
}

// PutBack says that its caller no longer waits: the next may.
func (q *Queue[R]) PutBack(r R) {
	for i := range q.list {
		if e := &q.list[i]; e.refer == r {
			e.waited = false
		}
	}
}

// Drop removes a REFER.
func (q *Queue[R]) Drop(r R) {
	for i := range q.list {
		if q.list[i].refer == r {
			q.list = append(q.list[:i], q.list[i+1:]...)
			return
		}
	}
}

// Followable has the REFERs accepted whose call may be placed, in their order. The zero
// value is ready.
type Followable[R comparable] struct{ list []R }

// Add adds a REFER. When there are most already, the oldest is dropped and returned.
func (f *Followable[R]) Add(r R, most int) (oldest R, dropped bool) {
	if n := len(f.list); n > 0 && n >= most {
		oldest = f.list[0]
		dropped = f.Take(oldest)
	}
	f.list = append(f.list[:len(f.list):len(f.list)], r)
	return oldest, dropped
}

// Take removes a REFER, and reports whether it was there: of several callers one gets
// true.
func (f *Followable[R]) Take(r R) bool {
	var left []R
	for _, other := range f.list {
		if other != r {
			left = append(left, other)
		}
	}
	found := len(left) < len(f.list)
	f.list = left
	return found
}

// Has reports whether a REFER is there.
func (f *Followable[R]) Has(r R) bool {
	for _, other := range f.list {
		if other == r {
			return true
		}
	}
	return false
}

// All returns the REFERs. The caller must not change the list.
func (f *Followable[R]) All() []R { return f.list }
