package txn

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/transport"
)

// Ack is an ACK to a 2xx, kept for the repetitions of that response. Its
// methods may be called from any goroutine.
type Ack struct {
	// Set at construction.

	layer  *Layer
	callID string
	opt    RequestOptions
	flow   *transport.Flow
	data   []byte

	// rerouting is true while it is being sent by another flow; synchronised by
	// itself.
	rerouting atomic.Bool
}

// SendAck writes the ACK to a 2xx: it has its own Via branch and no transaction
// (RFC 3261 13.2.2.4, 17.1). It takes req over. Where it goes, how long it blocks and its
// errors are as for [Layer.Request]; with opt.NoWait it does not block, and ErrWouldWait
// is one more.
func (l *Layer) SendAck(ctx context.Context, req *draft.Request, opt RequestOptions) (*Ack, error) {
	if err := checkOutgoing(req); err != nil {
		return nil, err
	}
	defer req.Release()
	if req.Method != sip.ACK {
		return nil, fmt.Errorf("%w: %s", ErrNotAllowed, req.Method)
	}
	a := &Ack{layer: l, callID: req.CallID(), opt: opt}
	write := func(o outgoing) error {
		a.flow, a.data = o.flow, o.data
		l.logSent(o.req, o.flow)
		return o.flow.Send(o.data)
	}
	var err error
	if opt.NoWait {
		err = l.deliverNow(req, opt, write)
	} else {
		err = l.deliver(ctx, req, newRoute(opt), write)
	}
	if err != nil {
		l.logUnsent(req, opt, err)
		return nil, err
	}
	return a, nil
}

// Resend sends the same bytes again. When the connection is lost the ACK goes to
// the next hop by whatever leads there now, in the background; if that fails the
// peer repeats its 2xx. It does not block. Errors: ErrTransport on UDP,
// ErrClosed.
func (a *Ack) Resend() error { return a.ResendBy(a.flow) }

// ResendBy is Resend by the flow that its peer is behind by now.
func (a *Ack) ResendBy(flow *transport.Flow) error {
	err := flow.Send(a.data)
	switch {
	case err == nil:
		return nil
	case !flow.Reliable():
		return errtext.As(ErrTransport, err)
	case !a.rerouting.CompareAndSwap(false, true):
		// The connection attempt continues, and the peer repeats its 2xx.
	case !a.layer.tasks.Go(a.reroute):
		return ErrClosed
	}
	return nil
}

// elsewhere is where the ACK goes once its connection is lost.
func (a *Ack) elsewhere() RequestOptions {
	opt := RequestOptions{NextHop: a.opt.NextHop}
	if a.opt.FlowOnly || a.opt.Reopen {
		opt.Flow, opt.FlowOnly, opt.Reopen = a.flow, a.opt.FlowOnly, a.opt.Reopen
	}
	return opt
}

// reroute sends the ACK by another flow, with a Via that says so.
func (a *Ack) reroute() {
	defer a.rerouting.Store(false)
	l, req := a.layer, draft.Parse(a.data)
	defer req.Release()
	err := l.deliver(l.ctx, req, newRoute(a.elsewhere()), func(o outgoing) error { return o.flow.Send(o.data) })
	if err != nil {
		l.log.Debug("ACK not sent again", "call_id", a.callID, "error", err)
	}
}
