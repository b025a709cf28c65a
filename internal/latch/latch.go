// Package latch has an event that goroutines can wait for. No goroutine waits for most
// events, so the channel is made only when one does.
package latch

// Latch is closed until the event opens it. The zero value is closed. A Latch has the size
// of a pointer. It is not safe for concurrent use: its owner's mutex guards it. Its channels
// may be received from without the mutex.
type Latch struct {
	c chan struct{}
}

// opened is the channel of every latch that is open.
var opened = make(chan struct{})

func init() { close(opened) }

// C returns a channel that the next Open or Wake closes.
func (l *Latch) C() <-chan struct{} {
	if l.c == nil {
		l.c = make(chan struct{})
	}
	return l.c
}

// Open opens the latch permanently: the event has happened.
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

// Wake closes the channels that C has returned, so that waiting goroutines check their
// condition again. It does nothing to an open latch.
func (l *Latch) Wake() {
	if l.c == nil || l.c == opened {
		return
	}
	close(l.c)
	l.c = nil
}
