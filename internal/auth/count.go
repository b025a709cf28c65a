package auth

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// count is the use count of a nonce. It is safe for concurrent use.
type count struct {
	// Set at construction.

	// order is the place of the count when several are entered.
	order uint64
	// slot is full while a request is numbered and written.
	slot chan struct{}

	used atomic.Int32
}

func newCount(order uint64) *count {
	return &count{order: order, slot: make(chan struct{}, 1)}
}

func (c *count) next() int { return int(c.used.Add(1)) }

func (c *count) isLatest(n int) bool { return int(c.used.Load()) == n }

func (c *count) enter(ctx context.Context) bool {
	select {
	case c.slot <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// orderWait bounds how long a write may delay other requests with the same nonce. A write
// takes no time, but a Trace function of the application may block.
const orderWait = 500 * time.Millisecond

// enter waits until no other request with one of the answers' nonces is being numbered
// and written. If ctx or orderWait ends first, counts may leave in another order.
func enter(ctx context.Context, answers map[space]*answer) (leave func()) {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	var entered []*count
	for _, c := range countsOf(answers) {
		if c.enter(ctx) {
			entered = append(entered, c)
		}
	}
	return func() {
		for _, c := range entered {
			<-c.slot
		}
	}
}

// countsOf returns the counts of answers, each once and in their order, so that two
// requests never wait for each other. Without qop a nonce has no count.
func countsOf(answers map[space]*answer) []*count {
	var counts []*count
	for _, a := range answers {
		if len(a.challenge.QOP) > 0 {
			counts = append(counts, a.count)
		}
	}
	slices.SortFunc(counts, func(a, b *count) int { return cmp.Compare(a.order, b.order) })
	return slices.Compact(counts)
}
