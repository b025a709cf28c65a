package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"
)

// Body is the body of a SIP message: what OnBody hands out and InviteOpts takes.
type Body interface {
	// ContentType is the value of the Content-Type header, such as
	// "application/sdp".
	ContentType() string
	// Data is the content. Callers must not change it.
	Data() []byte
}

// DialogKey identifies a dialog (RFC 3261 12). It is comparable.
type DialogKey struct {
	CallID    string
	LocalTag  string
	RemoteTag string
}

// ResponseOpt changes a response before it is sent: it adds headers or a body.
// It runs on the caller's goroutine with no lock held.
type ResponseOpt func(resp *sip.Response)

// InviteOpts are the options of NewInvite and ReInvite; the latter heeds Body,
// Headers, Contact, MaxForwards and PrackOffer.
type InviteOpts struct {
	// Body is the offer, or has it as one of several parts; nil sends an INVITE
	// without one (RFC 3261 13.2.1). The version in its o= line is raised where it
	// would go back inside the call (RFC 3264 8).
	Body Body

	// Headers are added to the INVITE: P-Asserted-Identity, Diversion, … See Header
	// for those that cannot be.
	Headers []Header
	// MaxForwards is how many hops the INVITE may make, at most 255 (RFC 3261
	// 20.22); zero is 70. A back-to-back user agent passes on one less than it got
	// (RFC 7332 4).
	MaxForwards int
	// From is who calls; nil is StackConfig.From. An empty host becomes the
	// address by which the peer reaches us.
	From *Address
	// Anonymous hides who calls: From is anonymous@anonymous.invalid, and
	// Privacy: id asks the network to keep what else it knows (RFC 3323 4.1,
	// RFC 3325 7).
	Anonymous bool
	// Contact is our Contact in this call, in every message from here on; nil is
	// what it was, at first the address by which the peer reaches us: a SIPS URI
	// where RFC 3261 8.1.1.8 or 12.1.1 ask for it, else a SIP URI.
	Contact *sip.Uri
	// Route is the route the INVITE takes (RFC 3261 8.1.2); nil is
	// StackConfig.OutboundProxy.
	Route []sip.Uri
	// FollowRedirects is how many targets of 3xx answers are tried at most,
	// one after the other, the Contact of the highest q first (RFC 3261
	// 8.1.3.4); none is tried twice. Zero tries none: a *ResponseError brings
	// them. A 300, 301 or 302 is followed, to sips alone from sips; headers in a
	// Contact are not heeded. A target that answers 400 to 599, or not at all,
	// makes way for the next one; the last one's answer is the call's.
	FollowRedirects int
	// Replaces names the call that the INVITE is to take the place of at the
	// peer (RFC 3891 4), Join the one it is to be joined to (RFC 3911 5): see
	// ReplacesOf. At most one of them may be set, and it must name a Call-ID and
	// both tags. A peer that does not know the header ignores it, unless Require
	// asks it to refuse the call with 420.
	Replaces, Join *ReplacesInfo
	// Require lists the options that the peer must know (RFC 3261 20.32):
	// "replaces", "join".
	Require []string
	// Choose, unless nil, says of each 2xx to the INVITE, one at a time in the
	// order of arrival, whether it makes the call; nil takes the first. False, a
	// panic, and no decision for three quarters of 64*T1 release that fork by ACK
	// and BYE, and the next is awaited; the call ends when none comes. It is
	// called on a goroutine of its own.
	Choose func(ForkInfo) bool
	// PrackOffer, unless nil, is asked for a further offer to go with the PRACK to
	// the provisional response that has answered the INVITE's (RFC 3262 5, RFC 6337
	// 3.2), unless another one is open; nil makes none. It is called on a goroutine
	// of its own; an offer that takes it more than two seconds is not sent, and ctx
	// ends. The answer, in the 2xx to the PRACK, goes to OnBody.
	PrackOffer func(ctx context.Context, response ForkInfo) (offer Body)
	// Setup, unless nil, is called with the dialog before the INVITE leaves,
	// on the caller's goroutine: callbacks registered in it miss nothing. A
	// panic in it is NewInvite's error.
	Setup func(*Dialog)

	// token is the Referred-By token that goes with the body (RFC 3892), referral
	// true when a REFER is followed.
	token    []byte
	referral bool
}

// ReferOpts are the options of the calls that send a REFER.
type ReferOpts struct {
	// ReferSub, when not nil, is sent as the value of Refer-Sub (RFC 4488).
	ReferSub *string
	// NoReferSub asks for no subscription: Refer-Sub: false (RFC 4488 4).
	NoReferSub bool
	// RequireNoSub requires that there is none: Require: nosub (RFC 7614 5.1),
	// which a peer that does not know it refuses with 420.
	RequireNoSub bool
	// ReferredBy is who refers (RFC 3892); nil is our side of the call.
	ReferredBy *Address
	// TargetDialog, unless nil, is the Key of a call of ours with the same peer,
	// which the REFER is about: Target-Dialog, and Require: tdialog (RFC 4538 3).
	// A peer that does not know it refuses with 420.
	TargetDialog *DialogKey
	// Headers are added to the REFER. They cannot be those that make the request what
	// it is: what Header refuses, Refer-To, and Refer-Sub. Referred-By goes before
	// ReferredBy.
	Headers map[string]string
}

// IDialog is a call as an application sees it. The dynamic type behind every
// IDialog this package hands out is *Dialog, which can do more.
//
// Every method may be called from any goroutine and from inside any callback.
type IDialog interface {
	// Key returns the dialog's identifier. RemoteTag is empty until the peer
	// has told its tag.
	Key() DialogKey
	// State returns the state now.
	State() DialogState
	// Accept answers an incoming call with 200; see [Dialog.Accept].
	Accept(ctx context.Context, opts ...ResponseOpt) error
	// Reject refuses an incoming call; see [Dialog.Reject].
	Reject(ctx context.Context, code int, reason string) error
	// Refer asks the peer to call target; see [Dialog.Refer].
	Refer(ctx context.Context, target sip.Uri, opts ReferOpts) error
	// ReferReplace asks the peer to take over another call of ours; see
	// [Dialog.ReferReplace].
	ReferReplace(ctx context.Context, replaceDialog IDialog, opts ReferOpts) error
	// WaitRefer waits for the answer to a REFER; see [Dialog.WaitRefer].
	WaitRefer(ctx context.Context) (*ReferSubscription, error)
	// Bye ends the call; see [Dialog.Bye].
	Bye(ctx context.Context, reason string) error
	// OnStateChange registers a callback; see [Dialog.OnStateChange].
	OnStateChange(func(DialogState))
	// OnBody registers a callback; see [Dialog.OnBody].
	OnBody(func(Body))
	// Close ends the call at once; see [Dialog.Close].
	Close() error
}

// IStack is what an application needs of a [Stack].
type IStack interface {
	// Start binds and serves; see [Stack.Start].
	Start(ctx context.Context) error
	// Shutdown ends everything; see [Stack.Shutdown].
	Shutdown(ctx context.Context) error
	// NewInvite places a call; see [Stack.NewInvite].
	NewInvite(ctx context.Context, target sip.Uri, opts InviteOpts) (IDialog, error)
	// DialogByKey finds a call; see [Stack.DialogByKey].
	DialogByKey(key DialogKey) (*Dialog, bool)
	// OnIncomingDialog registers the callback for calls that arrive; see
	// [Stack.OnIncomingDialog].
	OnIncomingDialog(func(IDialog))
}

var (
	_ IDialog = (*Dialog)(nil)
	_ IStack  = (*Stack)(nil)
	_ Body    = (*BodyImpl)(nil)
	_ Body    = (*SimpleBody)(nil)
)
