// Package sendslot orders the requests of one dialog, so that they leave in CSeq
// order (RFC 3261 12.2.1.1).
package sendslot

import (
	"context"
	"slices"
	"sync"
)

// Slot is held while a request is built and written. Unlike a mutex it is waited for
// with a context, since a write may need a DNS look-up and a dial. It is granted in the
// order of arrival. The zero value is free.
type Slot struct {
	mu sync.Mutex // guards the fields below
	// holders counts the request that acquired the slot, and those that joined.
	holders int
	waiting []Ticket
}

// Ticket is a place in the queue for the slot. It is closed when the slot is granted;
// a nil Ticket was granted at once.
type Ticket chan struct{}

// Acquire waits for the slot. If ctx ends first, it returns the error of ctx.
func (s *Slot) Acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Wait(ctx, s.Enqueue())
}

// Enqueue takes a place in the queue without waiting. Wait or WaitOrJoin must follow.
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

// Wait is Acquire for a place in the queue. It leaves the queue when ctx ends.
func (s *Slot) Wait(ctx context.Context, ticket Ticket) error {
	if ticket == nil {
		return nil
	}
	select {
	case <-ticket:
		return nil
	case <-ctx.Done():
		s.leave(ticket)
		return ctx.Err()
	}
}

// WaitOrJoin is Wait that joins the slot when ctx ends. It is for a request that a
// request hanging in a dial must not delay for ever.
func (s *Slot) WaitOrJoin(ctx context.Context, ticket Ticket) {
	if s.Wait(ctx, ticket) != nil {
		s.Join()
	}
}

// Join shares the slot with its holder, if any, without waiting. It is for a request
// that must not wait, such as an ACK. The slot is free again when all holders have
// released it.
func (s *Slot) Join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
}

// Release gives the slot up. When it has no holder left, the first in the queue gets it.
func (s *Slot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked()
}

// leave leaves the queue, or releases the slot if it was just granted.
func (s *Slot) leave(ticket Ticket) {
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
