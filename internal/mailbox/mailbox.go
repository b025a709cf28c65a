// Package mailbox delivers callbacks in order, one at a time, with no lock
// held, and survives their panics.
//
// A function that changes a state pushes the callbacks for the change while it
// holds the lock that guards the state. So callbacks are delivered in the order
// of the changes. They run on a goroutine that exists only while calls wait. A
// callback that panics, or that ends its goroutine (runtime.Goexit), ends only
// itself.
package mailbox

import (
	"errors"
	"runtime/debug"
	"sync"
)

// ErrGoexit is passed to Panicked if a callback ended its goroutine.
var ErrGoexit = errors.New("callback called runtime.Goexit")

// DefaultBound is the bound if Bound is zero.
const DefaultBound = 64

// Mailbox is an ordered queue of calls. The zero value is ready to use. All
// methods may be called from any goroutine, from inside a call, and while the
// caller holds its own locks: they take only the mailbox's mutex, and do not
// wait for a call.
type Mailbox struct {
	// Set at construction, if at all.

	// Go starts the delivering goroutine and reports whether it did; nil means
	// the go statement. If it reports false, the waiting calls are dropped.
	Go func(func()) bool
	// Run, unless nil, runs each call once. So running calls can be counted
	// separately from waiting ones.
	Run func(call func())
	// Panicked runs on the delivering goroutine after a call that panicked or
	// ended its goroutine. It gets the panic's value, or ErrGoexit, and the stack.
	Panicked func(value any, stack []byte)
	// Bound is the number of waiting calls at which Offer refuses; zero means
	// DefaultBound.
	Bound int

	mu sync.Mutex // guards the fields below
	// queue holds the calls that have not begun.
	queue []entry
	// running is true while a delivering goroutine exists.
	running bool
	sealed  bool
	dropped uint64
}

// entry is one call; delivered, unless nil, is closed when the call has returned.
type entry struct {
	call      func()
	delivered chan struct{}
}

// Push queues calls, in order, without a bound. If no call was being delivered,
// it returns a channel that is closed when all of them have returned, else nil.
// So a caller that waits on the result never waits for the callback in which it
// runs. After Seal, and without calls, Push does nothing.
func (m *Mailbox) Push(calls ...func()) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pushLocked(calls)
}

// Offer is Push for calls that may be lost: it refuses, counts, and reports false
// if Bound calls wait already or the mailbox is sealed. Calls that are offered
// together are accepted together, regardless of their number: all registered
// callbacks run, or none.
func (m *Mailbox) Offer(calls ...func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sealed || len(m.queue) >= m.bound() {
		m.dropped++
		return false
	}
	m.pushLocked(calls)
	return true
}

// Seal pushes the last calls. Later pushes are ignored.
func (m *Mailbox) Seal(calls ...func()) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	delivered := m.pushLocked(calls)
	m.sealed = true
	return delivered
}

// Dropped returns the number of refusals by Offer, and of calls that were dropped
// because Go reported false.
func (m *Mailbox) Dropped() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}

// Waiting returns the number of calls that have not begun.
func (m *Mailbox) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

func (m *Mailbox) bound() int {
	if m.Bound > 0 {
		return m.Bound
	}
	return DefaultBound
}

func (m *Mailbox) pushLocked(calls []func()) <-chan struct{} {
	if m.sealed || len(calls) == 0 {
		return nil
	}
	for _, call := range calls {
		m.queue = append(m.queue, entry{call: call})
	}
	if m.running {
		return nil
	}
	delivered := make(chan struct{})
	m.queue[len(m.queue)-1].delivered = delivered
	m.startLocked()
	return delivered
}

func (m *Mailbox) startLocked() {
	m.running = true
	if m.Go == nil {
		go m.drain()
		return
	}
	if !m.Go(m.drain) {
		m.dropAllLocked()
	}
}

func (m *Mailbox) dropAllLocked() {
	for _, e := range m.queue {
		e.markDelivered()
	}
	m.dropped += uint64(len(m.queue))
	m.queue, m.running = nil, false
}

// drain delivers calls until the queue is empty. A Goexit in a call runs the
// deferred function, which starts a new goroutine for the other calls.
func (m *Mailbox) drain() {
	empty := false
	defer func() {
		if !empty {
			m.restart()
		}
	}()
	for {
		e, ok := m.next()
		if !ok {
			empty = true
			return
		}
		m.invoke(e)
	}
}

func (m *Mailbox) next() (entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		m.queue, m.running = nil, false
		return entry{}, false
	}
	e := m.queue[0]
	m.queue[0] = entry{}
	m.queue = m.queue[1:]
	return e, true
}

func (m *Mailbox) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		m.queue, m.running = nil, false
		return
	}
	m.startLocked()
}

func (m *Mailbox) invoke(e entry) {
	returned := false
	defer e.markDelivered()
	defer func() {
		if value := recover(); value != nil {
			m.report(value)
		} else if !returned {
			m.report(ErrGoexit)
		}
	}()
	m.run(e.call)
	returned = true
}

func (m *Mailbox) run(call func()) {
	if m.Run == nil {
		call()
		return
	}
	m.Run(call)
}

func (m *Mailbox) report(value any) {
	if m.Panicked == nil {
		return
	}
	// Panicked calls a logger of the application, which may panic too.
	defer func() { _ = recover() }()
	m.Panicked(value, debug.Stack())
}

func (e entry) markDelivered() {
	if e.delivered != nil {
		close(e.delivered)
	}
}
