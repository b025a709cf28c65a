package invite

// Choices are the 2xx R among which the application chooses, in the order of their arrival
// (RFC 3261 13.2.2.4). It is asked about one at a time. A 2xx stays in the queue until it is
// decided, so that its repetition is recognised. The zero value is empty.
type Choices[R any] struct {
	queue []choice[R]
	last  uint32
	// over is true when no more can come.
	over bool
}

type choice[R any] struct {
	id             uint32
	tag            string
	success        R
	asked, decided bool
}

// Choosing is what follows when a 2xx has arrived.
type Choosing uint8

const (
	// Ask: the application is asked.
	Ask Choosing = iota
	// Wait: another one is before it, or it is repeated.
	Wait
	// Decline: too many wait.
	Decline
)

// Queue appends the 2xx of a To tag, unless the call has been given up: ok is then false, and
// the 2xx makes the call.
func (c *Choices[R]) Queue(tag string, success R, givenUp bool) (does Choosing, ok bool) {
	for i := range c.queue {
		if c.queue[i].tag == tag {
			return Wait, true
		}
	}
	switch {
	case givenUp:
		return 0, false
	case len(c.queue) >= MaxForks:
		return Decline, true
	}
	c.last++
	c.queue = append(c.queue, choice[R]{id: c.last, tag: tag, success: success})
	if len(c.queue) > 1 {
		return Wait, true
	}
	return Ask, true
}

// Next returns the 2xx about which the application is asked now, once; ok is false for none.
func (c *Choices[R]) Next() (id uint32, success R, ok bool) {
	if len(c.queue) == 0 || c.queue[0].asked {
		return 0, success, false
	}
	first := &c.queue[0]
	first.asked = true
	return first.id, first.success, true
}

// Pending returns the 2xx that is decided next; ok is false for none.
func (c *Choices[R]) Pending() (id uint32, ok bool) {
	if len(c.queue) == 0 {
		return 0, false
	}
	return c.queue[0].id, true
}

// Decide begins to carry out a decision: of the application, of its time limit, or by the end
// of the call, whichever is the first. ok is false for the others.
func (c *Choices[R]) Decide(id uint32) (success R, ok bool) {
	if len(c.queue) == 0 || c.queue[0].id != id || c.queue[0].decided {
		return success, false
	}
	c.queue[0].decided = true
	return c.queue[0].success, true
}

// Decided removes the 2xx that was decided. After one that was taken it returns all others,
// which are released. isOver reports whether this was the last one, and no more can come.
func (c *Choices[R]) Decided(taken bool) (released []R, isOver bool) {
	rest := c.queue[1:]
	if c.queue = rest; taken {
		c.queue = nil
		for i := range rest {
			released = append(released, rest[i].success)
		}
	}
	return released, c.over && len(c.queue) == 0
}

// Close records that no more 2xx can come, and reports whether one is still to be decided.
func (c *Choices[R]) Close() (waits bool) {
	c.over = len(c.queue) > 0
	return c.over
}
