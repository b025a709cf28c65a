// Package bridge joins two calls into one: a back-to-back user agent (RFC 7092) that
// relays messages between the two sides and handles no media.
//
//	b := bridge.New(stack, bridge.Options{})
//	stack.OnCall(func(call *dialog.Dialog) {
//		_, err := b.Join(ctx, call, target, dialog.InviteOpts{})
//	})
//
// Session descriptions pass in both directions, untouched, in whichever messages carry
// them: INVITE, provisional responses (reliable ones too), PRACK, 2xx, ACK, re-INVITE and
// UPDATE, with the offer first or last. So do INFO (and keys in it), MESSAGE, OPTIONS,
// refusals, CANCEL, the reason of the end, and REFER as [Options] says. The two calls share
// nothing else: each has its own Call-ID, tags, Via, Contact, CSeq numbers, session timer and
// credentials.
//
// A bridged call ends on both sides or on none. While nothing happens in it, it has no
// goroutine. Set StackConfig.NoAutoRinging, so that the caller gets a 180 only when the
// callee rings.
package bridge

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/extension"
)

// Options are the options of a Bridge. The zero value is useful.
type Options struct {
	// Pass returns the headers of a received message that pass to the other call, with
	// the INVITE, its responses, INFO, MESSAGE and OPTIONS. Nil means [Only] of
	// [DefaultHeaders]. Those that describe a body pass with it in any case. A header that
	// dialog.Header refuses makes the message fail. Pass must not block.
	Pass func(msg sip.Message) []dialog.Header
	// Refer says what becomes of a REFER in one of the calls. Nil leaves that to the
	// functions of the stack, which has none by default: then it is declined. Refer must not
	// block.
	Refer func(refer *dialog.ReferRequest) ReferPolicy
	// Followed, unless nil, is called when a REFER was followed: now replaces was. One call
	// of was continues in now, the other ends. It may block.
	Followed func(was, now *Call)
}

// Bridge joins calls of one stack. Its methods may be called from any goroutine and
// callback.
//
// A refusal of the callee passes to the caller with its status, except where that is about
// what we have sent: a challenge that we cannot answer becomes 403; 503, and refusals of our
// extensions (420, 421) or session timer (422), become 500. A callee that does not answer at
// all becomes 408, after dialog.StackConfig.TxTimeout.
type Bridge struct {
	stack *dialog.Stack
	opts  Options
	pass  func(sip.Message) []dialog.Header
	// host counts the bridge's goroutines; see background.
	host func() extension.Host

	mu sync.Mutex // guards the fields below
	// legs are the calls that are joined, and have not ended.
	legs map[*dialog.Dialog]*leg
	// routes are the INVITEs of ours that have no final response, by Call-ID and our tag.
	routes map[dialog.DialogKey]*route
}

// New returns a bridge that places its calls by a stack. It registers nothing there.
func New(stack *dialog.Stack, opts Options) *Bridge {
	b := &Bridge{stack: stack, opts: opts, pass: opts.Pass, routes: make(map[dialog.DialogKey]*route), legs: make(map[*dialog.Dialog]*leg)}
	if b.pass == nil {
		b.pass = Only(DefaultHeaders()...)
	}
	b.host = sync.OnceValue(b.extend)
	return b
}

// Join calls target for an unanswered incoming call, and joins the two: the caller gets the
// responses of the callee. It waits until the call is established, or has
// ended on both sides. If ctx ends first, both calls end: the callee gets CANCEL, the
// caller 480. Once Join has returned, ctx has no effect.
//
// opts are those of the second INVITE. Of these, Join itself sets the Body, MaxForwards,
// which is one less than the caller's (RFC 7332 4), Unreliable, if the caller does not support
// reliable responses, and From, unless opts has one: the caller's. Headers are added to the
// relayed ones.
//
// If the INVITE is forked, the caller gets an early dialog for each fork, with a To tag of its
// own (RFC 3261 12.1.1), and the fork that sends a 2xx becomes the call. Offers in UPDATE and
// PRACK pass between the two early dialogs that belong together, and so does the caller's BYE
// in one of them (RFC 3261 15).
//
// A Max-Breadth of the caller passes on: the bridge itself never forks (RFC 5393 5.4.3). An
// application that calls others as well shares it out: a Max-Breadth in Headers counts.
//
// The functions of both calls for offers, and for requests of INFO, MESSAGE and OPTIONS,
// are the bridge's from now on; the application may replace them for requests once Join
// has returned.
//
// Errors: *dialog.ResponseError (the callee refused; the caller got what [Bridge] says),
// ErrLoop and ErrHops (the caller got 482 or 483), and those of dialog.Stack.NewInvite,
// Dialog.WaitAnswer and Dialog.Accept.
func (b *Bridge) Join(ctx context.Context, in *dialog.Dialog, target sip.Uri, opts dialog.InviteOpts) (*Call, error) {
	invite := in.Request()
	if invite == nil {
		return nil, &dialog.StateError{Op: "Join", State: in.State(), Need: "an incoming call"}
	}
	at, hops, err := b.admit(invite, target)
	if err != nil {
		return nil, errors.Join(err, reject(ctx, in, err))
	}
	c := b.newCall(in)
	c.delayed, c.reliable = sessionOf(invite) == nil, takesReliable(invite)
	c.listen(&c.a)
	in.OnFork(c.callerLeft)
	defer b.forget(at)
	err = c.place(ctx, target, b.inviteOpts(opts, invite, in, hops), func(d *dialog.Dialog) {
		b.remember(at, d)
	})
	if err == nil {
		err = c.answered(ctx)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Link joins two established calls: from now on offers, requests and the end of either
// pass to the other. It sends nothing: the application has connected their media before,
// as in RFC 3725. If one of the calls has ended, the other ends. Each side keeps the
// o= line that it knows (RFC 3264 8).
func (b *Bridge) Link(x, y *dialog.Dialog) *Call {
	c := b.newCall(x)
	c.attach(y)
	c.a.keepOrigin()
	c.b.keepOrigin()
	c.listen(&c.a)
	c.listen(&c.b)
	return c
}

// inviteOpts completes the options of the second INVITE.
func (b *Bridge) inviteOpts(opts dialog.InviteOpts, invite *sip.Request, in *dialog.Dialog, hops int) dialog.InviteOpts {
	opts.Body, opts.MaxForwards, opts.LastHop = bodyOf(invite), hops, hops == 0
	opts.Unreliable = opts.Unreliable || !takesReliable(invite)
	opts.Headers = append(b.passed(invite), opts.Headers...)
	opts.Headers = append(opts.Headers, breadth(invite, opts.Headers)...)
	if opts.From == nil && !opts.Anonymous {
		from := in.Info().Remote
		opts.From = &from
	}
	return opts
}

// Call is two calls that are joined.
type Call struct {
	bridge *Bridge
	a, b   leg
	// delayed is true if the INVITE of the first call has no offer, reliable if its caller
	// takes reliable provisional responses.
	delayed, reliable bool
	forks             forks

	// provisionals are those to the caller: none leaves behind the final response.
	provisionals gate
	// told is closed once the bridge's functions have seen all provisional responses of the
	// callee: they run in order, and the one for the final response has begun.
	told chan struct{}
	tell func()

	// connecting is true while a REFER is followed, until the two are joined; connected is
	// true once both have described their sessions. parted is true once one of the calls
	// is joined to another.
	connecting, connected, parted atomic.Bool

	// accepting is true once somebody accepts the first call, accepted is closed once that
	// has been done, or has failed with acceptErr.
	accepting atomic.Bool
	accepted  chan struct{}
	acceptErr error
}

func (b *Bridge) newCall(in *dialog.Dialog) *Call {
	told := make(chan struct{})
	c := &Call{bridge: b, told: told, tell: sync.OnceFunc(func() { close(told) }), accepted: make(chan struct{})}
	c.a, c.b = leg{call: c, other: &c.b, d: in}, leg{call: c, other: &c.a}
	return c
}

// In returns the first call: the incoming one of Join.
func (c *Call) In() *dialog.Dialog { return c.a.dialog() }

// Out returns the second call.
func (c *Call) Out() *dialog.Dialog { return c.b.dialog() }

// Hangup ends both calls, and waits as dialog.Dialog.ByeWith does. A call that continues in
// another Call, after a REFER, is not ended.
func (c *Call) Hangup(ctx context.Context, opts dialog.ByeOpts) error {
	var errs []error
	for _, l := range []*leg{&c.a, &c.b} {
		if !l.isInAnotherCall() {
			errs = append(errs, l.dialog().ByeWith(ctx, opts))
		}
	}
	return errors.Join(errs...)
}
