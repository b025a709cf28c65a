package txn

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"sipdialog.example/dialog/internal/tasks"
)

// queues run the work of each Call-ID in order, one piece at a time, and that
// of different Call-IDs in parallel. A queue and its goroutine exist only while
// there is work.
type queues struct {
	seed maphash.Seed
	// call runs one piece of work; it survives a panic.
	call   func(work func())
	shards [shardCount]queueShard
}

type queueShard struct {
	workers tasks.Group

	mu      sync.Mutex // guards the fields below
	closed  bool
	waiting map[string]*queue
}

// queue is the work that waits for one worker. The shard's mutex guards it.
type queue struct {
	work []func()
}

func newQueues(call func(work func())) *queues {
	q := &queues{seed: maphash.MakeSeed(), call: call}
	for i := range q.shards {
		q.shards[i].waiting = make(map[string]*queue)
	}
	return q
}

// push queues work behind all of the same Call-ID. With a bound above zero it
// reports false when so many wait already; without, only after close. It does not
// block and may be called with a transaction locked, so that work is queued in
// the order in which the state changed.
func (q *queues) push(callID string, bound int, work func()) bool {
	s := &q.shards[maphash.String(q.seed, callID)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting[callID]
	switch {
	case s.closed:
		return false
	case w == nil:
		w = &queue{}
		s.waiting[callID] = w
		s.workers.Go(func() { q.serve(s, callID, w) })
	case bound > 0 && len(w.work) >= bound:
		return false
	}
	w.work = append(w.work, work)
	return true
}

// serve works until the queue is empty.
func (q *queues) serve(s *queueShard, callID string, w *queue) {
	empty := false
	defer func() {
		// Work that ends its goroutine (runtime.Goexit) does not end the queue.
		if !empty {
			s.workers.Go(func() { q.serve(s, callID, w) })
		}
	}()
	for {
		work := s.next(callID, w)
		if work == nil {
			empty = true
			return
		}
		q.call(work)
	}
}

// next takes the first piece of work out, or takes the empty queue away.
func (s *queueShard) next(callID string, w *queue) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(w.work) == 0 {
		delete(s.waiting, callID)
		return nil
	}
	work := w.work[0]
	w.work[0] = nil
	w.work = w.work[1:]
	return work
}

// settle blocks until no work is under way, or the time is over.
func (q *queues) settle(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for i := range q.shards {
		q.shards[i].workers.Wait(ctx)
	}
}

// close refuses new work and blocks until what is queued has been done.
func (q *queues) close() {
	for i := range q.shards {
		s := &q.shards[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	for i := range q.shards {
		q.shards[i].workers.Wait(context.Background())
	}
}

func (q *queues) len() int {
	n := 0
	for i := range q.shards {
		s := &q.shards[i]
		s.mu.Lock()
		n += len(s.waiting)
		s.mu.Unlock()
	}
	return n
}
