package dialog

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sipmsg"
)

// maxRetries bounds how often a re-INVITE is sent again after a 500 or 503 with Retry-After.
const maxRetries = 3

// Renegotiate is ReInvite that also returns the peer's session description: the one in
// the 2xx, or in the reliable provisional response before it; nil if there is none. If
// offer is nil, the result is the peer's offer, which OnOffer's function has answered. If ctx
// ends before the final response, CANCEL is sent, with the reasons of its cause (see
// [ReasonError]).
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
		re.cancel(reasonHeaders("", reasonsFor(context.Cause(ctx))))
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

// SessionState tells which side's offer has no answer yet (RFC 3264 4).
type SessionState int

const (
	// SessionStable: no offer is open.
	SessionStable SessionState = SessionState(offeranswer.Stable)
	// SessionHaveLocalOffer: the peer has not answered ours.
	SessionHaveLocalOffer SessionState = SessionState(offeranswer.HaveLocalOffer)
	// SessionHaveRemoteOffer: we have not answered the peer's.
	SessionHaveRemoteOffer SessionState = SessionState(offeranswer.HaveRemoteOffer)
)

// String returns the name of the state (RFC 8829 4.1.8): "stable", "have-local-offer",
// "have-remote-offer".
func (s SessionState) String() string { return offeranswer.State(s).String() }

// Session is what offer and answer have agreed upon (RFC 3264). It is not changed by an offer
// that is open, or that was refused (RFC 3261 14.1, 14.2).
type Session struct {
	// Local is our SDP as the peer knows it, Remote the peer's that goes with it: of a
	// multipart body the part that is SDP (RFC 5621). Each is nil if there is none, and
	// Remote if Limits.CallBytes has left no room for it. Their Data is the call's own, and
	// must not be changed.
	Local, Remote Body
	// OfferedBy is who has made the offer of the two: PartyLocal or PartyRemote; PartyNone
	// before there is a session.
	OfferedBy Party
	// State tells whose offer is open now.
	State SessionState
}

// Session returns the session that stands. It may be called in any state, and never blocks:
// after the end it is the last one. While several early dialogs ring, it is that of the one
// to which Update sends (RFC 3261 12.1.2); the session of the one that answers follows.
// A call that was restored has the session of its snapshot.
func (d *Dialog) Session() Session {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().sessionLocked()
}

func (s *dialogState) sessionLocked() Session {
	n := &s.negotiation
	now := Session{Local: n.Local(), Remote: n.Remote(), State: SessionState(n.State())}
	switch {
	case n.OfferedByPeer():
		now.OfferedBy = PartyRemote
	case now.Local != nil:
		now.OfferedBy = PartyLocal
	}
	return now
}

// SessionChange is the end of an exchange of offer and answer, with the session that stands
// after it.
type SessionChange struct {
	Session
	// Key identifies the early dialog, or the call.
	Key DialogKey
	// By is who has sent the message that ended the exchange: PartyLocal or PartyRemote. It is
	// PartyNone if none came: our offer was not answered in time.
	By Party
	// Method is the method of that message, or of the request that it responds to; Status is
	// its status, zero for a request. A status of 300 or more has refused the offer.
	Method string
	Status int

	message *sipmsg.Message
}

// Request returns a copy of the message if it is a request of the peer, else nil.
func (c *SessionChange) Request() *sip.Request {
	if c.message == nil || !c.message.IsRequest() {
		return nil
	}
	return ownRequest(c.message)
}

// Response returns a copy of the message if it is a response of the peer, else nil.
func (c *SessionChange) Response() *sip.Response {
	if c.message == nil {
		return nil
	}
	res, _ := ownMessage(c.message).(*sip.Response)
	return res
}

// OnSession registers a callback for later changes of the session: it is called once for each
// exchange of offer and answer that ends, with an answer, in whichever message that is
// (RFC 6337 2.2), or refused, when the session stays as it was. It is called as well when an
// early dialog with another session becomes the call.
//
// The callback does not get the session at its registration: call [Dialog.Session] after the
// registration, so that no change is missed. It runs in the order of the changes, one at a
// time with those of OnStateChange and OnBody, with no lock held, and not after Terminated.
// Changes that a callback is too slow for are dropped, and counted, where Limits.CallBytes
// has no room for their messages. A nil callback is ignored. OnSession never blocks.
func (d *Dialog) OnSession(callback func(SessionChange)) {
	if callback == nil {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	if c.session == nil {
		c.session = &sessionWatchers{told: d.exchangesLocked()}
	}
	c.session.callbacks = append(c.session.callbacks, callback)
}

// sessionWatchers are the callbacks of OnSession, and what was reported to them last.
type sessionWatchers struct {
	callbacks []func(SessionChange)
	told      exchanges
}

// exchanges are those that have ended in one dialog.
type exchanges struct {
	in    *dialogState
	ended uint32
}

func (d *Dialog) exchangesLocked() exchanges {
	s := d.currentLocked()
	return exchanges{s, s.negotiation.Closed()}
}

// sessionMessage is the message that ends an exchange: of the peer, or, without the message
// itself, of ours. The zero value is none.
type sessionMessage struct {
	method  sip.RequestMethod
	status  int
	message *sipmsg.Message
}

func sentBy(method sip.RequestMethod, status int) sessionMessage {
	return sessionMessage{method: method, status: status}
}

// receivedAs is a message of the peer, or none for nil; method is that of its request.
func receivedAs(method sip.RequestMethod, msg *sipmsg.Message) sessionMessage {
	if msg == nil {
		return sessionMessage{}
	}
	m := sessionMessage{method: method, message: msg}
	if !msg.IsRequest() {
		m.status = msg.Status
	}
	return m
}

func (m sessionMessage) sender() Party {
	switch {
	case m.message != nil:
		return PartyRemote
	case m.method != "":
		return PartyLocal
	}
	return PartyNone
}

// The exchanges of offer and answer end by the following three alone.

// takeAnswerLocked is the peer's answer to the owner's offer.
func (s *dialogState) takeAnswerLocked(owner any, answer *SimpleBody, in sessionMessage) {
	before := s.negotiation.Remote()
	s.negotiation.ReceiveAnswer(owner, keptOrNil(answer))
	s.exchangedLocked(before, in)
}

// giveAnswerLocked is our answer to the peer's offer.
func (s *dialogState) giveAnswerLocked(owner any, answer Body, made offeranswer.Origin, in sessionMessage) {
	before := s.negotiation.Remote()
	s.negotiation.SendAnswer(owner, answer, made)
	s.exchangedLocked(before, in)
}

// rollbackLocked ends an offer without an answer.
func (s *dialogState) rollbackLocked(owner any, by sessionMessage) {
	s.negotiation.Rollback(owner)
	s.d.tellSessionLocked(by)
}

func (s *dialogState) exchangedLocked(before Body, in sessionMessage) {
	if s.negotiation.Remote() != before {
		s.countRemoteLocked(before)
		s.d.changedIfKeptLocked()
	}
	s.d.tellSessionLocked(in)
}

// countRemoteLocked counts the peer's session description instead of the one before, or
// forgets it where there is no room.
func (s *dialogState) countRemoteLocked(before Body) {
	if !s.d.holds.Replace(s.d.bytesOf(before), s.d.bytesOf(s.negotiation.Remote()), 0) {
		s.negotiation.ForgetRemote()
		s.d.stack.counters.bodies.Add(1)
	}
}

// tellSessionLocked reports an exchange that has ended in the current dialog, or that another
// dialog is the current one now.
func (d *Dialog) tellSessionLocked(by sessionMessage) {
	if d.callbacks == nil || d.callbacks.session == nil {
		return
	}
	w, now := d.callbacks.session, d.exchangesLocked()
	if now == w.told || now.ended == 0 || d.state == DialogStateTerminated {
		return
	}
	w.told = now
	change := SessionChange{
		Session: now.in.sessionLocked(), Key: d.keyLocked(),
		By: by.sender(), Method: string(by.method), Status: by.status, message: by.message,
	}
	d.deliverSessionLocked(w.callbacks, change)
}

func (d *Dialog) deliverSessionLocked(callbacks []func(SessionChange), change SessionChange) {
	size := sizeOfBody(change.Local) + sizeOfBody(change.Remote)
	if change.message != nil {
		size += change.message.Weight()
	}
	if !offerCallsLocked(d, size, callbacks, change) {
		d.stack.counters.bodies.Add(1)
	}
}
