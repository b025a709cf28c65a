package invite

// Callee are the early dialogs E that we have made of one INVITE of the peer's, each by a
// name of the application's, beside the one that the call began with (RFC 3261 12.1.1). The
// zero value has none.
type Callee[E Member] struct{ list []named[E] }

type named[E any] struct {
	name  string
	early E
}

// Find returns the early dialog of that name; the zero value for none.
func (c *Callee[E]) Find(name string) (e E) {
	for _, n := range c.list {
		if n.name == name {
			return n.early
		}
	}
	return e
}

// Name returns the name of an early dialog; empty for the one that the call began with.
func (c *Callee[E]) Name(e E) string {
	for _, n := range c.list {
		if n.early == e {
			return n.name
		}
	}
	return ""
}

// Tagged returns the early dialog with that To tag; the zero value for none.
func (c *Callee[E]) Tagged(tag string) (e E) {
	for _, n := range c.list {
		if n.early.base().Tag == tag {
			return n.early
		}
	}
	return e
}

// IsFull reports whether no other early dialog may be added.
func (c *Callee[E]) IsFull() bool { return len(c.list) >= MaxForks }

// Add adds the early dialog of a new name.
func (c *Callee[E]) Add(name string, e E) { c.list = append(c.list, named[E]{name, e}) }

// All appends the early dialogs in the order in which they were made.
func (c *Callee[E]) All(list []E) []E {
	for _, n := range c.list {
		list = append(list, n.early)
	}
	return list
}

// Close closes an early dialog, once.
func (c *Callee[E]) Close(e E, out []Effect[E]) []Effect[E] {
	b := e.base()
	if b.closed {
		return out
	}
	b.ended, b.closed = true, true
	return append(out, Effect[E]{Close, e}, Effect[E]{End, e})
}

// CloseUnlessLast is Close unless there is no other: it reports false, and the call must end.
// besides is true if the one that the call began with is another one, which has not ended. If
// the call sends in e, the oldest other one takes its place.
func (c *Callee[E]) CloseUnlessLast(e E, sends, besides bool, out []Effect[E]) (effects []Effect[E], ok bool) {
	if e.base().closed {
		return out, true
	}
	next, found := c.oldestBut(e)
	if !found && !besides {
		return out, false
	}
	out = c.Close(e, out)
	if sends && found {
		out = append(out, Effect[E]{Select, next})
	}
	return out, true
}

// oldestBut returns the oldest early dialog that is not closed, but for e.
func (c *Callee[E]) oldestBut(e E) (oldest E, found bool) {
	for _, n := range c.list {
		if n.early != e && !n.early.base().closed {
			return n.early, true
		}
	}
	return oldest, false
}

// Choose closes all early dialogs but the one that is the call from here on.
func (c *Callee[E]) Choose(e E, out []Effect[E]) []Effect[E] {
	for _, n := range c.list {
		if n.early != e {
			out = c.Close(n.early, out)
		}
	}
	return out
}
