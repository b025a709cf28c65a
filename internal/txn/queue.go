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
	call   func(work task)
	shards [shardCount]queueShard
	idle   sync.Pool // of unused queues
}

type queueShard struct {
	workers tasks.Group // one for each queue

	mu      sync.Mutex // guards the fields below
	closed  bool
	waiting map[string]*queue
}

// task is one piece of work.
type task interface{ run() }

// function is a task that is one.
type function func()

func (f function) run() { f() }

// queue is the work that waits for one worker. The shard's mutex guards it.
type queue struct {
	shard  *queueShard
	callID string
	work   []task
	done   int    // how much of work has been taken out
	serve  func() // set at construction: does the work
}

func newQueues(call func(work task)) *queues {
	q := &queues{seed: maphash.MakeSeed(), call: call}
	for i := range q.shards {
		q.shards[i].waiting = make(map[string]*queue)
	}
	q.idle.New = func() any {
		w := &queue{}
		w.serve = func() { q.serve(w) }
		return w
	}
	return q
}

func (q *queues) shard(callID string) *queueShard {
	return &q.shards[maphash.String(q.seed, callID)%shardCount]
}

// push queues work behind all of the same Call-ID. With a bound above zero it
// reports false when so many wait already; without, only after close. It does not
// block and may be called with a transaction locked, so that work is queued in
// the order in which the state changed.
func (q *queues) push(callID string, bound int, work func()) bool {
	return q.pushTask(callID, bound, function(work))
}

// pushTask is push for a task that needs no memory of its own.
func (q *queues) pushTask(callID string, bound int, work task) bool {
	s := q.shard(callID)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting[callID]
	if w == nil {
		if w = q.beginLocked(s, callID); w == nil {
			return false
		}
		tasks.Start(w.serve)
	}
	if s.closed || bound > 0 && len(w.work)-w.done >= bound {
		return false
	}
	w.append(work)
	return true
}

func (w *queue) append(work task) {
	if len(w.work) == cap(w.work) && 2*w.done > len(w.work) {
		left := copy(w.work, w.work[w.done:])
		clear(w.work[left:])
		w.work, w.done = w.work[:left], 0
	}
	w.work = append(w.work, work)
}

// beginLocked makes a queue with a worker; nil after close.
func (q *queues) beginLocked(s *queueShard, callID string) *queue {
	if s.closed || !s.workers.Begin() {
		return nil
	}
	w := q.idle.Get().(*queue)
	w.shard, w.callID = s, callID
	s.waiting[callID] = w
	return w
}

// serve works until the queue is empty.
func (q *queues) serve(w *queue) {
	empty := false
	defer func() {
		if !empty {
			tasks.Start(w.serve) // work that ends its goroutine (runtime.Goexit) does not end the queue
			return
		}
		q.leave(w)
	}()
	for {
		work := w.next()
		if work == nil {
			empty = true
			return
		}
		q.call(work)
	}
}

// leave counts the worker of an ended queue out.
func (q *queues) leave(w *queue) {
	s := w.shard
	w.shard, w.callID = nil, ""
	q.idle.Put(w)
	s.workers.End()
}

// next takes the first piece of work out, or takes the empty queue away.
func (w *queue) next() task {
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	if w.done == len(w.work) {
		w.endLocked()
		return nil
	}
	work := w.work[w.done]
	w.work[w.done] = nil
	if w.done++; w.done == len(w.work) {
		w.work, w.done = w.work[:0], 0
	}
	return work
}

// maxIdleWork bounds the capacity of an idle queue that is kept for reuse.
const maxIdleWork = 8

func (w *queue) endLocked() {
	delete(w.shard.waiting, w.callID)
	if w.done = 0; cap(w.work) > maxIdleWork {
		w.work = nil
	}
}

// waitIdle blocks until no work is in progress, the time is over or ctx ends.
func (q *queues) waitIdle(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for i := range q.shards {
		q.shards[i].workers.Wait(ctx)
	}
}

// close refuses new work and blocks until the queued work is done, or ctx ends.
func (q *queues) close(ctx context.Context) {
	for i := range q.shards {
		s := &q.shards[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	for i := range q.shards {
		q.shards[i].workers.Wait(ctx)
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
