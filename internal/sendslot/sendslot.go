// Package sendslot orders the requests of one dialog, so that they leave in CSeq
// order (RFC 3261 12.2.1.1).
package sendslot

import (
	"context"
	"slices"
	"sync"
)

// Slot is held while a request is built and written. It is waited for with a
// context, unlike a mutex, since a write may mean a look-up and a dial. It is
// granted first come, first served. The zero value is free.
type Slot struct {
	mu sync.Mutex // guards the fields below
	// holders counts the one who acquired the slot, and those who joined.
	holders int
	waiting []Ticket
}

// Ticket is a place in the queue for the slot: it is closed when the slot is
// granted. nil has been granted at once.
type Ticket chan struct{}

// Acquire waits for the slot until ctx ends, and returns ctx's error then.
func (s *Slot) Acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Wait(ctx, s.Enqueue())
}

// Enqueue takes a place in the queue without waiting. Wait or WaitOrJoin has to
// follow.
func (s *Slot) Enqueue() Ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders == 0 {
		s.holders = 1
		return nil
	}
	ticket := make(Ticket)
	s.waiting = append(s.waiting, ticket)
	return ticket
}

// Wait is Acquire for a place in the queue, which it gives up when ctx ends.
func (s *Slot) Wait(ctx context.Context, ticket Ticket) error {
	if ticket == nil {
		return nil
	}
	select {
	case <-ticket:
		return nil
	case <-ctx.Done():
		s.abandon(ticket)
		return ctx.Err()
	}
}

// WaitOrJoin is Wait that joins when ctx ends: for a request that must not be kept
// back for ever by one that hangs in a dial.
func (s *Slot) WaitOrJoin(ctx context.Context, ticket Ticket) {
	if s.Wait(ctx, ticket) != nil {
		s.Join()
	}
}

// Join shares the slot with its holder, if any, without waiting: for a request that
// must not wait, such as an ACK. The slot is free again when all have released it.
func (s *Slot) Join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
}

// Release grants the slot to the first in the queue once nobody holds it.
func (s *Slot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked()
}

// abandon leaves the queue, or releases the slot when it was just granted.
func (s *Slot) abandon(ticket Ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := slices.Index(s.waiting, ticket); at >= 0 {
		s.waiting = slices.Delete(s.waiting, at, at+1)
		return
	}
	s.releaseLocked()
}

func (s *Slot) releaseLocked() {
	s.holders--
	if s.holders == 0 && len(s.waiting) > 0 {
		s.holders = 1
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
}
