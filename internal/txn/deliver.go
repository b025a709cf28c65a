package txn

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/transport"
)

// RequestOptions say where a request goes.
type RequestOptions struct {
	// Flow is used while it is alive, else, or when it fails, NextHop is
	// resolved.
	Flow    *transport.Flow
	NextHop sip.Uri
	// FlowOnly permits no other flow: the next hop is an address in a foreign network.
	// NoStream keeps a request that is too long for UDP from TCP: a NAT on the path accepts
	// no connections.
	FlowOnly, NoStream bool
	// Reopen has another connection to where Flow leads, if that is one of ours, tried
	// when it is lost or suspect.
	Reopen bool
	// Prepare, unless nil, fills in what depends on the flow: Contact. It is
	// called before each writing, with no lock held, once or more: on the caller's
	// goroutine, for a target that is tried later on another.
	Prepare func(req *draft.Request, local transport.Local)
	// Authorize, unless nil, adds the credentials for the destination of the flow. It is
	// called after Prepare, in the same way, and may wait until ctx ends. Its result is
	// called when the request has been written, or is not sent in this form.
	Authorize func(ctx context.Context, req *draft.Request, flow *transport.Flow) (written func(sent bool))
	// NoWait has [Layer.SendAck] return ErrWouldWait rather than look a name up or
	// connect: for callers that must not wait.
	NoWait bool
}

// outgoing is a request ready for one flow.
type outgoing struct {
	req    *draft.Request // until it has been sent
	flow   *transport.Flow
	branch string
	data   []byte
	// written is the result of Authorize; nil without one.
	written func(sent bool)
}

// by has write send the request.
func (o outgoing) by(write func(outgoing) error) error {
	err := write(o)
	o.leave(err == nil)
	return err
}

// leave releases what Authorize has reserved, for those that wait for it.
func (o outgoing) leave(sent bool) {
	if o.written != nil {
		o.written(sent)
	}
}

// checkOutgoing refuses a request that a peer would have to refuse.
func checkOutgoing(req *draft.Request) error {
	if req == nil {
		return fmt.Errorf("%w: no request", ErrNotAllowed)
	}
	for _, name := range []string{"CSeq", "Call-ID", "From", "To"} {
		if req.IsEmpty(name) {
			return fmt.Errorf("%w: %s without %s", ErrNotAllowed, req.Method, name)
		}
	}
	if method := req.CSeqMethod(); method != req.Method {
		return fmt.Errorf("%w: %s with CSeq of %s", ErrNotAllowed, req.Method, method)
	}
	return nil
}

// deliver makes req ready for one place after the other until write, which
// sends it, succeeds.
func (l *Layer) deliver(ctx context.Context, req *draft.Request, w *route, write func(outgoing) error) error {
	var failed []error
	for !l.closed.Load() {
		flow, err := l.next(ctx, w)
		if err == nil {
			err = l.deliverOn(ctx, flow, req, w.opt, write)
		}
		if err == nil {
			return nil
		}
		last := errors.Is(err, errNoDestination)
		if err != errNoDestination || failed == nil { // else what failed before says why
			failed = append(failed, err)
		}
		if last || ctx.Err() != nil {
			break
		}
	}
	if l.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil && !errors.Is(errtext.Line(failed...), err) {
		failed = append(failed, err)
	}
	return errtext.As(ErrTransport, errtext.Line(failed...))
}

// deliverOn sends req on flow, or on TCP to the same address when it is too
// long for UDP; back on UDP when TCP cannot be connected (RFC 3261 18.1.1).
func (l *Layer) deliverOn(ctx context.Context, flow *transport.Flow, req *draft.Request, opt RequestOptions, write func(outgoing) error) error {
	o := l.compose(ctx, req, flow, opt)
	if opt.NoStream || flow.Transport() != "UDP" || len(o.data) <= l.transport.Limits().UDPRequestBytes {
		return o.by(write)
	}
	o.leave(false)
	stream, err := l.transport.Connect(ctx, transport.Target{Transport: "TCP", Addr: flow.RemoteAddr()})
	if err == nil {
		err = l.compose(ctx, req, stream, opt).by(write)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return l.compose(ctx, req, flow, opt).by(write)
}

// deliverNow is deliver without waiting: by the preferred flow, or by one to the next hop
// that needs neither a look-up nor a dial.
func (l *Layer) deliverNow(req *draft.Request, opt RequestOptions, write func(outgoing) error) error {
	if l.closed.Load() {
		return ErrClosed
	}
	flows := make([]*transport.Flow, 0, 2)
	if opt.Flow != nil && opt.Flow.Err() == nil && !opt.avoids() {
		flows = append(flows, opt.Flow)
	}
	if flow, ok := l.transport.Ready(opt.NextHop); ok && !opt.FlowOnly {
		flows = append(flows, flow)
	}
	for _, flow := range flows {
		if l.writeNow(flow, req, opt, write) == nil {
			return nil
		}
	}
	if opt.FlowOnly && !opt.Reopen {
		return ErrTransport // waiting does not help
	}
	return ErrWouldWait
}

// writeNow is deliverOn without connecting.
func (l *Layer) writeNow(flow *transport.Flow, req *draft.Request, opt RequestOptions, write func(outgoing) error) error {
	o := l.compose(l.ctx, req, flow, opt)
	if opt.NoStream || flow.Transport() != "UDP" || len(o.data) <= l.transport.Limits().UDPRequestBytes {
		return o.by(write)
	}
	o.leave(false)
	stream, ok := l.transport.ReadyTarget(transport.Target{Transport: "TCP", Addr: flow.RemoteAddr()})
	if !ok {
		return ErrWouldWait
	}
	return l.compose(l.ctx, req, stream, opt).by(write)
}

// tellsTarget reports whether requests of a method have our Contact, to which later
// requests of the peer go: it must be our present address.
func tellsTarget(method sip.RequestMethod) bool {
	switch method {
	case sip.INVITE, sip.UPDATE, sip.SUBSCRIBE, sip.NOTIFY, sip.REFER, sip.REGISTER:
		return true
	default:
		return false
	}
}

// compose sets the headers that depend on the flow, and writes the text.
func (l *Layer) compose(ctx context.Context, req *draft.Request, flow *transport.Flow, opt RequestOptions) outgoing {
	if tellsTarget(req.Method) {
		flow.Recheck()
	}
	branch, local := newBranch(), flow.Local()
	req.SetVia(local.Transport, local.Host, local.Port, branch)
	if opt.Prepare != nil {
		opt.Prepare(req, flow.Contact()) // which may rewrite it
	}
	if !req.Has("Max-Forwards") { // RFC 3261 8.1.1.6
		req.SetMaxForwards(maxForwards)
	}
	var written func(bool)
	if opt.Authorize != nil {
		written = opt.Authorize(ctx, req, flow)
	}
	return outgoing{req: req, flow: flow, branch: branch, data: req.Text(), written: written}
}
