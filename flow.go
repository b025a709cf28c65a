package dialog

import (
	"context"
	"errors"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Flow is a way to one peer (RFC 5626 2): a connection, or over UDP a socket of ours and
// the peer's address. To a telephone behind a NAT nothing else leads: who takes its
// REGISTER keeps the flow that it has come by ([FlowFrom]), and calls by it
// ([InviteOpts], [DoOpts], [ReferOpts]). What is sent by a flow goes by no other, and
// fails at once with ErrFlowLost when it is lost.
//
// To keep a Flow costs nothing but the memory of its connection. Its methods never block,
// and may be called from any goroutine and callback, also of the zero Flow, which leads
// nowhere.
type Flow struct {
	stack *Stack
	flow  *transport.Flow
}

// flowKey is the key of a context's Flow.
type flowKey struct{}

// FlowFrom returns the flow that a request has come by, in a [RequestHandler] whose
// context that is; nil elsewhere.
func FlowFrom(ctx context.Context) *Flow {
	f, _ := ctx.Value(flowKey{}).(*Flow)
	return f
}

// Flow returns the flow by which the peer's INVITE has come, or its answers to ours, or
// which the call has moved to since (StackConfig.MoveFlow); nil before there is one.
func (d *Dialog) Flow() *Flow {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.stack.flowOf(d.currentLocked().flow)
}

// flowOf makes a flow of the transport's known outside; nil for none.
func (s *Stack) flowOf(f *transport.Flow) *Flow {
	if f == nil || s == nil {
		return nil
	}
	return &Flow{stack: s, flow: f}
}

func (f *Flow) isNone() bool { return f == nil || f.flow == nil }

// Transport returns UDP, TCP, TLS, WS or WSS.
func (f *Flow) Transport() string {
	if f.isNone() {
		return ""
	}
	return f.flow.Transport()
}

// Local returns our address, that of UDP as it was bound.
func (f *Flow) Local() netip.AddrPort {
	if f.isNone() {
		return netip.AddrPort{}
	}
	return f.flow.LocalAddr()
}

// Remote returns the peer's address: that of its router, where there is one.
func (f *Flow) Remote() netip.AddrPort {
	if f.isNone() {
		return netip.AddrPort{}
	}
	return f.flow.RemoteAddr()
}

// String is for logs, such as "TLS 198.51.100.1:5061-203.0.113.1:40001".
func (f *Flow) String() string {
	if f.isNone() {
		return "no flow"
	}
	return f.Transport() + " " + f.Local().String() + "-" + f.Remote().String()
}

// Equal reports whether both are one connection, or one socket and peer.
func (f *Flow) Equal(o *Flow) bool {
	if f.isNone() || o.isNone() {
		return f.isNone() && o.isNone()
	}
	return f.flow.Same(o.flow)
}

// Err returns nil while the flow can be used, else ErrFlowLost with the reason. Nobody
// can tell that a peer is gone without a word until something is sent: a flow of UDP is
// good for as long as the stack is.
func (f *Flow) Err() error {
	if f.isNone() {
		return ErrFlowLost
	}
	return lostBy(f.flow.Err())
}

// lostBy is ErrFlowLost with its reason; nil without one.
func lostBy(reason error) error {
	if reason == nil {
		return nil
	}
	return explained(ErrFlowLost, reason)
}

// Done returns what is closed once the flow's connection is lost, Err says why: for a
// telephone that waits for the loss of one. For many OnLost needs no goroutines.
func (f *Flow) Done() <-chan struct{} {
	if f.isNone() {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return f.flow.Done()
}

// OnLost has a function called, once, when the flow's connection is lost, with what Err
// returns from then on; at once if it is lost already. It is called on a goroutine of its
// own, with no lock held, and may do what it likes; not by Shutdown, and never for UDP.
// stop, idempotent, takes the function back: a registrar that has one for each binding
// calls it when the binding is renewed by the same flow, or goes to another.
func (f *Flow) OnLost(lost func(error)) (stop func()) {
	if f.isNone() || lost == nil {
		return func() {}
	}
	s := f.stack
	return f.flow.Watch(func(err error) {
		s.calls.Go(func() {
			defer func() {
				if value := recover(); value != nil {
					s.logPanic(s.log, "OnLost", value, debug.Stack())
				}
			}()
			lost(lostBy(err))
		})
	})
}

// Hold keeps the flow open until release, which is idempotent, is called: for as long as
// there is a registration by it. Its connection is not closed as idle
// (Limits.IdleTimeout), and keep-alives are sent where calls would have them. Calls hold
// their flows themselves.
func (f *Flow) Hold() (release func()) {
	if f.isNone() {
		return func() {}
	}
	f.flow.Hold()
	return sync.OnceFunc(f.flow.Release)
}

// usableFlow returns the flow below, for a request that goes to hop by it; nil for nil.
func (s *Stack) usableFlow(f *Flow, hop sip.Uri) (*transport.Flow, error) {
	switch {
	case f == nil:
		return nil, nil
	case f.isNone():
		return nil, invalid("a Flow that nothing has come by")
	case f.stack != s:
		return nil, invalid("a Flow of another stack")
	case sipuri.IsSIPS(hop) && !isSecure(f.flow): // RFC 3261 26.2.2
		return nil, invalid("%s by %s", hop.String(), f.Transport())
	}
	return f.flow, f.Err()
}

func isSecure(f *transport.Flow) bool {
	_, secure := f.TLS()
	return secure
}

// onlyBy has a request go by a flow, unless that is nil, and nowhere else.
func onlyBy(f *transport.Flow, opt txn.RequestOptions) txn.RequestOptions {
	if f != nil {
		opt.Flow, opt.FlowOnly, opt.NoStream, opt.Reopen = f, true, true, false
	}
	return opt
}

// lostFlow names the loss of the flow that the application has named.
func lostFlow(opt txn.RequestOptions, err error) error {
	if err == nil || !opt.FlowOnly || opt.Reopen || errors.Is(err, ErrFlowLost) {
		return err
	}
	if err = callError(err); errors.Is(err, ErrTransport) && opt.Flow.Err() != nil {
		return lostBy(opt.Flow.Err())
	}
	return err
}

// takeFlowLocked has the call go by a flow that the application has named, and nowhere
// else; nil changes nothing.
func (d *Dialog) takeFlowLocked(f *transport.Flow) {
	if f != nil {
		s := d.currentLocked()
		s.flow, s.flowNamed = f, true
		d.keepLocked()
	}
}

// keepRegistered keeps the flow open by which a REGISTER of ours was answered, for as
// long as the registration lasts: calls come by it. That is a connection, and over UDP a
// flow through a NAT of ours.
func keepRegistered(req *sip.Request, res *sip.Response, flow *transport.Flow) {
	if req.Method != sip.REGISTER || !res.IsSuccess() || flow == nil || !flow.Reliable() && !flow.Translated() {
		return
	}
	if asked, known := bindingTime(req); known && asked == 0 {
		return // it takes the registration back
	}
	if granted, known := bindingTime(res); known {
		flow.HoldFor(granted)
	}
}

// bindingTime is how long the bindings in a REGISTER or its answer last, the longest of
// them: their expires parameters, else the Expires header (RFC 3261 10.2.1.1).
func bindingTime(msg sip.Message) (longest time.Duration, known bool) {
	values := []string{headerValue(msg, "Expires")}
	for h := range named(msg, "Contact") {
		if contact, ok := h.(*sip.ContactHeader); ok {
			if expires, found := sipuri.Param(contact.Params, "expires"); found {
				values = append(values, expires)
			}
		}
	}
	if len(values) > 1 {
		values = values[1:]
	}
	for _, value := range values {
		if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
			longest, known = max(longest, time.Duration(seconds)*time.Second), true
		}
	}
	return longest, known
}
