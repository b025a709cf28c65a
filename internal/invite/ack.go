package invite

// ACK is the ACK T, with the body B, to the 2xx of one INVITE of ours. It is sent once, and
// the same bytes again for each repetition of the 2xx (RFC 3261 13.2.2.4). The zero value has not
// been sent.
type ACK[T, B any] struct {
	// body is kept with the ACK: a later attempt has it too.
	ack  T
	body B
	// sent is true while ack may be repeated, sending while it is sent in the background,
	// over once no 2xx can come any more.
	sent, sending, over bool
}

// Begin records that the ACK is sent in the background.
func (a *ACK[T, B]) Begin() { a.sending = true }

// Sent records the ACK that was written; ok is false if it could not be. The peer then repeats
// its 2xx, and the ACK is tried again with the same body.
func (a *ACK[T, B]) Sent(ack T, ok bool, body B) {
	if a.sending = false; !a.over {
		a.ack, a.sent, a.body = ack, ok, body
	}
}

// Answer is what answers a repeated 2xx.
type Answer uint8

const (
	// Nothing: the ACK is being made, or no 2xx can come any more.
	Nothing Answer = iota
	// Resend: the same ACK.
	Resend
	// Resume: another attempt at the ACK, which could not be sent.
	Resume
)

// Again returns what answers a repeated 2xx. waits is true while the ACK waits for the
// application, and once the call has ended on both sides: an ACK that was sent is repeated
// all the same.
func (a *ACK[T, B]) Again(waits bool) (does Answer, ack T, body B) {
	switch {
	case a.sent:
		return Resend, a.ack, a.body
	case waits || a.sending || a.over:
		return Nothing, a.ack, a.body
	default:
		return Resume, a.ack, a.body
	}
}

// Forget forgets the ACK: no 2xx can come any more.
func (a *ACK[T, B]) Forget() { *a = ACK[T, B]{sending: a.sending, over: true} }
