package dialog

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
)

// decisionContext bounds a decision of the application's by the ringing limit.
func (d *Dialog) decisionContext() (context.Context, context.CancelFunc) {
	if limit := d.config().ringingLimit(); limit > 0 {
		return context.WithTimeout(context.Background(), limit)
	}
	return context.WithCancel(context.Background())
}

// offered is an offer of the peer's that the application decides, and what is done
// then: of accept and refuse the first call counts.
type offered struct {
	offer   *SimpleBody
	handler OfferHandler
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
	answer, err = d.consult(ctx, o.handler, o.offer)
}

// tooLate refuses an offer that the application has not decided in time.
func tooLate() *Refusal { return &Refusal{Status: sip.StatusGatewayTimeout} }

// tooSoon asks the peer to wait for the answer to what it has sent before (RFC
// 3261 14.2, RFC 3311 5.2).
func tooSoon(tx serverTx) *sip.Response {
	res := tx.NewResponse(sip.StatusInternalServerError, "")
	res.AppendHeader(retryAfter(rand.IntN(11)))
	return res
}

// consult calls the handler.
func (d *Dialog) consult(ctx context.Context, handler OfferHandler, offer *SimpleBody) (answer Body, err error) {
	if offer == nil {
		offer = &SimpleBody{}
	}
	return d.guarded("OnOffer", func() (Body, error) {
		answer, err := handler(ctx, offer)
		if err != nil {
			return nil, &refusedOffer{how: refusalFor(err), said: err.Error()}
		}
		return answer, nil
	})
}

// guarded calls a function of the application's that makes a body; a panic, or
// Goexit, is ErrPanic. The body is this package's own.
func (d *Dialog) guarded(name string, decide func() (Body, error)) (made Body, err error) {
	own, refusal := Body(nil), error(ErrPanic)
	d.stack.guard(d.log, name, func() {
		decided, err := decide()
		own = ownBody(decided)
		refusal = err
	}, nil)
	if err := checkBody(own); err != nil {
		d.log().Error("body of the application's cannot be sent", "from", name, "error", err)
		return nil, err
	}
	return own, refusal
}

// abortOffers ends the re-INVITEs and UPDATEs that are open when the call ends:
// the peer's are answered (RFC 3261 15.1.2), our re-INVITE is cancelled, lest it
// waits for an answer for ever.
func (d *Dialog) abortOffers() {
	d.mutex.Lock()
	in, out, update := d.reinviteIn, d.reinviteOut, d.currentLocked().updateIn
	early := func() {}
	if d.invite != nil {
		early = d.invite.refuseOpenLocked()
	}
	d.mutex.Unlock()
	early()
	if in != nil {
		d.refuseReInvite(in, &Refusal{Status: sip.StatusRequestTerminated})
	}
	if out != nil {
		out.cancel()
	}
	if update != nil {
		d.refuseUpdate(update, &Refusal{Status: sip.StatusCallTransactionDoesNotExists})
	}
}

// answerLate gets the answer to an offer in a 2xx, for the ACK, or in a reliable
// provisional response, for the PRACK, which is the carrier; it is not wanted any more when unwanted is
// closed. When the application refuses, falls over or takes too long, there is none,
// and the call has to end (RFC 3261 13.2.2.4).
func (d *Dialog) answerLate(carrier sip.RequestMethod, handler OfferHandler, offer *SimpleBody, unwanted <-chan struct{}) (Body, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 48*d.config().timers().T1)
	defer cancel()
	answer, err := d.await(ctx, unwanted, func() (Body, error) { return d.consult(ctx, handler, offer) })
	if err != nil || isNilBody(answer) {
		d.logRefused(carrier, sip.StatusNotAcceptableHere)
	} else {
		d.logAccepted(carrier, offeranswer.ByApplication)
	}
	return answer, err
}

// decideLate is answerLate with the refusal where there is no answer: port 0 in
// every line.
func (d *Dialog) decideLate(carrier sip.RequestMethod, handler OfferHandler, offer *SimpleBody, unwanted <-chan struct{}) (Body, offeranswer.Origin, error) {
	answer, err := d.answerLate(carrier, handler, offer, unwanted)
	if err == nil && !isNilBody(answer) {
		return answer, offeranswer.ByApplication, nil
	}
	return d.refusal(offer), offeranswer.ByDefault, err
}

// await has the application decide on a goroutine of its own, and waits until ctx
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

// hangsUp returns what is closed when a hang-up begins.
func (d *Dialog) hangsUp() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.events.hungUp.OpenIf(d.ending != nil).C()
}
