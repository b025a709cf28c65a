package dialog

import (
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// The handling of received messages, with one short function for each method. The
// transaction layer calls these functions: for one Call-ID one at a time, in the order of
// arrival, with no lock held. They do not wait for the application.

// isKnownMethod reports whether a method is recognised, if not served (RFC 3261
// 21.5.2).
func isKnownMethod(method sip.RequestMethod) bool {
	switch method {
	case sip.INVITE, sip.ACK, sip.CANCEL, sip.BYE, sip.OPTIONS, sip.REFER, sip.NOTIFY, sip.INFO,
		sip.MESSAGE, sip.SUBSCRIBE, sip.REGISTER, sip.PUBLISH, sip.PRACK, sip.UPDATE:
		return true
	}
	return false
}

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

// inspect refuses a request for reasons that need no dialog (RFC 3261 8.2.2, 8.2.3).
func (s *Stack) inspect(tx serverTx, req *sipmsg.Message) *sip.Response {
	switch req.Scheme() {
	case "sip", "sips", "":
	default:
		return tx.NewResponse(sip.StatusRequestedRangeNotSatisfiable, "Unsupported URI Scheme")
	}
	if unknown := s.config.unsupported(sipheader.Listed(req, "Require")); len(unknown) > 0 {
		res := tx.NewResponse(sip.StatusBadExtension, "")
		res.AppendHeader(sip.NewHeader("Unsupported", strings.Join(unknown, ", ")))
		return res
	}
	if res := inspectReplaces(tx, req); res != nil {
		return res
	}
	if req.Method == sip.INVITE && !sipheader.HasTarget(req) {
		return tx.NewResponse(sip.StatusBadRequest, "Exactly one Contact required")
	}
	if req.Method == sip.INVITE && !sipheader.ReadsRoutes(req) {
		return tx.NewResponse(sip.StatusBadRequest, "Malformed Record-Route")
	}
	if req.Method != sip.INVITE && req.Method != sip.UPDATE {
		return nil
	}
	if res := s.inspectTimer(tx, req); res != nil {
		return res
	}
	if req.Method == sip.INVITE {
		if res := s.inspectReliable(tx, req); res != nil {
			return res
		}
	}
	if res := s.inspectBody(tx, req); res != nil {
		return res
	}
	return inspectAccept(tx, req)
}

// inspectBody checks the body of an INVITE or UPDATE (RFC 3261 8.2.3). An optional body
// is never refused: see bodyOf.
func (s *Stack) inspectBody(tx serverTx, req *sipmsg.Message) *sip.Response {
	wanted := s.wantedInstead(req)
	if wanted == nil || offeranswer.IsOptional(wholeBody(req)) {
		return nil
	}
	res := tx.NewResponse(sip.StatusUnsupportedMediaType, "")
	res.AppendHeader(wanted)
	return res
}

// wantedInstead returns the header that names an acceptable body, or nil when the body
// is acceptable.
func (s *Stack) wantedInstead(req *sipmsg.Message) sip.Header {
	if len(req.Body()) == 0 {
		return nil
	}
	if encoding := sipheader.Value(req, "Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return sip.NewHeader("Accept-Encoding", "identity")
	}
	if len(s.config.AcceptBodies) > 0 && !offeranswer.Accepts(s.config.AcceptBodies, wholeBody(req)) {
		return sip.NewHeader("Accept", strings.Join(s.config.AcceptBodies, ", "))
	}
	return nil
}

// bodiesOf returns a copy of the body of an INVITE or UPDATE, and the session
// description in it, if there is one. It returns nil for an optional body that we do
// not accept, which is ignored (RFC 3261 8.2.3).
func (s *Stack) bodiesOf(req *sipmsg.Message) (body, offer *SimpleBody) {
	if !s.takesBody(req) {
		return nil, nil
	}
	body = bodyOf(req)
	if multipart.IsMultipart(body.contentType) {
		return body, sessionIn(req)
	}
	if offeranswer.DescribesSession(wholeBody(req)) {
		offer = body
	}
	return body, offer
}

// hasOffer reports whether an INVITE or UPDATE has a session description that is not
// ignored.
func (s *Stack) hasOffer(req *sipmsg.Message) bool {
	if !s.takesBody(req) {
		return false
	}
	_, ok := offeranswer.SessionPart(wholeBody(req))
	return ok
}

func (s *Stack) takesBody(req *sipmsg.Message) bool {
	return len(req.Body()) > 0 && s.wantedInstead(req) == nil
}

// mediaType is a content type without its parameters.
func mediaType(contentType string) string { return sipmsg.Bare(contentType) }

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
	case s.belongsInDialog(req.Method):
		s.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
	default:
		s.notAllowed(tx, s.handlersNow())
	}
}

// belongsInDialog reports whether we serve a method inside calls only.
func (s *Stack) belongsInDialog(method sip.RequestMethod) bool {
	switch method {
	case sip.BYE, sip.INFO, sip.NOTIFY, sip.UPDATE:
		return true
	}
	return method == sip.PRACK && s.config.Reliable != ReliableOff
}

// notAllowed answers 405 to a known method and 501 to an unknown one (RFC 3261 8.2.1,
// 21.5.2). Allow does not list the method: REFER, for example, is served inside calls
// only (RFC 3261 21.4.6).
func (s *Stack) notAllowed(tx serverTx, served handlerMap) {
	method := tx.Message().Method
	code := sip.StatusMethodNotAllowed
	if !isKnownMethod(method) {
		code = sip.StatusNotImplemented
	}
	methods := slices.DeleteFunc(served.methods(s.config), func(m string) bool { return m == string(method) })
	s.answerWith(tx, code, sip.NewHeader("Allow", strings.Join(methods, ", ")))
}

// handleInvite handles a new call (RFC 3261 13.3.1).
func (s *Stack) handleInvite(tx serverTx, req *sipmsg.Message) {
	callback := s.callbacksNow().OnIncomingDialog
	if callback == nil {
		s.refuseNobody(tx)
		return
	}
	if !s.admission.admits(req.Source.Addr().Unmap()) {
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
	body, offer := s.bodiesOf(req)
	d.keepOfferLocked(body)
	state.negotiation.ReceiveOffer(tx, offer)
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
		s.allow(s.handlersNow()), sip.NewHeader("Accept", s.accept()),
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

func (s *Stack) accept() string {
	if len(s.config.AcceptBodies) > 0 {
		return strings.Join(s.config.AcceptBodies, ", ")
	}
	return typeSDP
}

// isBelowLimit reports whether one more call is within MaxDialogs.
func (s *Stack) isBelowLimit() bool {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	limit := s.config.maxDialogs()
	return s.readyLocked() == nil && (limit < 0 || len(s.dialogs) < limit)
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
	id, tag := sipheader.CallID(req), sipheader.ToTag(req)
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	for key := range s.subscribed {
		if key.CallID == id && key.LocalTag == tag {
			return true
		}
	}
	return false
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

// inspectAccept refuses an offer that could not be answered: Accept says which
// bodies the response may have, and an SDP answer is not among them (RFC 3261
// 20.1, 21.4.7). Without Accept it is.
func inspectAccept(tx serverTx, req *sipmsg.Message) *sip.Response {
	if !sipheader.Has(req, "Accept") || slices.ContainsFunc(sipheader.Listed(req, "Accept"), offeranswer.CoversSDP) || sdpIn(req) == nil {
		return nil
	}
	res := tx.NewResponse(sip.StatusNotAcceptable, "")
	WithWarning(399, "an answer in SDP is not accepted")(res)
	return res
}
