package rel100

// Client is the reliable provisional responses to one INVITE that come in one dialog,
// and the PRACKs P to them (RFC 3262 4). Not safe for concurrent use; the zero value
// has received none.
type Client[P any] struct {
	// latest is the RSeq of the latest response taken; zero: none.
	latest uint32
	// pracks are those to be sent; the first is under way.
	pracks []P
	// failed is a PRACK that did not get through, failedRSeq that of its response;
	// zero: none.
	failed     P
	failedRSeq uint32
}

// Order says what to do with a reliable provisional response (RFC 3262 4).
type Order int

const (
	// InOrder: the response is taken, and acknowledged. It is the first, or its RSeq
	// is one higher than that of the latest.
	InOrder Order = iota
	// Repeated: it is the latest once more. It gets no second PRACK, unless the
	// first has failed: see Resend.
	Repeated
	// OutOfOrder: it is older, or one before it is missing. It is ignored.
	OutOfOrder
	// TooMany: the peer has not answered the PRACKs to [MaxQueued] responses before
	// it. It is ignored.
	TooMany
)

// Check says what to do with a response. It changes nothing.
func (c *Client[P]) Check(rseq uint32) Order {
	switch {
	case c.latest == 0:
		return InOrder
	case rseq == c.latest:
		return Repeated
	case rseq != c.latest+1 || rseq == 0: // it does not wrap around
		return OutOfOrder
	case len(c.pracks) >= MaxQueued:
		return TooMany
	default:
		return InOrder
	}
}

// Take notes that a response was taken.
func (c *Client[P]) Take(rseq uint32) { c.latest = rseq }

// Started reports whether a response was taken.
func (c *Client[P]) Started() bool { return c.latest != 0 }

// Enqueue puts a PRACK behind those before it: each is sent when the one before is
// answered, so that they arrive in the order of their CSeq. It reports whether this
// one is to be sent now.
func (c *Client[P]) Enqueue(prack P) (now bool) {
	c.pracks = append(c.pracks, prack)
	return len(c.pracks) == 1
}

// Done notes that the PRACK under way is over. It returns the one to be sent next, if
// there is one.
func (c *Client[P]) Done() (next P, ok bool) {
	if len(c.pracks) > 0 {
		c.pracks = c.pracks[1:]
	}
	if len(c.pracks) == 0 {
		return next, false
	}
	return c.pracks[0], true
}

// Drop forgets the PRACKs: none is sent any more.
func (c *Client[P]) Drop() { c.pracks = nil }

// Fail keeps a PRACK that did not get through for when its response is repeated. It
// reports false when a later response was taken: the peer has given that one up.
func (c *Client[P]) Fail(rseq uint32, prack P) bool {
	if rseq != c.latest {
		return false
	}
	c.failed, c.failedRSeq = prack, rseq
	return true
}

// Resend returns the PRACK that failed, to be sent again upon a response that is
// repeated; ok is false when it has not.
func (c *Client[P]) Resend(rseq uint32) (prack P, ok bool) {
	if c.failedRSeq == 0 || rseq != c.failedRSeq {
		return prack, false
	}
	var none P
	prack, c.failed, c.failedRSeq = c.failed, none, 0
	return prack, true
}
