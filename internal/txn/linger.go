package txn

import (
	"sync"
	"time"
)

// lingering is the transactions that wait equally long for stragglers, the next to
// end first. One timer serves all: with a timer each, a server would hold most of
// its timers for what is over.
type lingering struct {
	// Set at construction.

	layer *Layer
	wait  time.Duration

	mu sync.Mutex // guards the fields below; taken under a transaction's

	first, last *transaction
	timer       *time.Timer // runs while there is a first
}

// place is a transaction's place in a queue of lingering, whose mutex guards it.
type place struct {
	before, after *transaction
	until         time.Duration // since the layer was made
	generation    uint32        // of the transaction's limit
}

// newLingering returns a queue for each wait that there is.
func (l *Layer) newLingering() map[time.Duration]*lingering {
	queues := make(map[time.Duration]*lingering)
	for _, wait := range l.timers.lingers() {
		queues[wait] = &lingering{layer: l, wait: wait}
	}
	return queues
}

// add begins the wait of a transaction that is in no queue. Its mutex is held.
func (q *lingering) add(tx *transaction) {
	q.mu.Lock()
	defer q.mu.Unlock()
	tx.place = place{before: q.last, until: time.Since(q.layer.made) + q.wait, generation: tx.limit.generation}
	if q.last != nil {
		q.last.place.after = tx
	} else {
		q.first = tx
		q.timer = time.AfterFunc(q.wait, q.fire)
	}
	q.last = tx
}

// remove ends the wait, if it goes on.
func (q *lingering) remove(tx *transaction) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == tx || tx.place.before != nil {
		q.removeLocked(tx)
	}
	if q.first == nil && q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}

func (q *lingering) removeLocked(tx *transaction) {
	before, after := tx.place.before, tx.place.after
	if before != nil {
		before.place.after = after
	} else {
		q.first = after
	}
	if after != nil {
		after.place.before = before
	} else {
		q.last = before
	}
	tx.place = place{}
}

// fire ends the transactions whose wait is over.
func (q *lingering) fire() {
	// Counted, so that Close can wait for it.
	q.layer.tasks.Run(func() {
		for tx, generation := q.next(); tx != nil; tx, generation = q.next() {
			q.end(tx, generation)
		}
	})
}

func (q *lingering) end(tx *transaction, generation uint32) {
	defer q.layer.survive("timer")
	tx.owner.onTimer(&tx.limit, generation, eventLimit)
}

// next takes out a transaction whose wait is over. Without one it sees to it that
// fire comes again when there will be.
func (q *lingering) next() (*transaction, uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	tx := q.first
	if tx == nil {
		q.timer = nil
		return nil, 0
	}
	if left := tx.place.until - time.Since(q.layer.made); left > 0 {
		q.timer.Reset(left)
		return nil, 0
	}
	generation := tx.place.generation
	q.removeLocked(tx)
	return tx, generation
}
