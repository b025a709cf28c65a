// Package latch is an event that goroutines wait for. Most of them nobody ever waits
// for: the channel is made when somebody does.
package latch

// Latch is closed, until the event opens it. The zero value is closed, and of the size
// of a pointer. Not safe for concurrent use: its owner's mutex guards it, and the
// channels are received from without.
type Latch struct {
	c chan struct{}
}

// opened is the channel of every latch that is open.
var opened = make(chan struct{})

func init() { close(opened) }

// C returns a channel that is closed when the latch is opened, or woken next.
func (l *Latch) C() <-chan struct{} {
	if l.c == nil {
		l.c = make(chan struct{})
	}
	return l.c
}

// Open opens the latch for ever: the event has happened.
func (l *Latch) Open() {
	l.Wake()
	l.c = opened
}

// OpenIf opens the latch if the event has happened.
func (l *Latch) OpenIf(happened bool) *Latch {
	if happened {
		l.Open()
	}
	return l
}

// Wake closes the channels that C has returned, for those who wait now to look again.
// It does nothing to an open latch.
func (l *Latch) Wake() {
	if l.c == nil || l.c == opened {
		return
	}
	close(l.c)
	l.c = nil
}
