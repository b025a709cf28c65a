package dialog

import "context"

// The NOTIFYs that wait: of one subscription one is unanswered at a time.

// maxPendingNotifies bounds the NOTIFYs that wait; beyond it the newest progress takes
// the place of the one before.
const maxPendingNotifies = 32

// queueNotify queues a NOTIFY. It leaves when all before it have been answered, so
// that they arrive in order, and nobody waits for it.
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

// flusherLocked returns what begins to flush, if anything may leave now: Shutdown
// waits for that if the last NOTIFY is to be among it. It is called without locks.
func (r *ReferSubscription) flusherLocked() (start func()) {
	switch may := r.mayFlushLocked(); {
	case may && r.closing:
		return func() { r.dialog.finalGoodbye(r.flush) }
	case may:
		return func() { r.dialog.background(r.flush) }
	}
	return func() {}
}

// flushLast writes the last NOTIFY although it waits for the answer to another, for
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

// mayFlushLocked reports whether a NOTIFY waits that may leave now; flush is then
// to be called.
func (r *ReferSubscription) mayFlushLocked() bool {
	may := len(r.queue) > 0 && r.unanswered == 0 && !r.flushing
	r.flushing = r.flushing || may
	return may
}

// flush writes the first NOTIFY that waits, and the next if that failed.
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
// subscription has ended all the same.
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
