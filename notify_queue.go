package dialog

import "context"

// The NOTIFYs that wait: of one subscription one is unanswered at a time.

// maxPendingNotifies bounds the NOTIFYs in the queue; beyond it the newest progress
// replaces the last.
const maxPendingNotifies = 32

// queueNotify queues a NOTIFY and returns. It leaves when all before it have been
// answered, so that they arrive in order.
func (r *ReferSubscription) queueNotify(n pendingNotify) {
	r.dialog.mutex.Lock()
	if !r.active || r.closing {
		r.dialog.mutex.Unlock()
		return
	}
	r.closing, n.retry = n.isLast(), true
	if len(r.queue) >= maxPendingNotifies {
		r.queue = r.queue[:maxPendingNotifies-1]
	}
	r.queue = append(r.queue, n)
	start := r.flusherLocked()
	r.dialog.mutex.Unlock()
	start()
}

// flusherLocked returns a function that begins to flush, if a NOTIFY may leave now.
// Shutdown waits for it when the last NOTIFY is in the queue. It is called without
// locks.
func (r *ReferSubscription) flusherLocked() (start func()) {
	switch may := r.mayFlushLocked(); {
	case may && r.closing:
		return func() { r.dialog.finalGoodbye(r.flush) }
	case may:
		return func() { r.dialog.background(r.flush) }
	}
	return func() {}
}

// flushLast writes the last NOTIFY without waiting for the response to another, for
// which there is no time left.
func (r *ReferSubscription) flushLast() {
	r.dialog.mutex.Lock()
	var waiting []pendingNotify
	if r.closing {
		waiting, r.queue = r.queue, nil
	}
	r.dialog.mutex.Unlock()
	if len(waiting) > 0 {
		r.dialog.finalGoodbye(func() { r.write(waiting[len(waiting)-1]) })
	}
}

// mayFlushLocked reports whether a NOTIFY may leave now; the caller then calls flush.
func (r *ReferSubscription) mayFlushLocked() bool {
	may := len(r.queue) > 0 && r.unanswered == 0 && !r.flushing
	r.flushing = r.flushing || may
	return may
}

// flush writes the first NOTIFY in the queue, and the next if that failed.
func (r *ReferSubscription) flush() {
	for more := true; more; {
		r.dialog.mutex.Lock()
		if len(r.queue) == 0 {
			r.flushing = false
			r.dialog.mutex.Unlock()
			return // ended meanwhile
		}
		n := r.queue[0]
		r.queue = r.queue[1:]
		r.dialog.mutex.Unlock()
		r.write(n)
		r.dialog.mutex.Lock()
		r.flushing = false
		more = r.mayFlushLocked()
		r.dialog.mutex.Unlock()
	}
}

// write writes one NOTIFY of the queue. When the last cannot be written the
// subscription ends all the same.
func (r *ReferSubscription) write(n pendingNotify) {
	ctx, cancel := context.WithTimeout(r.dialog.baseContext(), r.dialog.config().txTimeout())
	defer cancel()
	err := r.notify(ctx, n, func(error) {})
	if err == nil {
		return
	}
	r.dialog.log().Debug("NOTIFY could not be sent", "error", err)
	if n.isLast() {
		r.drop(err)
	}
}
