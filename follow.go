package dialog

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipuri"
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
	unfollowed := d.transfersLocked().unfollowed
	d.mutex.Unlock()
	for _, r := range unfollowed {
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
	t := d.transfersLocked()
	if n := len(t.unfollowed); n > 0 && n >= d.referLimit() {
		t.unfollowed[0].unfollowedLocked()
	}
	r.followable = true
	t.unfollowed = append(t.unfollowed[:len(t.unfollowed):len(t.unfollowed)], r)
}

// follow claims the REFER: exactly one caller gets true.
func (r *ReferSubscription) follow() bool {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	found := r.unfollowedLocked()
	r.followed = r.followed || found
	return found
}

// unfollowedLocked removes the REFER from those that can be followed, and reports
// whether it was one.
func (r *ReferSubscription) unfollowedLocked() bool {
	var left []*ReferSubscription
	t := r.dialog.transfersLocked()
	for _, other := range t.unfollowed {
		if other != r {
			left = append(left, other)
		}
	}
	found := len(left) < len(t.unfollowed)
	t.unfollowed = left
	r.followable = false
	r.freeLocked()
	return found
}

// call places the new call, waits for its outcome and reports it.
func (r *ReferSubscription) call(ctx context.Context, opts InviteOpts) (*Dialog, error) {
	target, err := referenced(r.referToURI)
	if err != nil {
		r.queueNotify(pendingNotify{progress: Progress{sip.StatusNotImplemented, "Not Implemented"}})
		return nil, err
	}
	f := &follower{r: r}
	err = ErrPanic // unless Setup returns
	defer func() { r.queueNotify(pendingNotify{progress: f.outcome(err)}) }()
	call, err := r.invite(ctx, target, r.inviteOpts(f, opts))
	if err == nil {
		err = call.WaitAnswer(ctx)
		call.follows(nil) // else a chain of transfers would stay as long as the last
	}
	if err != nil {
		return nil, err
	}
	return call, nil
}

func (r *ReferSubscription) invite(ctx context.Context, target sip.Uri, opts InviteOpts) (*Dialog, error) {
	if r.dialog.stack == nil {
		return nil, ErrNotStarted
	}
	call, err := r.dialog.stack.NewInvite(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	return call.(*Dialog), nil
}

// referenced returns the target of the INVITE that a Refer-To asks for.
func referenced(referTo sip.Uri) (sip.Uri, error) {
	target := *referTo.Clone()
	target.Headers = nil
	if scheme := strings.ToLower(target.Scheme); scheme != "sip" && scheme != "sips" {
		return target, fmt.Errorf("%w: scheme %q", ErrReference, target.Scheme)
	}
	if method, ok := sipuri.Param(target.UriParams, "method"); ok && !strings.EqualFold(method, "INVITE") {
		return target, fmt.Errorf("%w: method %q", ErrReference, method)
	}
	sipuri.RemoveParam(&target.UriParams, "method") // RFC 3261 19.1.1: not in a Request-URI
	return target, nil
}

// inviteOpts adds the headers of the REFER to the application's options.
func (r *ReferSubscription) inviteOpts(f *follower, opts InviteOpts) InviteOpts {
	headers := headersOf(r.referToURI)
	if by := (Header{"Referred-By", r.referredBy}); by.Value != "" && checkHeader(by) == nil {
		headers = append(headers, by) // RFC 3892 2.2
	}
	opts.Headers = append(headers, opts.Headers...)
	opts.token, opts.referral = r.token, true
	if opts.From == nil {
		// RFC 3892 2.2: the same to the referrer and to the target.
		r.dialog.mutex.RLock()
		from := r.dialog.local.address()
		r.dialog.mutex.RUnlock()
		opts.From = &from
	}
	setup := opts.Setup
	opts.Setup = func(call *Dialog) {
		call.follows(f)
		if setup != nil {
			setup(call)
		}
	}
	return opts
}

// headersOf returns the headers in a URI that are copied to the INVITE: those with which a
// referrer cannot act in our name (RFC 3261 19.1.5).
func headersOf(uri sip.Uri) []Header {
	var list []Header
	for _, kv := range uri.Headers {
		name, errName := url.PathUnescape(kv.K)
		value, errValue := url.PathUnescape(kv.V)
		h := Header{name, oneLine(value)}
		if errName == nil && errValue == nil && mayTakeOver(name) && checkHeader(h) == nil {
			list = append(list, h)
		}
	}
	return list
}

func mayTakeOver(name string) bool {
	switch name = strings.ToLower(name); name {
	case "replaces", "join", "target-dialog", "require", "subject", "priority", "in-reply-to", "reason",
		"accept-contact", "reject-contact", "request-disposition", "user-to-user":
		return true
	}
	return strings.HasPrefix(name, "x-")
}

// follower gets the responses to the call that follows a REFER.
type follower struct {
	r *ReferSubscription // set at construction

	mu sync.Mutex // guards the fields below
	// latest is the latest response, accepted the first 2xx.
	latest, accepted Progress
}

// follows reports the call's responses to f; nil: no longer.
func (d *Dialog) follows(f *follower) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if f != nil || d.transfers != nil {
		d.transfersLocked().follower = f
	}
}

func (d *Dialog) followerNow() *follower {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.transfers == nil {
		return nil
	}
	return d.transfers.follower
}

// reportReferred reports a response to an INVITE to the referrer.
func (d *Dialog) reportReferred(res *sip.Response) {
	f := d.followerNow()
	if f != nil && f.isNews(Progress{res.StatusCode, oneLine(res.Reason)}) {
		f.r.queueNotify(pendingNotify{progress: Progress{res.StatusCode, oneLine(res.Reason)}})
	}
}

// isNews reports whether a response is a provisional one that is reported now. A final
// one is reported when the call has its outcome.
func (f *follower) isNews(p Progress) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case p.final():
		if p.Status < 300 && f.accepted.Status == 0 {
			f.accepted = p
		}
		return false
	case p.Status == sip.StatusTrying || p == f.latest:
		return false
	}
	f.latest = p
	return true
}

// outcome is the status of the new call for the referrer.
func (f *follower) outcome(err error) Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	var refused *ResponseError
	switch {
	case err == nil && f.accepted.Status != 0:
		return f.accepted
	case err == nil:
		return Progress{sip.StatusOK, "OK"}
	case errors.As(err, &refused):
		return Progress{refused.StatusCode, oneLine(refused.Reason)}
	case errors.Is(err, ErrTimeout):
		return Progress{sip.StatusRequestTimeout, "Request Timeout"}
	case errors.Is(err, ErrCanceled), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Progress{sip.StatusRequestTerminated, "Request Terminated"}
	default:
		return Progress{sip.StatusServiceUnavailable, "Service Unavailable"}
	}
}
