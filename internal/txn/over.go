package txn

import (
	"sync"
	"sync/atomic"
	"time"

	"sipdialog.example/dialog/internal/past"
	"sipdialog.example/dialog/internal/transport"
)

// over has the records of transactions that have ended and only absorb late messages:
// records in which the garbage collector finds no pointer. A server has two for each call
// of the last 64*T1, far more than calls under way.
type over struct {
	// Set at construction.

	layer *Layer
	held  *budget // counts what they hold, unless nil

	size atomic.Int64 // of store, without the mutex

	mu sync.Mutex // guards the fields below; innermost

	store  *past.Store[remains]
	timer  *time.Timer
	at     time.Duration // when timer fires, since the layer was made; while there is one
	closed bool
}

// remains is a record without its texts. The key of the record is that of the transaction,
// its alias the key in Layer.merging, its note our To tag, its data the message that is sent
// again.
type remains struct {
	state state
	way   transport.Place // where to, if there are data
}

// overWeight bounds the bytes of a record without its texts: itself, and its places in
// two indexes, and memory that is not used yet.
const overWeight = 512

// together is how long a record may outstay its time, so that many end at once: a timer
// for each would wake the processor each time.
const together = 100 * time.Millisecond

func newOver(l *Layer, held *budget) *over {
	return &over{layer: l, held: held, store: past.New[remains]()}
}

// add keeps a record for a while, in place of something that held bytes of the budget. It
// reports false when it cannot.
func (o *over) add(wait time.Duration, r *past.Record[remains], held int) bool {
	if r.Text() > past.MaxText {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	now := time.Since(o.layer.made)
	o.store.Add(now, wait, r)
	o.give(held-r.Text(), -1)
	o.wakeLocked(now, now+wait)
	return true
}

// give takes records, or adds them, off the number and the budget.
func (o *over) give(text, records int) {
	o.size.Add(int64(-records))
	if o.held != nil {
		o.held.give(int64(text + records*overWeight))
	}
}

// wakeLocked has the timer fire at a time, or before.
func (o *over) wakeLocked(now, at time.Duration) {
	switch {
	case o.timer == nil:
		o.timer = time.AfterFunc(at-now, o.fire)
	case at < o.at:
		o.timer.Reset(at - now)
	default:
		return
	}
	o.at = at
}

// fire ends the records whose time is over.
func (o *over) fire() { o.layer.tasks.Run(o.sweep) } // counted, so that Close can wait for it

func (o *over) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Since(o.layer.made)
	records, text := o.store.Drop(now)
	o.give(text, records)
	next, found := o.store.Next()
	if !found || o.closed {
		o.timer = nil
		return
	}
	o.at = max(next, now+together)
	o.timer.Reset(o.at - now)
}

func (o *over) len() int { return int(o.size.Load()) }

// find returns the record of a transaction.
func (o *over) find(key []byte) (past.Record[remains], bool) {
	if o.len() == 0 {
		return past.Record[remains]{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.store.Find(key)
}

// merges returns the key of the transaction with that key in Layer.merging.
func (o *over) merges(key string) (string, bool) {
	if o.len() == 0 {
		return "", false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r, found := o.store.FindAlias([]byte(key))
	return r.Key, found
}

// close forgets all, and takes nothing more.
func (o *over) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	records, text := o.store.Drop(1<<63 - 1)
	o.give(text, records)
}
