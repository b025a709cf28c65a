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

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Flow is a path to one peer (RFC 5626 2): a connection, or over UDP a socket of ours and
// the peer's address. A telephone behind a NAT can be reached only by a flow: a registrar
// keeps the flow of its REGISTER ([FlowFrom]), and places calls on it ([InviteOpts],
// [DoOpts], [ReferOpts]). A request on a flow uses no other path, and fails at once with
// ErrFlowLost if the flow is lost.
//
// A Flow that is kept needs only the memory of its connection. Its methods never block,
// and may be called from any goroutine and callback. The zero Flow has no peer; its
// methods may be called too.
type Flow struct {
	stack *Stack
	flow  *transport.Flow
}

// flowKey is the key of a context's Flow.
type flowKey struct{}

// FlowFrom returns the flow of a request from the context of its [RequestHandler]; nil
// for any other context.
func FlowFrom(ctx context.Context) *Flow {
	f, _ := ctx.Value(flowKey{}).(*Flow)
	return f
}

// Flow returns the present flow of the call: that of the peer's INVITE, or of its
// responses to ours, or the one that the call has moved to since (StackConfig.MoveFlow).
// It is nil before the first message of the peer.
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

// Local returns our address; over UDP the address that the socket is bound to.
func (f *Flow) Local() netip.AddrPort {
	if f.isNone() {
		return netip.AddrPort{}
	}
	return f.flow.LocalAddr()
}

// Remote returns the peer's address, or that of its NAT.
func (f *Flow) Remote() netip.AddrPort {
	if f.isNone() {
		return netip.AddrPort{}
	}
	return f.flow.RemoteAddr()
}

// String returns a text for logs, such as "TLS 198.51.100.1:5061-203.0.113.1:40001".
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

// Err returns nil while the flow can be used, else ErrFlowLost with the reason. A peer
// that disappears silently is detected only when data is sent. A flow over UDP can be
// used as long as the stack runs.
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
	return errtext.Explained(ErrFlowLost, reason)
}

// Done returns a channel that is closed when the flow's connection is lost; Err then
// returns the reason. It suits a telephone that waits for the loss of one flow. For many
// flows OnLost needs no goroutines.
func (f *Flow) Done() <-chan struct{} {
	if f.isNone() {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return f.flow.Done()
}

// OnLost registers a function that is called once when the flow's connection is lost,
// with the error of Err, or at once if the connection is lost already. It runs on its own
// goroutine, with no lock held, and may block. It is not called for Shutdown, and never
// for UDP. stop removes the function, and may be called several times: a registrar with a
// function for each binding calls it when the binding is renewed on the same flow, or
// moves to another.
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

// OnFlowLost sets the function that is called for each connection that is lost while
// something depends on it: a call, a registration (a REGISTER that [Stack.Do] has sent,
// until it expires), or a [Flow.Hold]. Nil sets none. The peer or the network may have
// closed the connection, or no answer has come to a keep-alive (RFC 5626 4.4.1); the error
// is that of [Flow.Err]. The function gets one flow after the other, in the order in which
// they were lost, with no lock held; it may block, and then the others wait. It is not
// called for Shutdown, and never for UDP, where no keep-alive is answered: there only a
// request shows that a peer is gone. A single flow is watched by [Flow.OnLost].
func (s *Stack) OnFlowLost(callback func(flow *Flow, reason error)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.callbacks.OnFlowLost = callback
}

// flowLost tells the application of a connection that is lost.
func (s *Stack) flowLost(f *transport.Flow, reason error) {
	if callback := s.callbacksNow().OnFlowLost; callback != nil {
		s.lostFlows.Push(func() { callback(s.flowOf(f), lostBy(reason)) })
	}
}

// Hold keeps the flow open until release is called, for example as long as a registration
// uses it. Its connection is not closed as idle (Limits.IdleTimeout), and keep-alives are
// sent as for calls. release may be called several times. Calls hold their flows
// themselves.
func (f *Flow) Hold() (release func()) {
	if f.isNone() {
		return func() {}
	}
	f.flow.Hold()
	return sync.OnceFunc(f.flow.Release)
}

// HoldAnswered is Hold for a peer that has promised to answer keep-alives, as a registrar
// with outbound in the Require of its response (RFC 5626 4.2.1), and that wants them after
// so long a silence at the latest (Flow-Timer, RFC 5626 4.4); zero: when the stack sends
// them anyway. A connection is lost if an answer does not come in ten seconds (RFC 5626
// 4.4.1). StackConfig.KeepAlive takes precedence, and a negative FlowKeepAlive sends none.
func (f *Flow) HoldAnswered(longest time.Duration) (release func()) {
	if f.isNone() {
		return func() {}
	}
	f.flow.HoldAnswered(longest)
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
func keepRegistered(req *sip.Request, res *sipmsg.Message, flow *transport.Flow) {
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
func bindingTime(msg sipheader.Message) (longest time.Duration, known bool) {
	values := []string{sipheader.Value(msg, "Expires")}
	for _, contact := range sipheader.AddressesOf(msg, "Contact") {
		if expires, found := sipuri.Param(contact.Params, "expires"); found {
			values = append(values, expires)
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
