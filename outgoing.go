package dialog

import (
	"context"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/outgoing"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/transport"
)

// NewInvite places a call to target (RFC 3261 13.2.1): it sends an INVITE with opts.Body
// as the offer, and returns when the INVITE has been written; the state is then Trying.
// ctx bounds only the look-up, the connection and the write. [Dialog.WaitAnswer] waits
// for the outcome. An unanswered call is cancelled at the ringing limit.
//
// Errors: ErrNotStarted, ErrShutdown, ErrMaxDialogs, ErrInvalidArgument, ErrTransport,
// that of ctx.
func (s *Stack) NewInvite(ctx context.Context, target sip.Uri, opts InviteOpts) (result IDialog, err error) {
	defer naming("NewInvite", &err)
	if ctx == nil {
		return nil, errNilContext("NewInvite")
	}
	opts.Body = ownBody(opts.Body)
	if err := firstError(checkTarget("target", target), opts.check()); err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	flow, err := s.usableFlow(opts.Flow, target)
	if err != nil {
		return nil, err
	}
	d := s.newCaller(target, opts, flow)
	if err := s.register(d); err != nil {
		return nil, err
	}
	d.endsWith(opts.Context)
	if err := d.setup(opts.Setup); err != nil {
		return nil, err
	}
	if err := d.sendInvite(ctx, opts); err != nil {
		return nil, err
	}
	s.counters.placed.Add(1)
	d.logPlaced()
	return d, nil
}

// Call is NewInvite and [Dialog.WaitAnswer]: it places a call and waits for the outcome.
// If ctx ends before, the call is cancelled. The result is nil unless the call is
// established. For what comes before the answer, register callbacks in opts.Setup.
//
// Errors: those of NewInvite, and of WaitAnswer.
func (s *Stack) Call(ctx context.Context, target sip.Uri, opts InviteOpts) (result *Dialog, err error) {
	defer naming("Call", &err)
	placed, err := s.NewInvite(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	call := placed.(*Dialog)
	if err := call.WaitAnswer(ctx); err != nil {
		return nil, err
	}
	return call, nil
}

// nameCalls adds Require, Replaces and Join to an INVITE.
func (o InviteOpts) nameCalls(invite *draft.Request) {
	if len(o.Require) > 0 {
		invite.Add("Require", strings.Join(o.Require, ", "))
	}
	if o.Replaces != nil {
		invite.Add("Replaces", o.Replaces.BuildReplacesHeader())
	}
	if o.Join != nil {
		join := *o.Join
		join.EarlyOnly = false // RFC 3911 7.1 has no such parameter
		invite.Add("Join", join.BuildReplacesHeader())
	}
}

func (s *Stack) newCaller(target sip.Uri, opts InviteOpts, flow *transport.Flow) *Dialog {
	d := &Dialog{
		stack: s, isUAC: true, callID: newCallID(), localTag: TagGen(),
		local:        s.caller(opts, target.Scheme).Party(),
		remoteTarget: *target.Clone(),
		routeSet:     outgoing.Route(opts.Route, s.firstHop(flow)),
		referral:     opts.referral,
	}
	d.choseContactLocked(opts.Contact)
	state := d.currentLocked()
	state.peerIdentity = peerIdentity{remote: opts.callee(target).Party()}
	if opts.Context != nil {
		d.values.Inherit(opts.Context)
	}
	state.flow, state.flowNamed = flow, flow != nil // is kept once the peer has answered
	return s.adopt(d)
}

// callee is the To of the INVITE: the option, else the target.
func (o InviteOpts) callee(target sip.Uri) sipheader.NameAddr {
	if o.To == nil {
		return sipheader.NameAddr{URI: outgoing.To(target)}
	}
	return outgoing.Caller(o.To.DisplayName, outgoing.To(o.To.URI), target.Scheme)
}

// caller is the From of a request: that of the call, else of the configuration, else a
// user of the UserAgent's name.
func (s *Stack) caller(opts InviteOpts, scheme string) sipheader.NameAddr {
	from := opts.From
	if from == nil {
		from = s.config.From
	}
	switch {
	case opts.Anonymous:
		return outgoing.Anonymous()
	case from != nil:
		return outgoing.Caller(from.DisplayName, from.URI, scheme)
	}
	return outgoing.Named(s.config.userAgent(), scheme)
}

// firstHop is the outbound proxy; nil without one, and for a flow, which leads past it.
func (s *Stack) firstHop(flow *transport.Flow) *sip.Uri {
	if flow != nil {
		return nil
	}
	proxy, _ := s.config.outboundProxy()
	return proxy
}

// setup runs InviteOpts.Setup.
func (d *Dialog) setup(f func(*Dialog)) (err error) {
	if f == nil {
		return nil
	}
	returned := false
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("%w: %v", ErrPanic, value)
		}
		if !returned { // nor is it if f ended its goroutine: nobody is left to place the call
			d.clear(Cause{By: PartyLocal, Err: ErrPanic})
		}
	}()
	f(d)
	returned = true
	return nil
}
