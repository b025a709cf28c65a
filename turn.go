package dialog

import (
	"context"
	"sync"
)

// turn orders what one dialog writes, so that requests leave in CSeq order. It
// is one slot that is waited for with a context, unlike a mutex, since a write
// may mean a look-up and a dial. The zero value is free.
type turn struct {
	mu sync.Mutex // guards the fields below
	// holders is who has the slot: one who took it, and those who joined.
	holders int
	// waiters queue for it, first come first served.
	waiters []chan struct{}
}

// take waits for the slot until ctx ends, and returns ctx's error then.
func (t *turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.wait(ctx, t.enqueue())
}

// wait is take for one who stands in line already.
func (t *turn) wait(ctx context.Context, mine chan struct{}) error {
	if mine == nil {
		return nil
	}
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		t.abandon(mine)
		return ctx.Err()
	}
}

// enter is wait, but joins when ctx ends: for what must not be kept back for ever
// by a request that hangs in a dial.
func (t *turn) enter(ctx context.Context, mine chan struct{}) {
	if t.wait(ctx, mine) != nil {
		t.join()
	}
}

// join takes part in the slot without waiting for whoever holds it: for what
// must not wait, such as an ACK. Those who take it wait for it to be released.
func (t *turn) join() {
	t.mu.Lock()
	t.holders++
	t.mu.Unlock()
}

// release gives the slot to the next in line.
func (t *turn) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holders--
	t.grantLocked()
}

// enqueue stands in line for the slot without waiting: what follows is wait. It
// returns nil when the caller has the slot, else what is closed when it has.
func (t *turn) enqueue() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holders == 0 {
		t.holders = 1
		return nil
	}
	mine := make(chan struct{})
	t.waiters = append(t.waiters, mine)
	return mine
}

// abandon leaves the queue, or gives the slot back when it was just granted.
func (t *turn) abandon(mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.waiters {
		if w == mine {
			t.waiters = append(t.waiters[:i], t.waiters[i+1:]...)
			return
		}
	}
	t.holders--
	t.grantLocked()
}

func (t *turn) grantLocked() {
	if t.holders == 0 && len(t.waiters) > 0 {
		t.holders = 1
		close(t.waiters[0])
		t.waiters = t.waiters[1:]
	}
}
