package dialog

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
)

// maxRetries bounds how often a re-INVITE is sent again after a 500 or 503 with Retry-After.
const maxRetries = 3

// Renegotiate is ReInvite that also returns the peer's session description: the one in
// the 2xx, or in the reliable provisional response before it; nil if there is none. If
// offer is nil, the result is the peer's offer, which OnOffer's function has answered.
func (d *Dialog) Renegotiate(ctx context.Context, offer Body, headers ...Header) (result Body, err error) {
	defer naming("Renegotiate", &err)
	if ctx == nil {
		return nil, errNilContext("Renegotiate")
	}
	return d.renegotiate(ctx, InviteOpts{Body: offer, Headers: headers}, nil)
}

// Hold offers our last session with sendonly for each sendrecv stream, and inactive for
// each recvonly stream (RFC 3264 8.4). If the peer refuses, the session does not change.
//
// Errors: ErrNoSession, and those of ReInvite.
func (d *Dialog) Hold(ctx context.Context) error {
	return opErr("Hold", d.withDirections(ctx, func(was sdp.Direction) sdp.Direction { return was &^ sdp.Receives }))
}

// Resume reverses Hold: sendonly becomes sendrecv, and inactive becomes recvonly. If the
// peer refuses, the session does not change.
//
// Errors: ErrNoSession, and those of ReInvite.
func (d *Dialog) Resume(ctx context.Context) error {
	return opErr("Resume", d.withDirections(ctx, func(was sdp.Direction) sdp.Direction { return was | sdp.Receives }))
}

// withDirections offers our last session with other directions.
func (d *Dialog) withDirections(ctx context.Context, change func(sdp.Direction) sdp.Direction) error {
	if ctx == nil {
		return errNilContext("Hold and Resume")
	}
	_, err := d.renegotiate(ctx, InviteOpts{}, func(now *offeranswer.Negotiation) (Body, error) { return now.OfferWithDirections(change) })
	return err
}

// offerBuilder makes an offer of ours from the session as it is when the offer leaves:
// another may have changed it since the application asked, and before each new
// attempt. nil leaves the offer as it is.
type offerBuilder func(now *offeranswer.Negotiation) (Body, error)

func (c offerBuilder) intoLocked(opts *InviteOpts, now *offeranswer.Negotiation) (err error) {
	if c != nil {
		opts.Body, err = c(now)
		return err
	}
	opts.Body = now.Numbered(opts.Body)
	return nil
}

// renegotiate sends a re-INVITE, and again when the peer asks to wait, unless
// that is switched off (RFC 3261 14.1, 21.5.1).
func (d *Dialog) renegotiate(ctx context.Context, opts InviteOpts, build offerBuilder) (Body, error) {
	opts.Body = ownBody(opts.Body)
	if err := opts.checkOffer(); err != nil {
		return nil, err
	}
	if opts.NoRetry {
		ctx = WithoutRetry(ctx)
	}
	return d.retrying(ctx, "ReInvite", func() (Body, error) { return d.reinviteOnce(ctx, opts, build) })
}

// WithoutRetry returns a context with which a re-INVITE or an UPDATE is sent once, as
// with StackConfig.NoRetry: a 491 is then returned at once. For an offer that relays one
// of another call, whose peer tries again itself.
func WithoutRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRetry{}, true)
}

// noRetry is the key of WithoutRetry.
type noRetry struct{}

// retrying sends once, and again as retryIn says. After 491s it goes on for 64*T1: RFC 3261
// 14.1 has no count. The peer may need as long to learn that its own request is over, and the
// side that waits less has sent several by then.
func (d *Dialog) retrying(ctx context.Context, op string, once func() (Body, error)) (Body, error) {
	retries, patient := 0, time.Time{}
	for {
		body, err := once()
		wait, again := d.retryIn(ctx, err)
		switch {
		case !again:
			return body, err
		case !isGlare(err):
			retries++
		case patient.IsZero():
			patient = time.Now().Add(64 * d.config().timers().T1)
		}
		if retries > maxRetries || isGlare(err) && time.Now().After(patient) {
			return body, err
		}
		if err := d.pause(ctx, op, wait); err != nil {
			return nil, err
		}
	}
}

func (d *Dialog) reinviteOnce(ctx context.Context, opts InviteOpts, build offerBuilder) (Body, error) {
	if err := d.waitAcked(ctx); err != nil {
		return nil, err
	}
	re, err := d.sendReInvite(ctx, opts, build)
	if err != nil {
		return nil, err
	}
	select {
	case <-re.final:
		return re.outcome()
	case <-ctx.Done():
		re.cancel()
		return nil, ctx.Err()
	}
}

// retryIn reports whether, and when, a refused re-INVITE is sent again: after a 491 within
// the time window of the Call-ID's owner or of the other side (RFC 3261 14.1), after a 500
// or 503 at its Retry-After.
func (d *Dialog) retryIn(ctx context.Context, err error) (time.Duration, bool) {
	var refused *ResponseError
	if d.config().NoRetry || ctx.Value(noRetry{}) != nil || !errors.As(err, &refused) {
		return 0, false
	}
	const unit = 10 * time.Millisecond
	switch refused.StatusCode {
	case sip.StatusRequestPending:
		if d.isUAC {
			return 2100*time.Millisecond + time.Duration(rand.IntN(191))*unit, true
		}
		return time.Duration(rand.IntN(201)) * unit, true
	case sip.StatusInternalServerError, sip.StatusServiceUnavailable:
		return refused.RetryAfter, refused.retry
	}
	return 0, false
}

// isGlare reports whether a request crossed one of the peer's.
func isGlare(err error) bool {
	var refused *ResponseError
	return errors.As(err, &refused) && refused.StatusCode == sip.StatusRequestPending
}

// pause waits, unless the call or ctx ends before.
func (d *Dialog) pause(ctx context.Context, op string, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.Done():
		return &StateError{Op: op, State: DialogStateTerminated, Need: "Established state"}
	case <-ctx.Done():
		return ctx.Err()
	}
}
