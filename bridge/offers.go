package bridge

import (
	"context"
	"errors"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
)

// errNoAnswer means that a peer has accepted an offer without an answer, which RFC 3264
// does not allow.
var errNoAnswer = errors.New("bridge: the other side has not answered the offer")

// decide passes an offer of the peer, or its request for an offer, to the other call. While
// an exchange is open there, the error is dialog.ErrPending, which becomes 491: both peers
// try again after the delays of RFC 3261 14.1, which differ: the caller has chosen the Call-ID of
// its call, and the callee has not. So we ourselves do not try again.
func (l *leg) decide(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	switch {
	case r.Status != 0:
		return l.offered(ctx, r)
	case r.Early && r.Method == "INVITE":
		return nil, nil // the callee has described no session
	case r.Offer == nil:
		return l.ask(ctx, r)
	case r.Early:
		return l.offeredEarly(ctx, r)
	}
	if answer, ok := l.unchanged(r.Offer); ok {
		return l.sends(answer), nil
	}
	answer, err := l.other.offer(ctx, r)
	if err != nil {
		return nil, err
	}
	l.agreed(r.Offer, answer)
	return l.sends(whole(answer)), nil
}

// offeredEarly passes an offer in an UPDATE or PRACK before the call is answered: between an
// early dialog of the callee's and the one that the caller has for it.
func (l *leg) offeredEarly(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	is := tagged(r.Fork)
	if l == &l.call.a {
		is = named(r.Fork)
	}
	fork := l.call.forks.find(is)
	if fork == nil {
		return nil, dialog.ErrPending
	}
	name := fork.name
	if l == &l.call.a {
		name = fork.tag
	}
	offer, headers := wholeOf(r)
	answer, err := answered(l.other.dialog().UpdateFork(dialog.WithoutRetry(ctx), name, offer, headers...))
	return whole(answer), err
}

// whole is the body that a session description is a part of, as it passes.
func whole(session dialog.Body) dialog.Body {
	if part, ok := session.(*dialog.SimpleBody); ok && part != nil {
		return part.Whole()
	}
	return session
}

// offer makes an offer to the peer: by the method that brought it, and before the answer
// of the call by UPDATE (RFC 3311 5.1). A peer that has no UPDATE gets a re-INVITE.
func (l *leg) offer(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	d := l.dialog()
	if d == nil {
		return nil, dialog.ErrPending
	}
	ctx = dialog.WithoutRetry(ctx)
	answer, err := dialog.Body(nil), error(nil)
	established := d.State() == dialog.DialogStateEstablished
	offer, headers := wholeOf(r)
	if established {
		offer = l.sends(offer)
	}
	if !established || r.Method != "INVITE" {
		answer, err = d.Update(ctx, offer, headers...)
		if !established || !isUnknownMethod(err) {
			return answered(answer, err)
		}
	}
	answer, err = d.Renegotiate(ctx, offer, headers...)
	return answered(answer, err)
}

// wholeOf is the offer in a request, with the other parts of its body, and the headers of that.
func wholeOf(r *dialog.OfferRequest) (dialog.Body, []dialog.Header) {
	var msg sip.Message
	if req := r.Request(); req != nil {
		msg = req
	} else if res := r.Response(); res != nil {
		msg = res
	}
	if msg != nil {
		if body := bodyOf(msg); body != nil && isType(body, "multipart/") {
			return body, bodyHeaders(msg)
		}
	}
	return r.Offer, nil
}

func answered(answer dialog.Body, err error) (dialog.Body, error) {
	if err == nil && answer == nil {
		err = errNoAnswer
	}
	return answer, err
}

func isUnknownMethod(err error) bool {
	var refused *dialog.ResponseError
	return errors.As(err, &refused) && (refused.StatusCode == sip.StatusMethodNotAllowed || refused.StatusCode == sip.StatusNotImplemented)
}

// ask relays a re-INVITE without an offer: our re-INVITE of the other call has none
// either, the offer in its 2xx becomes the offer of our 2xx, and the answer in the ACK to
// that goes into our ACK (RFC 3261 14.1).
func (l *leg) ask(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	d, given, ok := l.other.beginAsking(r)
	if !ok {
		return nil, dialog.ErrPending
	}
	until, cancel := context.WithCancelCause(dialog.WithoutRetry(context.Background()))
	done := make(chan error, 1)
	begun := l.call.bridge.background(func() { // ends with the transaction, once the offer has its answer
		defer cancel(nil)
		_, err := d.Renegotiate(until, nil)
		l.other.endAsking()
		done <- err
	})
	if !begun {
		cancel(nil)
		l.other.endAsking()
		return nil, dialog.ErrShutdown
	}
	select {
	case offer := <-given:
		return l.sends(offer), nil
	case err := <-done:
		if err == nil {
			err = errNoAnswer
		}
		return nil, err
	case <-ctx.Done():
		cancel(context.Cause(ctx)) // with the reasons of the peer's CANCEL
		return nil, ctx.Err()
	}
}

func (l *leg) beginAsking(r *dialog.OfferRequest) (d *dialog.Dialog, given <-chan dialog.Body, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked != nil || l.d == nil {
		return nil, nil, false
	}
	l.asked, l.given = r, make(chan dialog.Body, 1)
	return l.d, l.given, true
}

func (l *leg) endAsking() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked, l.given = nil, nil
}

// offered passes on an offer in a response to an INVITE of ours, and waits for the answer
// of the other peer, in its ACK or PRACK.
func (l *leg) offered(ctx context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	l.mu.Lock()
	asked, given := l.asked, l.given
	l.mu.Unlock()
	wait := l.call.a.dialog().PeerAnswer
	switch {
	case l.call.connecting.Load():
		return l.connectOffer(ctx, r)
	case asked != nil:
		offer, _ := wholeOf(r)
		given <- offer
		wait = asked.PeerAnswer
	case l != &l.call.b:
		return nil, dialog.ErrPending
	case r.Early:
		f := l.call.forks.of(r.Key.RemoteTag)
		offer, _ := wholeOf(r)
		if err := l.call.provisional(ctx, r.Response(), offer, f, true); err != nil {
			return nil, err
		}
		if f.name != "" {
			wait = func(ctx context.Context) (dialog.Body, error) { return l.call.In().ForkAnswer(ctx, f.name) }
		}
	default:
		if err := l.call.answer(ctx, r.Response()); err != nil {
			return nil, err
		}
	}
	answer, err := answered(wait(ctx))
	if err == nil && !r.Early {
		l.agreed(r.Offer, answer)
		answer = l.sends(answer)
	}
	return answer, err
}
