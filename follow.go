package dialog

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/refersub"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// FollowRefer places the call that a REFER asks for: the first REFER of this call with
// that Refer-To that is accepted and not followed yet. It is usually called in
// OnIncomingRefer. opts are the options of the new call. Replaces and other headers of
// Refer-To are added (RFC 3261 19.1.5), and Referred-By; From is our side of this call,
// unless opts name another. A token that proves the referrer (RFC 3892 4) is added to
// the body, which is then multipart/mixed. The responses to the new INVITE are reported
// to the referrer by NOTIFY: each 101 to 199 that differs from the one before, and the
// outcome, which ends the subscription. FollowRefer continues if the referrer hangs up,
// and if it ends the subscription (RFC 3515 2.4.4).
//
// It blocks as NewInvite and then WaitAnswer do, and returns the new call, established.
// If ctx ends first, the new call is cancelled and 487 is reported. This call continues:
// the application ends it.
//
// Errors: ErrNoRefer, ErrReference (501 is reported), and those of [Stack.NewInvite]
// and [Dialog.WaitAnswer].
func (d *Dialog) FollowRefer(ctx context.Context, referTo sip.Uri, opts InviteOpts) (result *Dialog, err error) {
	defer naming("FollowRefer", &err)
	if ctx == nil {
		return nil, errNilContext("FollowRefer")
	}
	d.mutex.Lock()
	followable := d.transfersLocked().Followable.All()
	d.mutex.Unlock()
	for _, r := range followable {
		if r.referToURI.String() == referTo.String() && r.follow() {
			return r.call(ctx, opts)
		}
	}
	return nil, ErrNoRefer
}

// Follow is [Dialog.FollowRefer] for this subscription's REFER. It may be called
// once the REFER has been accepted.
func (r *ReferSubscription) Follow(ctx context.Context, opts InviteOpts) (result *Dialog, err error) {
	defer naming("Follow", &err)
	if ctx == nil {
		return nil, errNilContext("Follow")
	}
	if r == nil || r.dialog == nil || !r.follow() {
		return nil, ErrNoRefer
	}
	return r.call(ctx, opts)
}

// followableLocked keeps an accepted REFER for FollowRefer, also after the end of its
// subscription. The oldest are dropped first.
func (d *Dialog) followableLocked(r *ReferSubscription) {
	if oldest, dropped := d.transfersLocked().Followable.Add(r, d.referLimit()); dropped {
		oldest.freeLocked()
	}
}

// follow claims the REFER: exactly one caller gets true.
func (r *ReferSubscription) follow() bool {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	found := r.unfollowedLocked()
	if found {
		r.state.Follow()
	}
	return found
}

// unfollowedLocked removes the REFER from those that can be followed, and reports
// whether it was one.
func (r *ReferSubscription) unfollowedLocked() bool {
	found := r.dialog.transfersLocked().Followable.Take(r)
	r.freeLocked()
	return found
}

// call places the new call, waits for its outcome and reports it.
func (r *ReferSubscription) call(ctx context.Context, opts InviteOpts) (call *Dialog, err error) {
	defer func() {
		outcome := outcomeOf(err)
		r.step(func(s *refersub.Step) { r.state.CallOver(s, outcome) })
	}()
	target, err := refersub.Target(r.referToURI)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrReference, err)
	case r.dialog.stack == nil:
		return nil, ErrNotStarted
	}
	err = ErrPanic // unless Setup returns
	placed, err := r.dialog.stack.NewInvite(ctx, target, r.inviteOpts(opts))
	if err != nil {
		return nil, err
	}
	call = placed.(*Dialog)
	err = call.WaitAnswer(ctx)
	call.follows(nil) // else a chain of transfers would stay as long as the last
	if err != nil {
		return nil, err
	}
	return call, nil
}

// inviteOpts adds the headers of the REFER to the application's options.
func (r *ReferSubscription) inviteOpts(opts InviteOpts) InviteOpts {
	headers := headersOf(r.referToURI)
	if by := (Header{"Referred-By", r.refer.By}); by.Value != "" && checkHeader(by) == nil {
		headers = append(headers, by) // RFC 3892 2.2
	}
	opts.Headers = append(headers, opts.Headers...)
	opts.token, opts.referral = r.refer.Token, true
	if opts.From == nil {
		// RFC 3892 2.2: the same to the referrer and to the target.
		r.dialog.mutex.RLock()
		from := addressOf(r.dialog.local.NameAddr())
		r.dialog.mutex.RUnlock()
		opts.From = &from
	}
	setup := opts.Setup
	opts.Setup = func(call *Dialog) {
		call.follows(r)
		if setup != nil {
			setup(call)
		}
	}
	return opts
}

// headersOf returns the headers in a URI that the INVITE may take over.
func headersOf(uri sip.Uri) []Header {
	var list []Header
	for _, h := range refersub.Headers(uri) {
		if own := (Header{h[0], h[1]}); checkHeader(own) == nil {
			list = append(list, own)
		}
	}
	return list
}

// follows reports the call's responses to the referrer of r; nil: no longer.
func (d *Dialog) follows(r *ReferSubscription) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.transfersLocked().AskedBy = r
}

// reportReferred reports a response to an INVITE to the referrer.
func (d *Dialog) reportReferred(res *sipmsg.Message) {
	d.mutex.RLock()
	r := d.transfers.Asked()
	d.mutex.RUnlock()
	if r == nil {
		return
	}
	progress := refersub.Progress{Status: res.Status, Reason: sipheader.OneLine(res.Reason)}
	r.step(func(s *refersub.Step) { r.state.CallResponse(s, progress) })
}

// outcomeOf is the status of a call for its referrer; zero for one that was established.
func outcomeOf(err error) refersub.Progress {
	var refused *ResponseError
	switch {
	case err == nil:
		return refersub.Progress{}
	case errors.As(err, &refused):
		return refersub.Progress{Status: refused.StatusCode, Reason: sipheader.OneLine(refused.Reason)}
	case errors.Is(err, ErrReference):
		return refersub.Progress{Status: sip.StatusNotImplemented, Reason: "Not Implemented"}
	case errors.Is(err, ErrTimeout):
		return refersub.Progress{Status: sip.StatusRequestTimeout, Reason: "Request Timeout"}
	case errors.Is(err, ErrCanceled), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refersub.Progress{Status: sip.StatusRequestTerminated, Reason: "Request Terminated"}
	default:
		return refersub.Progress{Status: sip.StatusServiceUnavailable, Reason: "Service Unavailable"}
	}
}
