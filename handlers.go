package dialog

import (
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/capability"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// The handling of received messages, with one short function for each method. The
// transaction layer calls these functions: for one Call-ID one at a time, in the order of
// arrival, with no lock held. They do not wait for the application.

// handleRequest handles a request that opens a transaction: never ACK or CANCEL.
func (s *Stack) handleRequest(tx serverTx) {
	defer s.recovered(tx)
	req := tx.Message()
	if res := s.inspect(tx, req); res != nil {
		s.respond(tx, res)
		return
	}
	if sipheader.ToTag(req) != "" {
		s.handleInDialog(tx, req)
		return
	}
	s.handleOutOfDialog(tx, req)
}

// recovered answers 500 after the panic of a handler.
func (s *Stack) recovered(tx serverTx) {
	if value := recover(); value != nil {
		s.logPanic(s.logOf(tx), "request handler", value, debug.Stack())
		s.respond(tx, tx.NewResponse(sip.StatusInternalServerError, ""))
	}
}

// respond sends a response, and only logs a failure.
func (s *Stack) respond(tx serverTx, res *sip.Response) {
	s.responded(tx, res.StatusCode, tx.Respond(res))
}

func (s *Stack) responded(tx serverTx, code int, err error) {
	if err != nil {
		s.logOf(tx).Debug("response could not be sent", "status", code, "error", err)
	}
}

func (s *Stack) answerWith(tx serverTx, code int, headers ...sip.Header) {
	s.responded(tx, code, tx.Answer(code, "", fieldsOf(headers)...))
}

// fieldsOf converts headers to the fields that are written.
func fieldsOf(headers []sip.Header) []sipmsg.Field {
	if len(headers) == 0 {
		return nil
	}
	fields := make([]sipmsg.Field, len(headers))
	for i, h := range headers {
		fields[i] = sipmsg.Field{Name: h.Name(), Value: h.Value()}
	}
	return fields
}

// rules say what this side understands.
func (c *StackConfig) rules() capability.Rules {
	return capability.Rules{
		NoReliable: c.Reliable == ReliableOff, NeedsReliable: c.Reliable == ReliableRequired,
		Join: c.AuthorizeJoin != nil, TargetDialog: c.TargetDialog, Bodies: c.AcceptBodies, Timer: c.sessionPolicy(),
	}
}

// rulesFor are the rules of an INVITE that begins a call.
func (c *StackConfig) rulesFor(opts InviteOpts) capability.Rules {
	rules := c.rules()
	rules.NoReliable = rules.NoReliable || opts.Unreliable && c.Reliable != ReliableRequired
	return rules
}

// inspect refuses a request for reasons that need no dialog.
func (s *Stack) inspect(tx serverTx, req *sipmsg.Message) *sip.Response {
	refusal := s.config.rules().Refuse(req)
	if refusal == nil {
		return nil
	}
	res := tx.NewResponse(refusal.Status, refusal.Reason)
	if refusal.Header != nil {
		res.AppendHeader(refusal.Header)
	}
	return res
}

// bodiesOf returns a copy of the body of an INVITE or UPDATE, and the session
// description in it, if there is one. It returns nil for an optional body that we do
// not accept, which is ignored (RFC 3261 8.2.3).
func (s *Stack) bodiesOf(req *sipmsg.Message) (body, offer *SimpleBody) {
	if !s.config.rules().TakesBody(req) {
		return nil, nil
	}
	return bodiesIn(req)
}

// handleOutOfDialog handles a request without a To tag.
func (s *Stack) handleOutOfDialog(tx serverTx, req *sipmsg.Message) {
	switch {
	case req.Method == sip.INVITE:
		s.handleInvite(tx, req)
	case req.Method == sip.OPTIONS && s.isDraining():
		s.busy(tx, &s.counters.draining)
	case s.handled(tx, req.Method):
	case req.Method == sip.OPTIONS:
		s.handleOptions(tx)
	case req.Method == sip.SUBSCRIBE && isReferEvent(req):
		// RFC 3515 2.4.4: nothing but a REFER makes such a subscription.
		s.answerWith(tx, sip.StatusForbidden)
	case req.Method == sip.SUBSCRIBE:
		s.answerWith(tx, sipStatusBadEvent, allowEvents())
	case s.config.rules().InsideOnly(req.Method):
		s.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
	default:
		s.notAllowed(tx, s.handlersNow())
	}
}

// notAllowed answers 405 to a known method and 501 to an unknown one (RFC 3261 8.2.1,
// 21.5.2). Allow does not list the method: REFER, for example, is served inside calls
// only (RFC 3261 21.4.6).
func (s *Stack) notAllowed(tx serverTx, served handlerMap) {
	method := tx.Message().Method
	code := sip.StatusMethodNotAllowed
	if !capability.IsKnown(method) {
		code = sip.StatusNotImplemented
	}
	methods := slices.DeleteFunc(s.config.methods(served), func(m string) bool { return m == string(method) })
	s.answerWith(tx, code, sip.NewHeader("Allow", strings.Join(methods, ", ")))
}

// handleInvite handles a new call (RFC 3261 13.3.1).
func (s *Stack) handleInvite(tx serverTx, req *sipmsg.Message) {
	callback := s.callbacksNow().OnIncomingDialog
	if callback == nil {
		s.refuseNobody(tx)
		return
	}
	if !s.admission.Admits(req.Source.Addr().Unmap(), time.Now()) {
		s.busy(tx, &s.counters.rate)
		return
	}
	takes, refusal := s.replacementOf(req)
	if refusal != 0 {
		s.answerWith(tx, refusal)
		return
	}
	d := s.newCallee(tx, req)
	d.incoming.replacement = takes
	if over := s.enter(d); over != nil {
		d.discard()
		s.busy(tx, over)
		return
	}
	s.counters.arrived.Add(1)
	d.logArrived()
	ask := s.config.authorizer(takes)
	if ask == nil {
		d.ring(tx)
	}
	d.watchCaller(tx)
	if !s.calls.Go(func() {
		if ask != nil {
			if !d.authorized(tx, takes, ask) {
				return
			}
			d.ring(tx)
		}
		d.offer(callback)
	}) {
		d.hangupUnanswered(&ending{cause: Cause{By: PartyShutdown}, status: sip.StatusServiceUnavailable})
	}
}

// enter registers a new call of the peer's. It returns the counter of the limit that the
// call is over, or nil.
func (s *Stack) enter(d *Dialog) (over *atomic.Uint64) {
	if !d.holdInvite() {
		return &s.counters.bytes
	}
	switch err := s.register(d); {
	case errors.Is(err, errDraining):
		return &s.counters.draining
	case errors.Is(err, errTooManyFromSource):
		return &s.counters.source
	case err != nil:
		return &s.counters.full
	}
	return nil
}

// discard lets go of what a call holds that was never registered: nobody knows of it, and
// it does not end.
func (d *Dialog) discard() {
	d.holds.End()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.dropFlowLocked()
}

// refuseNobody refuses a call when no OnIncomingDialog is registered.
func (s *Stack) refuseNobody(tx serverTx) {
	if code := s.unavailable(); code != sip.StatusServiceUnavailable {
		s.counters.nobody.Add(1)
		s.answerWith(tx, code)
		return
	}
	s.busy(tx, &s.counters.full)
}

// busy refuses a request that is beyond a limit, and counts it.
func (s *Stack) busy(tx serverTx, counter *atomic.Uint64) {
	counter.Add(1)
	if err := tx.Refuse(); err != nil {
		s.logOf(tx).Debug("response could not be sent", "status", sip.StatusServiceUnavailable, "error", err)
	}
}

// unavailable returns the status for a call when no OnIncomingDialog is registered.
func (s *Stack) unavailable() int {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if s.readyLocked() != nil || s.draining {
		return sip.StatusServiceUnavailable
	}
	return sip.StatusTemporarilyUnavailable
}

// newCallee makes the dialog of an INVITE that arrived (RFC 3261 12.1.1).
func (s *Stack) newCallee(tx serverTx, req *sipmsg.Message) *Dialog {
	d := &Dialog{
		stack: s, callID: sipheader.CallID(req), localTag: tx.ToTag(),
		phase: phaseIncoming, incoming: incoming{tx: tx},
		local: sipheader.PartyOf(req, "To"),
	}
	d.arrived = req.Keep()
	state := d.invitedStateLocked(req, tx.ToTag())
	d.setCurrentLocked(state)
	state.learnFlowLocked(req, tx.Flow())
	d.secure = req.Scheme() == "sips"
	if s.config.rules().TakesBody(req) {
		body, offer := bodiesKept(req)
		d.keepOfferLocked(body)
		state.negotiation.ReceiveOffer(tx, keptOrNil(offer))
	}
	state.learnPackagesLocked(req)
	return s.adopt(d)
}

// keptOrNil keeps a nil pointer from becoming a Body that is not nil.
func keptOrNil(body *SimpleBody) Body {
	if body == nil {
		return nil
	}
	return body
}

// offer runs OnIncomingDialog. When it panics or ends its goroutine, the caller gets
// 500.
func (d *Dialog) offer(callback func(IDialog)) {
	returned := false
	d.stack.guard(d.log, "OnIncomingDialog", func() { callback(d); returned = true }, func() {
		if !returned {
			d.hangupUnanswered(&ending{cause: Cause{By: PartyLocal, Method: "INVITE", Status: 500}, status: sip.StatusInternalServerError})
		}
	})
}

// handleOptions answers with the status that an INVITE would get (RFC 3261 11.2).
func (s *Stack) handleOptions(tx serverTx) {
	code, headers := sip.StatusOK, []sip.Header{
		s.allow(s.handlersNow()), sip.NewHeader("Accept", s.config.rules().Accept()),
		s.supported(),
	}
	switch {
	case s.callbacksNow().OnIncomingDialog == nil:
		code = s.unavailable()
	case !s.isBelowLimit():
		code = sip.StatusServiceUnavailable
	}
	if code == sip.StatusServiceUnavailable {
		headers = append(headers, sipheader.RetryAfter(busyRetrySeconds))
	}
	s.answerWith(tx, code, headers...)
}

// isBelowLimit reports whether one more call is within MaxDialogs.
func (s *Stack) isBelowLimit() bool {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.readyLocked() == nil && s.registry.HasRoom()
}

// handleInDialog handles a request with a To tag (RFC 3261 12.2.2).
func (s *Stack) handleInDialog(tx serverTx, req *sipmsg.Message) {
	key := keyOfRequest(req)
	d := s.find(key)
	if d == nil && req.Method == sip.NOTIFY {
		d = s.findByNotify(req)
	}
	if d != nil {
		d.handleRequest(tx, req)
		return
	}
	expected, ended := s.recentlyEnded(key)
	if !ended && s.takeOverInDialog(tx, req, key) {
		return
	}
	ack, acknowledges := rel100.RAckOf(req)
	switch {
	case req.Method == sip.BYE && ended:
		// The two BYEs crossed (RFC 5407 3.2.1).
		s.answerWith(tx, sip.StatusOK)
	case req.Method == sip.PRACK && acknowledges && ack == expected:
		// It crossed the final response (RFC 3262 3).
		s.answerWith(tx, sip.StatusOK)
	case !ended && !s.subscribes(req) && s.handled(tx, req.Method):
		// It is in a dialog of the application: of a SUBSCRIBE sent by Do, say, or
		// one that its handler has accepted (RFC 6665 4).
	default:
		tx.Dismiss(sip.StatusCallTransactionDoesNotExists)
	}
}

// subscribes reports whether a request belongs to a REFER of ours outside calls, which
// has its one dialog already: the dialog of a second fork is refused.
func (s *Stack) subscribes(req *sipmsg.Message) bool {
	if !isReferEvent(req) {
		return false
	}
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.registry.HasSubscribed(keyOfRequest(req))
}

// inCall reports whether a request belongs to a call that is here or ended lately. Such
// requests are accepted beyond the limit for others.
func (s *Stack) inCall(m *sipmsg.Message) bool {
	if m.ToTag == "" {
		return false
	}
	key := DialogKey{CallID: m.CallID, LocalTag: m.ToTag, RemoteTag: m.FromTag}
	_, ended := s.recentlyEnded(key)
	return ended || s.find(key) != nil
}

// handleAck handles the ACK to a 2xx. One that belongs to nothing is dropped.
func (s *Stack) handleAck(req *sipmsg.Message, flow *transport.Flow) {
	if d := s.find(keyOfRequest(req)); d != nil {
		d.handleAck(req, flow)
		return
	}
	s.takeOverByAck(req, flow)
}

// handleCancel handles the CANCEL of an INVITE, which has been answered 200.
func (s *Stack) handleCancel(tx serverTx, cancel *sipmsg.Message) {
	key := DialogKey{CallID: sipheader.CallID(cancel), LocalTag: tx.ToTag(), RemoteTag: sipheader.FromTag(cancel)}
	if d := s.find(key); d != nil {
		d.handleCancel(tx, cancel)
	}
}

// handleServerFailure handles the failure of a final response of ours.
func (s *Stack) handleServerFailure(tx serverTx, err error) {
	req := tx.Message()
	key := DialogKey{CallID: sipheader.CallID(req), LocalTag: tx.ToTag(), RemoteTag: sipheader.FromTag(req)}
	if d := s.find(key); d != nil {
		d.handleServerFailure(tx, err)
		return
	}
	if req.Method == sip.INVITE && sipheader.ToTag(req) == "" && errors.Is(err, txn.ErrTransport) {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.noteEndLocked(knowsNothing) // the refusal of a call that rang
	}
}

const (
	sipStatusBadEvent       = 489
	sipStatusBadInfoPackage = 469
)
