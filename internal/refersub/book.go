package refersub

// Book has the REFERs of one dialog, but for the subscriptions of those received. The zero
// value is ready, and nil is an empty one to read.
type Book[R comparable] struct {
	// Unawaited are the REFERs sent that no WaitRefer has served, Followable those
	// accepted that may be followed. AskedBy, in a call that a REFER has asked for, is
	// that REFER.
	Unawaited  Queue[R]
	Followable Followable[R]
	AskedBy    R

	// sent are the REFERs sent that have not ended, by CSeq header value; first is that
	// of the first.
	sent  map[string]R
	first string
	// undecided counts the REFERs received that have no response, notifying the NOTIFYs
	// of ours that have none.
	undecided, notifying int
}

// AddSent adds a REFER that is sent.
func (b *Book[R]) AddSent(cseq string, r R) {
	if b.sent == nil {
		b.sent, b.first = make(map[string]R), cseq
	}
	b.sent[cseq] = r
}

// Renumber says that a REFER is sent again with another CSeq, by which the peer knows it
// from now on.
func (b *Book[R]) Renumber(from, to string) {
	r := b.sent[from]
	delete(b.sent, from)
	b.sent[to] = r
	if b.first == from {
		b.first = to
	}
}

// Sent returns the REFERs sent that have not ended, by CSeq header value. The caller may
// only remove some.
func (b *Book[R]) Sent() map[string]R {
	if b == nil {
		return nil
	}
	return b.sent
}

// NamedSent returns the REFER sent that an Event names; zero for none.
func (b *Book[R]) NamedSent(event string) (r R) {
	if b == nil {
		return r
	}
	return Named(b.sent, event, b.first)
}

// Arrives counts a REFER that is received, until Decided, and reports whether it is within
// the limit; subscribed is the number of those accepted that have not ended.
func (b *Book[R]) Arrives(subscribed, limit int) bool {
	if subscribed+b.undecided >= limit {
		return false
	}
	b.undecided++
	return true
}

// Decided says that a REFER received gets its response.
func (b *Book[R]) Decided() { b.undecided-- }

// Notifies counts a NOTIFY that leaves, Notified that it is over.
func (b *Book[R]) Notifies() { b.notifying++ }

func (b *Book[R]) Notified() { b.notifying = max(b.notifying-1, 0) }

// Ends says that the NOTIFYs that wait for a response do not keep the dialog.
func (b *Book[R]) Ends() {
	if b != nil {
		b.notifying = 0
	}
}

// Asked returns AskedBy.
func (b *Book[R]) Asked() (r R) {
	if b == nil {
		return r
	}
	return b.AskedBy
}

// InUse reports whether a REFER sent, or a NOTIFY without a response, keeps the dialog
// (RFC 5057 4).
func (b *Book[R]) InUse() bool { return b != nil && len(b.sent)+b.notifying > 0 }
