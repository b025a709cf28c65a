package dialog

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Body is the body of a SIP message. OnBody delivers it, and InviteOpts takes it.
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

// InviteOpts are the options of NewInvite and ReInvite. ReInvite uses only Body,
// Headers, Contact, Flow, MaxForwards, NoRetry and PrackOffer.
type InviteOpts struct {
	// Body is the offer, or contains it as one of several parts; nil sends an INVITE
	// without an offer (RFC 3261 13.2.1). The version in its o= line is raised if it
	// would otherwise decrease inside the call (RFC 3264 8).
	Body Body

	// Headers are added to the INVITE: P-Asserted-Identity, Diversion, … See Header
	// for the headers that are refused.
	Headers []Header
	// MaxForwards is the largest number of hops that the INVITE may make, at most 255
	// (RFC 3261 20.22). Zero is 70, unless LastHop is set: then no element may forward the
	// INVITE. A back-to-back user agent passes on one less than it received (RFC 7332 4).
	MaxForwards int
	LastHop     bool
	// From is the caller. Nil means StackConfig.From. An empty host becomes the address
	// at which the peer reaches us.
	From *Address
	// To is the To of the INVITE: whom the caller asks for. Nil means the target. Its URI
	// loses what a To must not have, such as a transport parameter (RFC 3261 19.1.1).
	To *Address
	// Anonymous hides the caller: From is anonymous@anonymous.invalid, and Privacy: id
	// asks the network to withhold the identity that it knows (RFC 3323 4.1, RFC 3325
	// 7).
	Anonymous bool
	// Contact is our Contact in every message of this call from now on. Nil does not
	// change it. The default is the address at which the peer reaches us: a SIPS URI
	// if RFC 3261 8.1.1.8 or 12.1.1 requires it, else a SIP URI.
	Contact *sip.Uri
	// Route is the route of the INVITE (RFC 3261 8.1.2). Nil means
	// StackConfig.OutboundProxy, or no route with a Flow.
	Route []sip.Uri
	// Flow carries the INVITE and every request of the call, whatever target, Route and
	// the peer's Contact say: no name is resolved, and no other connection is opened.
	// After its loss requests fail with ErrFlowLost, until the peer has moved
	// (StackConfig.MoveFlow) or a re-INVITE has another Flow. Only the targets of
	// FollowRedirects are located as usual. Nil means no flow.
	Flow *Flow
	// FollowRedirects is the largest number of targets of 300, 301 and 302 responses to
	// try, one after the other, the Contact with the highest q first (RFC 3261 8.1.3.4).
	// No target is tried twice, and after a SIPS URI only SIPS URIs are tried. Headers
	// in a Contact are ignored. If a target responds with 400 to 599, or not at all, the
	// next one is tried; the response of the last one ends the call. With zero none is
	// tried, and a *ResponseError has the targets.
	FollowRedirects int
	// Replaces names the call at the peer that this INVITE replaces (RFC 3891 4), and
	// Join the call that it joins (RFC 3911 5): see ReplacesOf. At most one of them may
	// be set, and it must have a Call-ID and both tags. A peer that does not support the
	// header ignores it, unless Require asks the peer to refuse the call with 420.
	Replaces, Join *ReplacesInfo
	// Require lists the options that the peer must support (RFC 3261 20.32):
	// "replaces", "join".
	Require []string
	// Unreliable leaves 100rel out of what the INVITE supports, so that no provisional
	// response is sent reliably (RFC 3262 3): for a back-to-back user agent whose caller
	// could not acknowledge it. It has no effect with ReliableRequired.
	Unreliable bool
	// Choose decides whether a 2xx to the INVITE makes the call. It runs on its own
	// goroutine for one 2xx at a time, in the order of arrival. The fork is released
	// (ACK, BYE) if Choose returns false, panics, or takes longer than 48*T1, and the
	// next 2xx is awaited. The call ends if none comes. Nil accepts the first 2xx.
	Choose func(ForkInfo) bool
	// PrackOffer returns a further offer for the PRACK to the provisional response that
	// has answered the offer of the INVITE (RFC 3262 5, RFC 6337 3.2). It is not called
	// while another offer is open; a nil result makes no offer. It runs on its own
	// goroutine. After two seconds ctx ends, and a later offer is not sent. The answer,
	// in the 2xx to the PRACK, goes to OnBody.
	PrackOffer func(ctx context.Context, response ForkInfo) (offer Body)
	// NoRetry sends a re-INVITE once, as [WithoutRetry] does. An INVITE that begins a call
	// is never sent again after a 491 or a Retry-After.
	NoRetry bool
	// Context, unless nil, ends the call when it ends: by CANCEL, or BYE. Cause.Err is then
	// its cause (context.Cause), and the Reason headers are those of the cause: see
	// [ReasonError]. Another call's [Dialog.Context] ends the call with that call. Its
	// values are those of the call: see [Dialog.Value]. The context of NewInvite bounds only
	// NewInvite.
	Context context.Context
	// Setup, unless nil, is called with the dialog before the INVITE is sent, on the
	// caller's goroutine. So callbacks registered in it miss no event. NewInvite returns
	// a panic in it as an error.
	Setup func(*Dialog)

	// token is the Referred-By token that goes with the body (RFC 3892). referral is
	// true when the INVITE follows a REFER.
	token    []byte
	referral bool
}

// ReferOpts are the options of the calls that send a REFER.
type ReferOpts struct {
	// ReferSub, unless nil, is sent as the value of Refer-Sub (RFC 4488).
	ReferSub *string
	// NoReferSub asks for no subscription: Refer-Sub: false (RFC 4488 4).
	NoReferSub bool
	// RequireNoSub requires that no subscription is created: Require: nosub (RFC 7614
	// 5.1). A peer that does not support nosub refuses the REFER with 420.
	RequireNoSub bool
	// ReferredBy is the referrer (RFC 3892); nil means our side of the call.
	ReferredBy *Address
	// TargetDialog is the Key of our call with the same peer to which the REFER
	// belongs: Target-Dialog, and Require: tdialog (RFC 4538 3). A peer that does not
	// support tdialog refuses the REFER with 420. It may be nil.
	TargetDialog *DialogKey
	// Replaces, unless nil, is a call of ours that the new call replaces: an attended
	// transfer (RFC 5589 7). Its peer must be known; only its Key is used. The target may
	// then be the zero value: it is the peer of Replaces, if that is a [*Dialog].
	Replaces IDialog
	// Flow carries a REFER outside calls, and later requests of its subscription; see
	// InviteOpts.Flow. Inside a call it must be nil.
	Flow *Flow
	// Headers are added to the REFER. Refer-To, Refer-Sub, and the headers that Header
	// refuses are not allowed. A Referred-By here takes precedence over ReferredBy.
	Headers map[string]string
}

// IDialog is a call as an application sees it. The dynamic type of every IDialog from
// this package is *Dialog, which has more methods.
//
// Every method may be called from any goroutine and from inside any callback.
type IDialog interface {
	// Key returns the dialog's identifier. RemoteTag is empty until the peer's
	// tag is known.
	Key() DialogKey
	// State returns the present state.
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
	// WaitRefer waits for the response to a REFER; see [Dialog.WaitRefer].
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

// IStack is the part of a [Stack] that most applications need.
type IStack interface {
	// Start binds the sockets and serves them; see [Stack.Start].
	Start(ctx context.Context) error
	// Shutdown ends all calls and the stack; see [Stack.Shutdown].
	Shutdown(ctx context.Context) error
	// NewInvite places a call; see [Stack.NewInvite].
	NewInvite(ctx context.Context, target sip.Uri, opts InviteOpts) (IDialog, error)
	// DialogByKey finds a call; see [Stack.DialogByKey].
	DialogByKey(key DialogKey) (*Dialog, bool)
	// OnIncomingDialog registers the callback for incoming calls; see
	// [Stack.OnIncomingDialog].
	OnIncomingDialog(func(IDialog))
}

var (
	_ IDialog = (*Dialog)(nil)
	_ IStack  = (*Stack)(nil)
	_ Body    = (*BodyImpl)(nil)
	_ Body    = (*SimpleBody)(nil)
)

// Address is a name and a URI, as in From and To.
type Address struct {
	DisplayName string
	URI         sip.Uri
}

// Header is a header for a message. It is refused with ErrInvalidArgument if its name is
// not a token, if its value has a line break or another control character, or if the
// stack sets the header itself; the error then names the option for it. These headers
// are Via, From, To, Call-ID, CSeq, Max-Forwards, Route, Record-Route, Content-Length,
// and Contact, except in an [Answer] and with [WithHeader].
type Header struct {
	Name, Value string
}

// ByeOpts are the options of ByeWith.
type ByeOpts struct {
	// Reason becomes a Reason header (RFC 3326): SIP;text="…", unless it is a header
	// value already, such as `Q.850;cause=16`.
	Reason string
	// Reasons become further Reason headers, also in the CANCEL of an unanswered call.
	Reasons []Reason
	// Headers are added to the BYE.
	Headers []Header
}

// WithHeader adds a header to a response. A Contact replaces ours, in Accept and
// Provisional for the rest of the call. A header that Header refuses makes the method
// fail.
func WithHeader(name, value string) ResponseOpt {
	return func(resp *sip.Response) {
		h := Header{name, value}
		if err := checkResponseHeader(h); err != nil {
			refuseOption(resp, err)
			return
		}
		if isContactName(name) {
			replaceContacts(resp, sip.NewHeader("Contact", value))
			return
		}
		appendHeaders(resp, []Header{h})
	}
}

// WithHeaders adds headers to a response, such as those of a [Refusal], each as
// WithHeader does.
func WithHeaders(headers ...Header) ResponseOpt {
	return func(resp *sip.Response) {
		for _, h := range headers {
			WithHeader(h.Name, h.Value)(resp)
		}
	}
}

// WithBody gives a response a body: the answer, or the offer, of Accept and
// Provisional. After reliable provisional responses have established a session, a body
// in Accept is neither (RFC 6337 3.1.1). The version in an SDP's o= line is raised if it
// would otherwise decrease, since Hold and Resume raise it too (RFC 3264 8).
func WithBody(body Body) ResponseOpt {
	return func(resp *sip.Response) { setBody(resp, body) }
}

// WithReliable makes Provisional send the response reliably (RFC 3262) if the caller
// supports that. It does not change other responses.
func WithReliable() ResponseOpt {
	return func(resp *sip.Response) { resp.AppendHeader(sip.NewHeader("Require", rel100.Tag)) }
}

// WithContacts replaces a response's Contact: in RejectWith by the targets of a
// redirection (RFC 3261 21.3), in Accept and Provisional by our own Contact, one SIP URI,
// for the rest of the call.
func WithContacts(targets ...sip.Uri) ResponseOpt {
	return func(resp *sip.Response) {
		var list []sip.Header
		for _, target := range targets {
			if err := checkURI("Contact", target); err != nil {
				refuseOption(resp, err)
				return
			}
			list = append(list, &sip.ContactHeader{Address: *target.Clone(), Params: sip.NewParams()})
		}
		replaceContacts(resp, list...)
	}
}

func replaceContacts(resp *sip.Response, contacts ...sip.Header) {
	sipheader.Remove(resp, "Contact")
	for _, contact := range contacts {
		resp.AppendHeader(contact)
	}
}

func isContactName(name string) bool { return sipmsg.SameName(name, "Contact") }

// WithRetryAfter adds a Retry-After (RFC 3261 20.33), in whole seconds.
func WithRetryAfter(wait time.Duration) ResponseOpt {
	return func(resp *sip.Response) {
		if wait < 0 {
			refuseOption(resp, invalid("Retry-After %v", wait))
			return
		}
		resp.AppendHeader(sipheader.RetryAfter(int(wait.Round(time.Second).Seconds())))
	}
}

// WithWarning adds a Warning (RFC 3261 20.43): a code from 300 to 399, and a
// text.
func WithWarning(code int, text string) ResponseOpt {
	return func(resp *sip.Response) {
		if err := validCode("WithWarning", code, 300, 399); err != nil {
			refuseOption(resp, err)
			return
		}
		appendHeaders(resp, []Header{warning(code, text)})
	}
}

// appendHeaders adds an application's headers to a message: those that checkHeaders
// has passed.
func appendHeaders(msg sip.Message, headers []Header) {
	for _, h := range headers {
		msg.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
}

// addHeaders is appendHeaders for a request of ours.
func addHeaders(req *draft.Request, headers []Header) {
	for _, h := range headers {
		req.Add(h.Name, h.Value)
	}
}

// validCode checks a status that an application gives.
func validCode(op string, code, least, most int) error {
	if code < least || code > most {
		return opErr(op, fmt.Errorf("%w: status %d", ErrInvalidArgument, code))
	}
	return nil
}

// The types of this file did nothing in the package this one replaces. They
// are kept so that code that names them compiles.

// Transaction is empty.
//
// Deprecated: transactions are internal.
type Transaction struct{}

// TransactionPool is empty.
//
// Deprecated: transactions are internal.
type TransactionPool struct{}

// NewTransaction returns an empty Transaction, never nil.
//
// Deprecated: transactions are internal.
func NewTransaction(_ *Dialog, _ TxType) *Transaction { return &Transaction{} }

// TxState named the state of a transaction.
//
// Deprecated: transactions are internal.
type TxState int

// The states of RFC 3261 17.
//
// Deprecated: transactions are internal.
const (
	TxCalling TxState = iota
	TxProceeding
	TxCompleted
	TxTerminated
	TxConfirmed
	TxTrying
)

// String returns the state's name, or "Unknown".
func (s TxState) String() string {
	return nameOf(int(s), "Calling", "Proceeding", "Completed", "Terminated", "Confirmed", "Trying")
}

// TxType named the kind of a transaction.
//
// Deprecated: transactions are internal.
type TxType int

// The four machines of RFC 3261 17.
//
// Deprecated: transactions are internal.
const (
	TxTypeInviteClient TxType = iota
	TxTypeInviteServer
	TxTypeNonInviteClient
	TxTypeNonInviteServer
)

// String returns the type's name, or "Unknown".
func (t TxType) String() string {
	return nameOf(int(t), "InviteClient", "InviteServer", "NonInviteClient", "NonInviteServer")
}

func nameOf(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "Unknown"
	}
	return names[i]
}
