package retry

import (
	"context"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Waiter waits for the final response to a request: its Response and Done are the
// OnResponse and OnDone of a Request.
type Waiter struct {
	final chan outcome
	name  func(error) error
	// flow is the one that the latest response has come by: it is read when that was
	// the final one.
	flow *transport.Flow
}

type outcome struct {
	res *sipmsg.Message
	err error
}

// NewWaiter returns a Waiter; name gives errors their names for the application.
func NewWaiter(name func(error) error) *Waiter {
	return &Waiter{final: make(chan outcome, 1), name: name}
}

// Heard records the flow of a response, before Response and on the same goroutine.
func (w *Waiter) Heard(flow *transport.Flow) { w.flow = flow }

// Flow is the flow of the final response, once Wait has returned it.
func (w *Waiter) Flow() *transport.Flow { return w.flow }

// Response takes a response; provisional ones are not waited for.
func (w *Waiter) Response(res *sipmsg.Message) {
	if !res.IsProvisional() {
		w.tell(outcome{res: res})
	}
}

// Done follows a final response, or replaces it.
func (w *Waiter) Done(err error) {
	if err != nil {
		w.tell(outcome{err: w.name(err)})
	}
}

// tell keeps the first outcome.
func (w *Waiter) tell(o outcome) {
	select {
	case w.final <- o:
	default:
	}
}

// Wait returns the final response, the error without one, or that of ctx.
func (w *Waiter) Wait(ctx context.Context) (*sipmsg.Message, error) {
	select {
	case o := <-w.final:
		return o.res, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
