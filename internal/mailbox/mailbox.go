// Package mailbox delivers callbacks in order, one at a time, with no lock
// held, and survives what they do.
//
// Whoever changes a state pushes the callbacks that tell of it while it still
// holds the lock that guards the state: so the order of delivery is the order
// of the changes. The callbacks run on a goroutine that exists only while
// there is something to deliver. A callback that panics, or that ends its
// goroutine (runtime.Goexit), costs itself only.
package mailbox

import (
	"errors"
	"runtime/debug"
	"sync"
)

// ErrGoexit is what Panicked is told when a callback ended its goroutine.
var ErrGoexit = errors.New("callback called runtime.Goexit")

// DefaultBound is how many calls wait when Bound is zero.
const DefaultBound = 64

// Mailbox is an ordered queue of calls. The zero value is ready to use. All
// methods may be called from any goroutine, from inside a call, and with the
// caller's own locks held: they take only the mailbox's mutex, and return
// without waiting for a call.
type Mailbox struct {
	// Set at construction, if at all.

	// Go starts the delivering goroutine and reports whether it did; nil is
	// the go statement. When it refuses, what waits is dropped.
	Go func(func()) bool
	// Run, unless nil, is given each call to run, once: so that what runs can be
	// counted apart from what waits.
	Run func(call func())
	// Panicked is told, on the delivering goroutine, of a call that panicked
	// (with the value) or ended its goroutine (with ErrGoexit), and its stack.
	Panicked func(value any, stack []byte)
	// Bound is how many calls may wait before Offer refuses; zero is
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

// entry is one call; delivered, when not nil, is closed when it is over.
type entry struct {
	call      func()
	delivered chan struct{}
}

// Push queues calls, in order, however long the queue is. When nothing was
// being delivered it returns a channel that is closed once all of them are
// over, else nil: whoever waits on the result never waits for a callback that
// it may itself be running in. After Seal, and with no calls, it does nothing.
func (m *Mailbox) Push(calls ...func()) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pushLocked(calls)
}

// Offer is Push for what may be lost: it refuses, counts, and reports false
// when Bound calls wait already or the mailbox is sealed. Calls offered together
// are taken together, however many: all who are registered are told, or nobody.
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

// Seal pushes the last calls: what is pushed afterwards is ignored.
func (m *Mailbox) Seal(calls ...func()) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	delivered := m.pushLocked(calls)
	m.sealed = true
	return delivered
}

// Dropped returns how often Offer refused.
func (m *Mailbox) Dropped() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}

// Waiting returns how many calls have not begun.
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
		e.finish()
	}
	m.dropped += uint64(len(m.queue))
	m.queue, m.running = nil, false
}

// drain delivers until the queue is empty. A Goexit in a call runs the
// deferred function, which hands the rest to a new goroutine.
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
	defer e.finish()
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
	// The logger behind Panicked is a stranger's as well.
	defer func() { _ = recover() }()
	m.Panicked(value, debug.Stack())
}

func (e entry) finish() {
	if e.delivered != nil {
		close(e.delivered)
	}
}
