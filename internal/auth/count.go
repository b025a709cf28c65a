package auth

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// count is how often a nonce has been used. It synchronises itself.
type count struct {
	// Set at construction.

	// order is the one in which several are entered.
	order uint64
	// slot is full while somebody numbers a request and writes it.
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

// orderWait is how long one who writes may keep back others that use the same nonce: a
// write takes no time, but a trace of the application's may.
const orderWait = 500 * time.Millisecond

// enter waits until nobody else is numbering and writing a request that counts one of
// the nonces of these answers, or ctx ends, or that takes too long: then the counts may
// leave in another order.
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

// countsOf returns the counts that answers raise, each once and in their order, so
// that two requests never wait for each other. Without qop nothing is counted.
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
