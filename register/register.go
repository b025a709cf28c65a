// Package register keeps registrations alive (RFC 3261 10, RFC 5626): a telephone at its
// PBX, a gateway at its trunk.
//
//	r, err := register.Start(stack, register.Options{
//		Record:  dialog.Address{URI: sip.Uri{Scheme: "sip", User: "alice", Host: "pbx.example"}},
//		OnState: func(s register.Status) { log.Println(s) },
//	})
//	…
//	call, err := stack.Call(ctx, target, r.InviteOpts(dialog.InviteOpts{Body: offer}))
//	…
//	err = r.Close(ctx)
//
// A registration is refreshed before it expires, asks for longer when it must (423), is
// made again when its connection is lost or the network changes, and tries again after a
// failure, more and more seldom. It uses the sockets and the credentials of its stack, and
// ends with it. While nothing happens it has no goroutine, and one timer.
package register

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/extension"
)

// ErrNotBound reports a registrar that accepts a REGISTER and does not list our Contact, or
// grants it less than five seconds, which no refresh can keep alive.
var ErrNotBound = errors.New("register: Contact not bound by the registrar")

// ErrStillBound reports a registrar that accepts the end of a registration, and still lists
// our Contact.
var ErrStillBound = errors.New("register: Contact still bound at the registrar")

// Options describe a registration. Only Record is required.
type Options struct {
	// Record is the address of record: the To and From of the REGISTER.
	Record dialog.Address
	// Registrar is the Request-URI, without a user (RFC 3261 10.2). The zero value is the
	// domain of Record.
	Registrar sip.Uri
	// Contacts are the targets of calls to Record. Nil means this stack, at the address
	// at which the registrar reaches it, with the user of Record.
	Contacts []Contact
	// Expires is the requested duration of the registration; the registrar decides. Zero
	// is one hour.
	Expires time.Duration
	// Proxies are outbound proxies: the registration is made through each of them, so that
	// calls still come when one is lost (RFC 5626 4.2.1, which wants two to four). Nil
	// means one registration, through StackConfig.OutboundProxy if there is one.
	Proxies []sip.Uri
	// Instance is the URN of this device, such as "urn:uuid:f81d4fae-…": the same after
	// each start (RFC 5626 4.1). It makes the registration one of RFC 5626: calls come by
	// the connection of the REGISTER. Several Proxies need it. Empty means none.
	Instance string
	// Headers are added to each REGISTER.
	Headers []dialog.Header
	// Redirects is how many targets of 300, 301 and 302 responses are tried for one
	// registration. Zero is five, negative none.
	Redirects int
	// RetryBase and RetryMax bound the time before another try: 50 to 100 % of
	// RetryBase*2^n after the nth failure in a row, three times that while another of the
	// Proxies has the registration, and at most RetryMax (RFC 5626 4.5). A longer
	// Retry-After of the registrar counts. Zero is 30 s, and 30 minutes.
	RetryBase, RetryMax time.Duration
	// OnState, unless nil, is called with each new state, in order, one at a time, with no
	// lock held; it may block, and may call Close.
	OnState func(Status)
}

// Contact is one binding of a registration.
type Contact struct {
	// URI is where calls go. An empty host means the address at which the registrar
	// reaches this stack.
	URI sip.Uri
	// Params are those of the header: q, or features (RFC 3840). expires, reg-id and
	// +sip.instance are set by this package.
	Params sip.HeaderParams
}

// Registration is a registration that is kept alive. Its methods may be called from any
// goroutine, and from inside OnState.
type Registration struct {
	// Set at construction.

	stack *dialog.Stack
	host  extension.Host
	opts  Options
	// ctx ends what is under way.
	ctx    context.Context
	cancel context.CancelFunc
	// done is closed when the registration is over.
	done chan struct{}

	mu sync.Mutex // guards the fields below, and those of each flow
	// flows are one for each of the Proxies, or the only one.
	flows []*flow
	// settled is closed when one is registered, or all have failed once.
	settled chan struct{}
	// closing is true once no REGISTER may begin but the last; over once all is done.
	closing, over bool
	closeErr      error
}

// Start begins a registration, and returns before the response of the registrar: Wait waits for
// that, and OnState is called then. The stack must have been started.
//
// Errors: dialog.ErrInvalidArgument, dialog.ErrNotStarted, dialog.ErrShutdown.
func Start(stack *dialog.Stack, opts Options) (*Registration, error) {
	if stack == nil {
		return nil, fmt.Errorf("%w: no stack", dialog.ErrInvalidArgument)
	}
	opts = opts.own()
	if err := opts.check(); err != nil {
		return nil, err
	}
	r := &Registration{stack: stack, opts: opts, done: make(chan struct{}), settled: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.Lock() // the stack may end at once
	defer r.mu.Unlock()
	if err := r.beginLocked(); err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

// beginLocked joins the stack, and has all flows register.
func (r *Registration) beginLocked() (err error) {
	if r.host, err = r.stack.Extend(extension.Key{}, r); err != nil {
		return err
	}
	r.flows = r.newFlows()
	if err := r.host.Check(r.flows[0].request(r.opts.Registrar, r.opts.Expires, r.flows[0].contacts())); err != nil {
		r.host.Leave()
		return err
	}
	for _, f := range r.flows {
		f.wakeLocked(0)
	}
	return nil
}

// newFlows are one for each proxy, or the only one.
func (r *Registration) newFlows() (flows []*flow) {
	for i, proxy := range r.opts.Proxies {
		flows = append(flows, newFlow(r, i, []sip.Uri{loose(proxy)}))
	}
	if flows == nil {
		flows = append(flows, newFlow(r, 0, r.host.Route))
	}
	return flows
}

// Wait waits until the registrar has bound our Contacts, or the first try has failed; the
// registration keeps trying then. Later Wait reports the present state at once. The error is
// that of the state: nil if it is Registered, and during another try that of the failure
// before.
//
// Errors: *dialog.ResponseError, ErrNotBound, dialog.ErrTimeout, dialog.ErrTransport,
// dialog.ErrShutdown, that of ctx.
func (r *Registration) Wait(ctx context.Context) (Status, error) {
	select {
	case <-r.settled:
	case <-r.done:
	case <-ctx.Done():
		return r.Status(), ctx.Err()
	}
	s := r.Status()
	return s, s.Err
}

// Status returns the present state: with several Proxies that of one by which calls come,
// if there is any. It does not block.
func (r *Registration) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bestLocked().status
}

// Statuses returns the present state by each of the Proxies. It does not block.
func (r *Registration) Statuses() (list []Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		list = append(list, f.status)
	}
	return list
}

func (r *Registration) bestLocked() *flow {
	for _, f := range r.flows {
		if f.status.State == Registered {
			return f
		}
	}
	return r.flows[0]
}

// Refresh registers again, without waiting for the time of the refresh or of the next try after
// a failure, but not before five seconds after the latest REGISTER. It does not block.
// Stack.NetworkChanged does the same.
func (r *Registration) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		f.wakeLocked(0)
	}
}

// NetworkChanged is called by the stack.
func (r *Registration) NetworkChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		f.pinned = nil
		f.wakeLocked(0)
	}
}

// Done returns a channel that is closed when the registration is over: after Close, or
// with its stack.
func (r *Registration) Done() <-chan struct{} { return r.done }

// Close takes the registration back (RFC 3261 10.2.2) and ends it, whatever the outcome:
// no REGISTER follows. It first waits for the response to one that is under way (RFC 3261
// 10.2). If ctx ends first, the binding may stay until it expires. A second call waits for
// the first, and returns the same.
//
// Errors: *dialog.ResponseError, ErrStillBound, dialog.ErrTimeout, dialog.ErrTransport,
// dialog.ErrShutdown (the stack has ended before), that of ctx.
func (r *Registration) Close(ctx context.Context) error {
	if !r.beginClose() {
		select {
		case <-r.done:
			return r.result()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	results := make(chan error, len(r.flows))
	for _, f := range r.flows {
		if !r.host.Go(func() { results <- f.takeBack(ctx) }) {
			results <- dialog.ErrShutdown
		}
	}
	var errs []error
	for range r.flows {
		errs = append(errs, <-results)
	}
	r.end(errors.Join(errs...))
	return r.result()
}

// beginClose lets no further REGISTER begin, and reports whether the caller is the first.
func (r *Registration) beginClose() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return false
	}
	r.closing = true
	for _, f := range r.flows {
		f.timer.Stop()
	}
	return true
}

func (r *Registration) result() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closeErr
}

// Shutdown is called by the stack.
func (r *Registration) Shutdown() { r.end(dialog.ErrShutdown) }

// end ends the registration, once.
func (r *Registration) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	r.closing, r.over, r.closeErr = true, true, err
	for _, f := range r.flows {
		f.timer.Stop()
		f.dropLocked()
		f.changeLocked(Status{State: Unregistered, Err: err})
	}
	r.host.Callbacks.Seal()
	r.cancel()
	close(r.done)
	r.host.Leave()
}
