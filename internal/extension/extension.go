// Package extension lets packages of this module, such as register, run on a stack: what
// they run is counted with it, waits on its timers, and ends with it. Its types are
// internal, so that no other module can do so.
package extension

import (
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/mailbox"
)

// Key is the argument of Stack.Extend. Only this module can make one.
type Key struct{ _ struct{} }

// Part is what runs on a stack. Its methods are called with no lock held, and do not
// block.
type Part interface {
	// NetworkChanged follows Stack.NetworkChanged.
	NetworkChanged()
	// Shutdown begins with the stack's: the part ends now, and waits for nothing.
	Shutdown()
}

// Host is what a stack offers to a part.
type Host struct {
	// Go runs a function on a goroutine that Shutdown waits for; false when it is too late.
	Go func(func()) bool
	// Timers are those of the stack: what they call is counted as Go counts.
	Timers *deadline.Queue
	// Callbacks delivers to the application, in order. It is the part's own.
	Callbacks *mailbox.Mailbox
	// Route leads through the outbound proxy of the configuration; nil without one.
	Route []sip.Uri
	// Check reports why a request outside calls could not be sent.
	Check func(*sip.Request) error
	// Leave takes the part off the stack.
	Leave func()
}

// Parts are the parts of one stack. The zero value is ready to use.
type Parts struct {
	mu     sync.Mutex // guards the fields below
	parts  map[Part]struct{}
	closed bool
}

// Add adds a part; false after Shutdown.
func (p *Parts) Add(part Part) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.parts == nil {
		p.parts = make(map[Part]struct{})
	}
	p.parts[part] = struct{}{}
	return true
}

// Remove takes a part out.
func (p *Parts) Remove(part Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.parts, part)
}

// NetworkChanged calls NetworkChanged of all parts.
func (p *Parts) NetworkChanged() {
	for _, part := range p.list(false) {
		part.NetworkChanged()
	}
}

// Shutdown ends all parts, and lets no other begin.
func (p *Parts) Shutdown() {
	for _, part := range p.list(true) {
		part.Shutdown()
	}
}

// Len is how many parts there are.
func (p *Parts) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.parts)
}

func (p *Parts) list(last bool) (parts []Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for part := range p.parts {
		parts = append(parts, part)
	}
	p.closed = p.closed || last
	return parts
}
