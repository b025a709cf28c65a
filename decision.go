package dialog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/usage"
)

// decisionContext bounds a decision of the application by the ringing limit.
func (d *Dialog) decisionContext() (context.Context, context.CancelCauseFunc) {
	ctx, end := context.WithCancelCause(context.Background())
	limit := d.config().ringingLimit()
	if limit <= 0 {
		return ctx, end
	}
	ctx, stop := context.WithTimeout(ctx, limit)
	return ctx, func(why error) { end(why); stop() }
}

// offered is an offer of the peer that the application decides. Of accept and refuse only
// the first call has an effect.
type offered struct {
	request *OfferRequest
	handler OfferRequestHandler
	accept  func(answer Body)
	refuse  func(how *Refusal)
}

// decide asks the application, and answers as it says. When it does not decide
// before ctx ends the answer is 504.
func (d *Dialog) decide(ctx context.Context, o offered) {
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.stack.tasks.Run(func() { o.refuse(tooLate()) })
		}
	})
	defer stop()
	answer, err := Body(nil), error(ErrPanic)
	// Deferred: a handler that ends its goroutine has the same effect as one
	// that panics.
	defer func() {
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			o.refuse(tooLate()) // whatever it was
		case err != nil:
			o.refuse(refusalFor(err))
		default:
			o.accept(answer)
		}
	}()
	answer, err = d.consult(ctx, o.handler, o.request)
}

// tooLate refuses an offer that the application has not decided in time.
func tooLate() *Refusal { return &Refusal{Status: sip.StatusGatewayTimeout} }

// tooSoon asks the peer to wait for the response to its earlier request (RFC 3261 14.2,
// RFC 3311 5.2).
func tooSoon(tx serverTx) *sip.Response {
	res := tx.NewResponse(sip.StatusInternalServerError, "")
	res.AppendHeader(sipheader.RetryAfter(rand.IntN(11)))
	return res
}

// consult calls the handler.
func (d *Dialog) consult(ctx context.Context, handler OfferRequestHandler, r *OfferRequest) (answer Body, err error) {
	return d.guarded("OnOffer", func() (Body, error) {
		answer, err := handler(d.values.Context(ctx), r)
		if err != nil {
			return nil, &refusedOffer{how: refusalFor(err), said: err.Error()}
		}
		return answer, nil
	})
}

// guarded calls a function of the application that makes a body; a panic, or
// Goexit, is ErrPanic. The body is this package's own.
func (d *Dialog) guarded(name string, decide func() (Body, error)) (made Body, err error) {
	own, refusal := Body(nil), error(ErrPanic)
	d.stack.guard(d.log, name, func() {
		decided, err := decide()
		own = ownBody(decided)
		refusal = err
	}, nil)
	if err := checkBody(own); err != nil {
		d.log().Error("body from the application cannot be sent", "from", name, "error", err)
		return nil, err
	}
	return own, refusal
}

// abortOffers ends the re-INVITEs and UPDATEs that are open when the call ends. The
// peer's are answered (RFC 3261 15.1.2). Our re-INVITE is cancelled, so that it does not
// wait for a response for ever.
func (d *Dialog) abortOffers() {
	d.mutex.Lock()
	in, out, update := d.reinviteIn, d.reinviteOut, d.currentLocked().updateIn
	reinviteStatus, updateStatus := sip.StatusRequestTerminated, sip.StatusCallTransactionDoesNotExists
	if d.movedAwayLocked() { // RFC 5057 5.1: it ends nothing
		reinviteStatus, updateStatus, out = sip.StatusServiceUnavailable, sip.StatusServiceUnavailable, nil
	}
	early := d.openUpdatesLocked()
	d.mutex.Unlock()
	d.refuseUpdates(early)
	if in != nil {
		d.refuseReInvite(in, &Refusal{Status: reinviteStatus})
	}
	if out != nil {
		out.cancel(nil)
	}
	if update != nil {
		d.refuseUpdate(update, &Refusal{Status: updateStatus})
	}
}

// answerLate gets the answer to an offer in a 2xx, for the ACK, or in a reliable
// provisional response, for the PRACK; carrier is ACK or PRACK. The answer is no longer
// needed when unwanted is closed. If the application refuses, panics or takes too long,
// there is no answer, and the call must end (RFC 3261 13.2.2.4).
func (d *Dialog) answerLate(carrier sip.RequestMethod, handler OfferRequestHandler, r *OfferRequest, unwanted <-chan struct{}) (Body, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 48*d.config().timers().T1)
	defer cancel()
	answer, err := d.await(ctx, unwanted, func() (Body, error) { return d.consult(ctx, handler, r) })
	if err != nil || isNilBody(answer) {
		d.logRefused(carrier, sip.StatusNotAcceptableHere)
	} else {
		d.logAccepted(carrier, offeranswer.ByApplication)
	}
	return answer, err
}

// decideLate is answerLate with the refusal where there is no answer: port 0 in
// every line.
func (d *Dialog) decideLate(carrier sip.RequestMethod, handler OfferRequestHandler, r *OfferRequest, unwanted <-chan struct{}) (Body, offeranswer.Origin, error) {
	answer, err := d.answerLate(carrier, handler, r, unwanted)
	if err == nil && !isNilBody(answer) {
		return answer, offeranswer.ByApplication, nil
	}
	return d.refusal(r.Offer), offeranswer.ByDefault, err
}

// await has the application decide on its own goroutine, and waits until ctx
// or the call ends, or is about to, or the decision is unwanted.
func (d *Dialog) await(ctx context.Context, unwanted <-chan struct{}, decide func() (Body, error)) (Body, error) {
	type outcome struct {
		made Body
		err  error
	}
	decided, ending := make(chan outcome, 1), d.hangsUp()
	if !d.stack.calls.Go(func() {
		result := outcome{err: ErrPanic}
		defer func() { decided <- result }()
		result.made, result.err = decide()
	}) {
		return nil, ErrShutdown
	}
	select {
	case result := <-decided:
		return result.made, result.err
	case <-ctx.Done():
		return nil, ErrTimeout
	case <-unwanted:
	case <-ending:
	case <-d.Done():
	}
	return nil, ErrTerminated
}

// hangsUp returns a channel that is closed when a hang-up begins.
func (d *Dialog) hangsUp() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.events.hungUp.OpenIf(d.ending != nil).C()
}

// Refusal is the response that refuses an offer of the peer. OnOffer's function returns
// it as an error to send another response than 488. A *ResponseError of another call
// refuses with its [ResponseError.Refusal]. To refuse a call like this, use
// RejectWith(ctx, r.Status, r.Reason, WithHeaders(r.Headers...)).
type Refusal struct {
	// Status is 300 to 699; any other value means 488.
	Status int
	// Reason is the reason phrase; empty means the status's own.
	Reason string
	// Headers are added to the response: Retry-After, Warning, Reason, Accept.
	Headers []Header
}

// Error gives the status, and the reason phrase if there is one.
func (r *Refusal) Error() string {
	text := fmt.Sprintf("dialog: offer refused with %d", r.status())
	if r.Reason != "" {
		text += " " + sipheader.OneLine(r.Reason)
	}
	return text
}

func (r *Refusal) status() int {
	if r.Status < 300 || r.Status > 699 {
		return sip.StatusNotAcceptableHere
	}
	return r.Status
}

// Refusal returns the refusal for the other call of a bridge: the same status,
// Retry-After, Warning, Reason and Accept. A status that would end the call (RFC 5057
// 5.1), or that a request of ours has caused, such as a challenge, becomes 488: the
// peer of the other call cannot do anything about it.
func (e *ResponseError) Refusal() *Refusal {
	r := &Refusal{Status: sip.StatusNotAcceptableHere}
	if mayPass(e.StatusCode) {
		r.Status, r.Reason = e.StatusCode, e.Reason
		if e.RetryAfter > 0 || e.retry {
			r.Headers = append(r.Headers, Header{"Retry-After", strconv.Itoa(int(e.RetryAfter.Round(time.Second).Seconds()))})
		}
		for _, accepted := range e.Accept {
			r.Headers = append(r.Headers, Header{"Accept", accepted})
		}
	}
	for _, warning := range e.Warnings {
		r.Headers = append(r.Headers, Header{"Warning", warning})
	}
	for _, reason := range e.Reasons {
		if sipmsg.IsToken(reason.Protocol) {
			r.Headers = append(r.Headers, Header{"Reason", reason.String()})
		}
	}
	return r
}

// mayPass reports whether a status may go from one call to another.
func mayPass(code int) bool {
	switch code {
	case sip.StatusUnauthorized, sip.StatusProxyAuthRequired, // whose credentials?
		sip.StatusBadExtension, sip.StatusExtensionRequired, sessiontimer.StatusTooSmall, 494, // negotiated hop by hop
		sip.StatusRequestTerminated: // we have given it up
		return false
	}
	return code >= 400 && code <= 699 && usage.EffectOf(sip.INVITE, code) == usage.EndsNothing
}

// refusedOffer is an error of OnOffer's function: the refusal, and the text of the
// error only. An error of another call must not be taken for one of this call.
type refusedOffer struct {
	how  *Refusal
	said string
}

// Error is the application's text.
func (e *refusedOffer) Error() string { return e.said }

// Unwrap returns how it refuses.
func (e *refusedOffer) Unwrap() error { return e.how }

// refusalFor is the refusal for an error of OnOffer's function, or of ours. When the
// other call of a bridge is busy with an exchange of its own, the peer tries again
// later (RFC 3261 14.2).
func refusalFor(err error) *Refusal {
	var chosen *Refusal
	var other *ResponseError
	var unacceptable *sdp.Unacceptable
	switch {
	case errors.As(err, &chosen) && chosen != nil:
		return chosen
	case errors.As(err, &other) && other != nil:
		return other.Refusal()
	case errors.As(err, &unacceptable):
		return &Refusal{Status: sip.StatusNotAcceptableHere, Headers: warnings(unacceptable.Warnings)}
	case errors.Is(err, ErrPanic):
		return &Refusal{Status: sip.StatusInternalServerError}
	case errors.Is(err, ErrPending):
		return &Refusal{Status: sip.StatusRequestPending}
	case errors.Is(err, ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &Refusal{Status: sip.StatusGatewayTimeout}
	case errors.Is(err, sdp.ErrUnreadable):
		return &Refusal{Status: sip.StatusNotAcceptableHere, Headers: []Header{warning(399, "offer cannot be read")}}
	default:
		return &Refusal{Status: sip.StatusNotAcceptableHere}
	}
}

func warnings(list []sdp.Warning) []Header {
	var headers []Header
	for _, w := range list {
		headers = append(headers, warning(int(w), w.String()))
	}
	return headers
}

// warning is a Warning header of ours (RFC 3261 20.43).
func warning(code int, text string) Header {
	return Header{"Warning", sipheader.Warning(code, text)}
}

// refuseWith refuses the request that brought an offer. A 488 has a Warning (RFC 3261
// 14.2). A header that would break the response is left out, so that the response
// leaves.
func (s *Stack) refuseWith(tx serverTx, r *Refusal) { s.respond(tx, s.refusalResponse(tx, r)) }

// refusalResponse builds the response that refuses.
func (s *Stack) refusalResponse(tx serverTx, r *Refusal) *sip.Response {
	res := tx.NewResponse(r.status(), sipheader.OneLine(r.Reason))
	for _, h := range r.Headers {
		if err := checkResponseHeader(h); err != nil {
			s.logOf(tx).Error("header of a Refusal cannot be sent", "error", err)
			continue
		}
		appendHeaders(res, []Header{h})
	}
	if res.StatusCode == sip.StatusNotAcceptableHere && len(res.GetHeaders("Warning")) == 0 {
		appendHeaders(res, []Header{warning(399, "offer refused")})
	}
	return res
}
