package dialog

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/capability"
	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Answer is the final response to a request; the zero value is 200 OK. An Answer that
// cannot be sent, with a status below 200, a line break in the reason, or a header that
// [Header] refuses, is logged and becomes 500.
type Answer struct {
	Status int
	Reason string
	// Headers are added. Contacts among them are sent unchanged: the bindings of a
	// REGISTER, the targets of a redirection. Without a Contact here a 2xx to REFER,
	// SUBSCRIBE or NOTIFY has ours.
	Headers []Header
	Body    Body
}

// RequestHandler answers a request. req is a copy. The handler has two seconds, after
// which ctx ends and the request gets 504 (RFC 4320 leaves no more time). A panic gives
// 500. [FlowFrom] returns the flow of the request from ctx.
type RequestHandler func(ctx context.Context, req *sip.Request) Answer

// CallRequestHandler is a RequestHandler for requests inside calls; call is the one that the
// request belongs to.
type CallRequestHandler func(ctx context.Context, call *Dialog, req *sip.Request) Answer

// inCall returns the handler for requests inside calls; nil for nil.
func (h RequestHandler) inCall() CallRequestHandler {
	if h == nil {
		return nil
	}
	return func(ctx context.Context, _ *Dialog, req *sip.Request) Answer { return h(ctx, req) }
}

// of returns the handler for requests inside that call, or outside calls for nil.
func (h CallRequestHandler) of(call *Dialog) RequestHandler {
	return func(ctx context.Context, req *sip.Request) Answer {
		if call != nil {
			ctx = call.values.Context(ctx)
		}
		return h(ctx, call, req)
	}
}

// decisionTime is the time limit of a RequestHandler.
const decisionTime = 2 * time.Second

// OnRequest sets the handler for requests of a method outside calls: OPTIONS, MESSAGE,
// NOTIFY, REFER, SUBSCRIBE, REGISTER, PUBLISH, or a method of the application. Nil
// restores the default response. Each request has its own goroutine.
//
// The handler also gets requests that have a To tag but are in no call of ours: a NOTIFY
// for a SUBSCRIBE that [Stack.Do] has sent, or a SUBSCRIBE that refreshes one that the
// handler has accepted (RFC 6665 4). It must answer 481 in a dialog that it does not
// know.
//
// Errors: ErrInvalidArgument (INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO: they
// belong to calls).
func (s *Stack) OnRequest(method string, handler RequestHandler) (err error) {
	defer naming("OnRequest", &err)
	m := capability.Named(method)
	if !sipmsg.IsToken(method) || capability.BelongsToCalls(m) || m == sip.INFO {
		return fmt.Errorf("%w: no handler for %q outside a call", ErrInvalidArgument, method)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.handlers = setHandler(s.handlers, m, handler.inCall())
	return nil
}

// OnRequest sets the handler for requests of a method inside this call: INFO, MESSAGE,
// OPTIONS, NOTIFY of other events than refer, or a method of the application. Nil
// restores the stack's ([Stack.OnCallRequest]), or else the default response. The
// requests of one call are handled one at a time, in the order of arrival.
//
// Errors: ErrInvalidArgument (INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, REFER: this
// package handles them itself).
func (d *Dialog) OnRequest(method string, handler RequestHandler) (err error) {
	defer naming("OnRequest", &err)
	m, err := methodInCall(method)
	if err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	c.requests = setHandler(c.requests, m, handler.inCall())
	return nil
}

// OnCallRequest sets the handler for requests of a method inside all calls that have none
// of their own; see [Dialog.OnRequest]. Its errors are the same.
func (s *Stack) OnCallRequest(method string, handler CallRequestHandler) (err error) {
	defer naming("OnCallRequest", &err)
	m, err := methodInCall(method)
	if err != nil {
		return err
	}
	s.setDefaults(func(c *callDefaults) { c.requests = setHandler(c.requests, m, handler) })
	return nil
}

// methodInCall returns the method of a handler for requests inside calls.
func methodInCall(method string) (sip.RequestMethod, error) {
	m := capability.Named(method)
	if !sipmsg.IsToken(method) || capability.BelongsToCalls(m) || m == sip.REFER {
		return "", fmt.Errorf("%w: no handler for %q inside a call", ErrInvalidArgument, method)
	}
	return m, nil
}

// handlerMap is never changed once it is in place: it is read without a lock.
type handlerMap map[sip.RequestMethod]CallRequestHandler

// or returns these handlers, and others for the methods that have none.
func (h handlerMap) or(others handlerMap) handlerMap {
	switch {
	case len(h) == 0:
		return others
	case len(others) == 0:
		return h
	}
	all := maps.Clone(others)
	maps.Copy(all, h)
	return all
}

func setHandler(old handlerMap, method sip.RequestMethod, handler CallRequestHandler) handlerMap {
	handlers := make(handlerMap, len(old)+1)
	for m, h := range old {
		handlers[m] = h
	}
	if handler == nil {
		delete(handlers, method)
	} else {
		handlers[method] = handler
	}
	return handlers
}

// allow is the Allow header (RFC 3261 20.5).
func (s *Stack) allow(h handlerMap) sip.Header {
	if len(h) == 0 && s != nil && s.allowHeader != nil {
		return s.allowHeader
	}
	return s.settings().allow(h)
}

func (c *StackConfig) allow(h handlerMap) sip.Header {
	return sip.NewHeader("Allow", strings.Join(c.methods(h), ", "))
}

// methods are those that are served anyhow, and those that have a handler.
func (c *StackConfig) methods(h handlerMap) []string {
	return c.rules().Methods(slices.Collect(maps.Keys(h))...)
}

// supported is the Supported header of nearly all our messages.
func (s *Stack) supported() sip.Header {
	if s != nil && s.supportedHeader != nil {
		return s.supportedHeader
	}
	return sip.NewHeader("Supported", s.settings().rules().Supported())
}

// settings are the stack's configuration, or an empty one whose accessors give the
// defaults.
func (s *Stack) settings() *StackConfig {
	if s == nil || s.config == nil {
		return &StackConfig{}
	}
	return s.config
}

func (s *Stack) handlersNow() handlerMap {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.handlers
}

func (d *Dialog) handlersNow() handlerMap {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.handlersLocked()
}

// handlersLocked are the call's handlers, and those of the stack for the other methods.
func (d *Dialog) handlersLocked() handlerMap {
	return d.callbacksLocked().requests.or(d.stack.defaultsNow().requests)
}

// decision is a request that the application answers, or the time limit.
type decision struct {
	// Set at construction.

	stack   *Stack
	tx      serverTx
	handler RequestHandler
	// reply sends the response that was decided.
	reply  func(a Answer)
	ctx    context.Context
	cancel context.CancelFunc
	expiry *deadline.Func

	// decided is true once the request is being answered.
	decided atomic.Bool
}

func (s *Stack) newDecision(tx serverTx, handler RequestHandler, reply func(a Answer)) *decision {
	q := &decision{stack: s, tx: tx, handler: handler, reply: reply}
	q.ctx, q.cancel = context.WithCancel(context.WithValue(s.base, flowKey{}, s.flowOf(tx.Flow())))
	q.expiry = s.timers().AfterFunc(decisionTime, func() { q.respond(Answer{Status: sip.StatusGatewayTimeout}) })
	s.decisions.Store(q, struct{}{})
	return q
}

// endDecisions answers the requests that the application has not decided when the stack
// ends.
func (s *Stack) endDecisions() {
	s.decisions.Range(func(q, _ any) bool {
		q.(*decision).answer(Answer{Status: sip.StatusServiceUnavailable})
		return true
	})
}

// answer sends the application's response, unless the time limit was reached.
func (q *decision) answer(a Answer) {
	q.expiry.Stop()
	q.respond(a)
}

// respond sends the first of several responses.
func (q *decision) respond(a Answer) {
	if !q.decided.CompareAndSwap(false, true) {
		return
	}
	defer q.cancel() // not before: Shutdown waits for the handler, and then closes what answers
	q.stack.decisions.Delete(q)
	if a.Status == 0 {
		a.Status = sip.StatusOK
	}
	q.reply(a.checked(q.stack.logOf(q.tx), 200))
}

// replyTo returns the function that sends an application's Answer to a request. contact
// returns our Contact, if the response needs one.
func (s *Stack) replyTo(tx serverTx, contact func(serverTx) sip.Header) func(a Answer) {
	return func(a Answer) { s.respond(tx, a.response(tx, contact)) }
}

// checked returns the answer, or 500 for one that cannot be sent.
func (a Answer) checked(log *slog.Logger, least int) Answer {
	err := firstError(validCode("Answer", a.Status, least, 699), checkText("reason", a.Reason),
		checkBody(a.Body), checkHeaders(a.Headers, a.Body, checkResponseHeader))
	if err == nil {
		return a
	}
	log.Error("response from the application cannot be sent", "error", err)
	return Answer{Status: sip.StatusInternalServerError}
}

// response is the answer as a message.
func (a Answer) response(tx serverTx, contact func(serverTx) sip.Header) *sip.Response {
	res := tx.NewResponse(a.Status, a.Reason)
	a.decorate(res, tx, contact)
	setBody(res, a.Body)
	return res
}

// decorate adds the headers of the Answer, its Contacts too, as in the response to a
// REGISTER or a redirection; without any it adds our Contact where the method needs it.
func (a Answer) decorate(res *sip.Response, tx serverTx, contact func(serverTx) sip.Header) {
	for _, h := range a.Headers {
		if isContactName(h.Name) {
			res.AppendHeader(sip.NewHeader("Contact", h.Value))
			continue
		}
		appendHeaders(res, []Header{h})
	}
	if res.IsSuccess() && capability.MakesDialog(tx.Message().Method) && sipheader.CountContacts(res) == 0 {
		res.AppendHeader(contact(tx))
	}
}

func (q *decision) log() *slog.Logger { return q.stack.logOf(q.tx) }

// run asks the application.
func (q *decision) run() {
	a := Answer{Status: sip.StatusInternalServerError}
	q.stack.guard(q.log, "request handler of "+string(q.tx.Message().Method), func() {
		decided := q.handler(q.ctx, ownRequest(q.tx.Message()))
		decided.Body = ownBody(decided.Body) // its methods are the application's too
		a = decided
	}, func() { q.answer(a) })
}

// handled gives a request outside any call to its handler, if there is one.
func (s *Stack) handled(tx serverTx, method sip.RequestMethod) bool {
	handler := s.handlersNow()[method]
	if handler == nil {
		return false
	}
	if s.ready() != nil {
		s.busy(tx, &s.counters.full)
		return true
	}
	q := s.newDecision(tx, handler.of(nil), s.replyTo(tx, s.contactTo))
	if !s.calls.Go(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
	return true
}

// handled gives a request inside the call to its handler, if there is one,
// behind those that came before.
func (d *Dialog) handled(tx serverTx, method sip.RequestMethod) bool {
	handler := d.handlersNow()[method]
	if handler == nil {
		return false
	}
	q := d.stack.newDecision(tx, handler.of(d), d.stack.replyTo(tx, d.contactTo))
	if !d.requestBox().Offer(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
	return true
}

// requestBox is the queue in which requests wait for their handlers.
func (d *Dialog) requestBox() *mailbox.Mailbox {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	if c.waiting == nil {
		c.waiting = &mailbox.Mailbox{Go: d.stack.goDeliver, Run: d.stack.runCallback}
	}
	return c.waiting
}
