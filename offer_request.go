package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// OfferRequest is an offer of the peer that the application answers, or the peer's request
// for an offer of ours, with the message that carries it.
type OfferRequest struct {
	// Dialog is the call; Key identifies the early dialog in it that the message belongs
	// to.
	Dialog *Dialog
	Key    DialogKey
	// Fork is that early dialog as UpdateFork names it: the name of WithFork for an incoming
	// call, the peer's tag for an outgoing one. It is empty for the early dialog of the
	// automatic 180, and once the call is established.
	Fork string
	// Method is the method of the request that carries the offer: INVITE, UPDATE or PRACK.
	// For an offer in a response to an INVITE of ours it is INVITE, and Status is the
	// status of that response. Status is zero for a request.
	Method string
	Status int
	// Offer is the offer: the body, or the part of it that is SDP (RFC 5621). Nil means
	// that the peer asks for our offer, which the 2xx carries, or a reliable provisional
	// response (RFC 3261 13.2.1, RFC 3262 5): the result is that offer, and PeerAnswer
	// returns the peer's answer.
	Offer Body
	// Early is true before the call is established. An early INVITE is the one that
	// began the call.
	Early bool
	// Reliable is true if provisional responses that are sent reliably carry offer or
	// answer: the peer's response has the offer, or the offer is in a PRACK.
	Reliable bool

	message *sipmsg.Message
	answer  *peerAnswer
}

// OfferRequestHandler decides an offer of the peer: it returns the answer, or our offer
// if the peer asks for one, or an error to refuse. ctx ends when the result is no longer
// needed; its deadline is the time limit that [Dialog.OnOffer] lists, and for the INVITE
// that began the call the ringing limit.
type OfferRequestHandler func(ctx context.Context, r *OfferRequest) (Body, error)

// Request returns a copy of the request that carries the offer; nil for a response.
func (r *OfferRequest) Request() *sip.Request {
	if r.message == nil {
		return nil
	}
	return ownRequest(r.message)
}

// Response returns a copy of the response that carries the offer; nil for a request.
func (r *OfferRequest) Response() *sip.Response {
	if r.message == nil {
		return nil
	}
	res, _ := ownMessage(r.message).(*sip.Response)
	return res
}

// PeerAnswer waits for the peer's answer to the offer that the handler has returned: in
// the ACK, or in the PRACK (RFC 3261 13.2.2.4, RFC 3262 5). The handler must have
// returned: call it from another goroutine. The result is nil if the peer has sent no
// answer.
//
// Errors: ErrInvalidArgument (the peer has not asked for an offer), ErrTerminated,
// ErrCanceled (the offer was not sent), that of ctx.
func (r *OfferRequest) PeerAnswer(ctx context.Context) (answer Body, err error) {
	defer naming("PeerAnswer", &err)
	switch {
	case ctx == nil:
		return nil, errNilContext("PeerAnswer")
	case r.answer == nil:
		return nil, invalid("the peer has not asked for an offer")
	}
	return r.Dialog.waitPeerAnswer(ctx, r.answer)
}

// OnOfferRequest is OnOffer whose function learns which message carries the offer, and is
// called for the INVITE that began the call as well: Accept without a body calls it for
// the body of the 200, on a goroutine of its own, if provisional responses have not
// established a session before. If it refuses, the call is refused in the same way, and
// Accept returns the refusal. It replaces the function of OnOffer, and OnOffer replaces
// it. Nil restores the stack's ([Stack.OnOfferRequest]), or else the default answers.
func (d *Dialog) OnOfferRequest(handler OfferRequestHandler) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.registerLocked().offer = offerDecider{decide: handler, first: true}
}

// OnOfferRequest sets the function that decides the offers of all calls that have none of
// their own; see [Dialog.OnOfferRequest]. OfferRequest.Dialog is the call.
func (s *Stack) OnOfferRequest(handler OfferRequestHandler) {
	s.setDefaults(func(c *callDefaults) { c.offer = offerDecider{decide: handler, first: true} })
}

// offerDecider is the function of OnOffer or OnOfferRequest; first is true if it decides
// the INVITE that began the call, too.
type offerDecider struct {
	decide OfferRequestHandler
	first  bool
}

// offerDeciderLocked returns the function that decides offers; without one its decide is
// nil.
func (d *Dialog) offerDeciderLocked() offerDecider {
	if own := d.callbacksLocked().offer; own.decide != nil {
		return own
	}
	return d.stack.defaultsNow().offer
}

// offerRequestLocked describes an offer, or, without one, a request for ours.
func (s *dialogState) offerRequestLocked(method sip.RequestMethod, msg *sipmsg.Message, offer *SimpleBody) *OfferRequest {
	d := s.d
	r := &OfferRequest{
		Dialog: d, Method: string(method), Offer: keptOrNil(offer), message: msg,
		Key:      DialogKey{CallID: d.callID, LocalTag: s.LocalTag(), RemoteTag: s.RemoteTag()},
		Early:    d.state != DialogStateEstablished && d.phase != phaseAwaitingACK && d.phase != phaseConfirmed,
		Reliable: method == sip.PRACK,
	}
	if r.Early {
		r.Fork = s.forkNameLocked()
	}
	if msg != nil && !msg.IsRequest() {
		r.Status, r.Reliable = msg.Status, msg.IsProvisional()
	}
	if r.Offer == nil {
		s.awaitedLocked().closeLocked(nil, ErrCanceled)
		r.answer = s.awaitLocked()
	}
	return r
}

// forkNameLocked is the name of an early dialog in UpdateFork.
func (s *dialogState) forkNameLocked() string {
	if s.d.isUAC {
		return s.RemoteTag()
	}
	if p := s.d.incoming.provisionals; p != nil {
		return p.forks.Name(p.forks.Tagged(s.LocalTag()))
	}
	return ""
}

// peerAnswer is the peer's answer to an offer of ours in a response. The dialog's mutex
// guards it.
type peerAnswer struct {
	known latch.Latch
	done  bool
	body  Body
	err   error
}

// offeredLocked records that an offer of ours, the owner's, leaves in a response, or that
// the response has none.
func (s *dialogState) offeredLocked(owner any) {
	switch {
	case !s.negotiation.IsOpen(owner):
		s.awaitedLocked().closeLocked(nil, ErrCanceled)
	case s.awaitedLocked() == nil || s.awaitedLocked().done:
		s.awaitLocked()
	}
}

// awaitedLocked is the peer's answer to the latest offer of ours in a response; nil if
// there was none. Few calls have one, and a state has no room for it.
func (s *dialogState) awaitedLocked() *peerAnswer {
	if p := s.d.incoming.provisionals; p != nil {
		return p.awaited[s]
	}
	return nil
}

func (s *dialogState) awaitLocked() *peerAnswer {
	p, a := s.d.provisionalsLocked(), new(peerAnswer)
	if p.awaited == nil {
		p.awaited = make(map[*dialogState]*peerAnswer)
	}
	p.awaited[s] = a
	return a
}

// answeredLocked records the peer's answer to the offer in a response; nil if there is
// none.
func (s *dialogState) answeredLocked(answer *SimpleBody) {
	s.awaitedLocked().closeLocked(keptOrNil(answer), nil)
}

func (a *peerAnswer) closeLocked(answer Body, err error) {
	if a == nil || a.done {
		return
	}
	a.done, a.body, a.err = true, answer, err
	a.known.Open()
}

// PeerAnswer waits for the peer's answer to the latest offer of ours in a response: that
// of Accept or Provisional to an INVITE without an offer, or to a re-INVITE without one.
// The answer is in the ACK, or in the PRACK (RFC 3261 13.2.2.4, RFC 3262 5). It returns
// at once if the answer has come. The result is nil if the peer has sent no answer.
//
// Errors: *StateError (no response has had an offer), ErrTerminated, that of ctx.
func (d *Dialog) PeerAnswer(ctx context.Context) (answer Body, err error) {
	defer naming("PeerAnswer", &err)
	return d.peerAnswerIn(ctx, "")
}

// ForkAnswer is PeerAnswer for an offer of ours in the early dialog that [WithFork] names
// id.
func (d *Dialog) ForkAnswer(ctx context.Context, id string) (answer Body, err error) {
	defer naming("ForkAnswer", &err)
	return d.peerAnswerIn(ctx, id)
}

func (d *Dialog) peerAnswerIn(ctx context.Context, fork string) (Body, error) {
	if ctx == nil {
		return nil, errNilContext("PeerAnswer")
	}
	d.mutex.RLock()
	awaited, state := d.forkStateLocked(fork).awaitedLocked(), d.state
	d.mutex.RUnlock()
	if awaited == nil {
		return nil, &StateError{Op: "PeerAnswer", State: state, Need: "a local offer in a response"}
	}
	return d.waitPeerAnswer(ctx, awaited)
}

// forkStateLocked returns the state of the early dialog of that name, else the current one.
func (d *Dialog) forkStateLocked(id string) *dialogState {
	if p := d.incoming.provisionals; p != nil {
		return d.stateOfLocked(p.forks.Find(id))
	}
	return d.currentLocked()
}

func (d *Dialog) waitPeerAnswer(ctx context.Context, a *peerAnswer) (Body, error) {
	d.mutex.Lock()
	known := a.known.C()
	d.mutex.Unlock()
	select {
	case <-known:
	case <-d.Done():
	case <-ctx.Done():
	}
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	switch {
	case a.done:
		return a.body, a.err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, ErrTerminated
}

// firstOffer is the decision about the session of the INVITE that began a call.
type firstOffer struct {
	decider OfferRequestHandler
	request *OfferRequest
}

// firstOfferLocked returns the decision that Accept needs: none if no function decides
// it, or if the session stands.
func (d *Dialog) firstOfferLocked(tx serverTx, s *dialogState) (first firstOffer, ok bool) {
	decider := d.offerDeciderLocked()
	if !decider.first || decider.decide == nil || s.negotiation.Agreed() || s.negotiation.State() == offeranswer.HaveLocalOffer {
		return firstOffer{}, false
	}
	_, offer := d.stack.bodiesOf(tx.Message())
	return firstOffer{decider.decide, s.offerRequestLocked(sip.INVITE, tx.Message(), offer)}, true
}

// answerFirst gets the session for the 200 of Accept from the application, if res has
// none. A refusal refuses the call.
func (d *Dialog) answerFirst(ctx context.Context, tx serverTx, res *sip.Response, e *earlyDialog) error {
	if hasSession(res) {
		return nil
	}
	d.mutex.Lock()
	first, ok := d.firstOfferLocked(tx, d.stateOfLocked(e))
	limit := d.ringsUntilLocked()
	d.mutex.Unlock()
	if !ok {
		return nil
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	body, err := d.await(ctx, nil, func() (Body, error) { return d.consult(ctx, first.decider, first.request) })
	switch {
	case err == nil:
		setBody(res, body)
		sipheader.SetLength(res)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return d.refuseFirst(tx, err)
}

// ringsUntilLocked returns a function that bounds a context by the ringing limit.
func (d *Dialog) ringsUntilLocked() func(context.Context) (context.Context, context.CancelFunc) {
	limit := d.config().ringingLimit()
	if limit <= 0 {
		return context.WithCancel
	}
	until := d.stack.birth().Add(d.entered[DialogStateRinging]).Add(limit)
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithDeadline(ctx, until)
	}
}

// refuseFirst refuses a call whose offer the application has refused with why.
func (d *Dialog) refuseFirst(tx serverTx, why error) error {
	if !d.claim() { // the call has ended, or was answered, meanwhile
		return ErrAnswered
	}
	how := refusalFor(why)
	res := d.stack.refusalResponse(tx, how)
	d.logRefused(sip.INVITE, how.status())
	_, _ = d.reject(tx, res, Cause{By: PartyLocal, Method: "INVITE", Status: res.StatusCode, Reason: how.Reason, Reasons: ReasonsOf(res)})
	return why
}
