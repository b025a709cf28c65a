package dialog

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Answer is the final answer to a request; the zero value is 200 OK.
type Answer struct {
	Status  int
	Reason  string
	Headers []Header
	Body    Body
}

// RequestHandler answers a request. req is a copy. It has two seconds, after
// which ctx ends and the request is answered 504 (RFC 4320 leaves no more
// time); a panic is 500.
type RequestHandler func(ctx context.Context, req *sip.Request) Answer

// decisionTime is how long a RequestHandler has.
const decisionTime = 2 * time.Second

// OnRequest sets the handler for requests of a method that arrive outside any
// call: OPTIONS, MESSAGE, NOTIFY, REFER, SUBSCRIBE, REGISTER, PUBLISH, or a
// method of the application's own. Nil restores the default answer. Each call
// of it has a goroutine of its own.
//
// Errors: ErrInvalidArgument (INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO:
// they belong to calls).
func (s *Stack) OnRequest(method string, handler RequestHandler) error {
	m := sip.RequestMethod(strings.ToUpper(method))
	if m == "" || belongsToCalls(m) || m == sip.INFO {
		return fmt.Errorf("%w: no handler for %q outside a call", ErrInvalidArgument, method)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.handlers = setHandler(s.handlers, m, handler)
	return nil
}

// OnRequest sets the handler for requests of a method that arrive inside this
// call: INFO, MESSAGE, OPTIONS, NOTIFY of other events than refer, or a method
// of the application's own. Nil restores the default answer. The handlers of
// one call are called one at a time, in the order of arrival.
//
// Errors: ErrInvalidArgument (INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, REFER:
// they have ways of their own).
func (d *Dialog) OnRequest(method string, handler RequestHandler) error {
	m := sip.RequestMethod(strings.ToUpper(method))
	if m == "" || belongsToCalls(m) || m == sip.REFER {
		return fmt.Errorf("%w: no handler for %q inside a call", ErrInvalidArgument, method)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.handlers = setHandler(d.handlers, m, handler)
	return nil
}

// belongsToCalls are the methods this package answers itself.
func belongsToCalls(method sip.RequestMethod) bool {
	switch method {
	case sip.INVITE, sip.ACK, sip.CANCEL, sip.BYE, sip.PRACK, sip.UPDATE:
		return true
	}
	return false
}

// handlerMap is never changed once it is in place: it is read without a lock.
type handlerMap map[sip.RequestMethod]RequestHandler

func setHandler(old handlerMap, method sip.RequestMethod, handler RequestHandler) handlerMap {
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

// allow is the Allow header: what is served anyhow, and what has a handler.
func (h handlerMap) allow() sip.Header {
	methods := strings.Split(allowedMethods, ", ")
	var more []string
	for method := range h {
		if !slices.Contains(methods, string(method)) {
			more = append(more, string(method))
		}
	}
	slices.Sort(more)
	return sip.NewHeader("Allow", strings.Join(append(methods, more...), ", "))
}

func (s *Stack) handlersNow() handlerMap {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.handlers
}

func (d *Dialog) handlersNow() handlerMap {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.handlers
}

// decision is a request that an application answers, or the clock.
type decision struct {
	// Set at construction.

	stack   *Stack
	tx      serverTx
	handler RequestHandler
	ctx     context.Context
	cancel  context.CancelFunc
	expiry  *time.Timer

	// decided is true once somebody answers; it synchronises itself.
	decided atomic.Bool
}

func (s *Stack) newDecision(tx serverTx, handler RequestHandler) *decision {
	q := &decision{stack: s, tx: tx, handler: handler}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.expiry = time.AfterFunc(decisionTime, func() {
		s.tasks.Run(func() { q.respond(Answer{Status: sip.StatusGatewayTimeout}) })
	})
	return q
}

// answer responds, unless the time was over.
func (q *decision) answer(a Answer) {
	q.expiry.Stop()
	q.respond(a)
}

// respond sends the first answer there is.
func (q *decision) respond(a Answer) {
	if !q.decided.CompareAndSwap(false, true) {
		return
	}
	q.cancel()
	if a.Status == 0 {
		a.Status = sip.StatusOK
	}
	if a.Status < 200 || a.Status > 699 {
		a = Answer{Status: sip.StatusInternalServerError}
	}
	res := q.tx.NewResponse(a.Status, oneLine(a.Reason))
	appendHeaders(res, a.Headers)
	setBody(res, a.Body)
	q.stack.respond(q.tx, res)
}

// run asks the application.
func (q *decision) run() {
	a := Answer{Status: sip.StatusInternalServerError}
	defer func() {
		if value := recover(); value != nil {
			q.stack.logPanic("request handler of "+string(q.tx.Request().Method), value, debug.Stack())
		}
		q.answer(a)
	}()
	req := q.tx.Request().Clone()
	req.SetSource(q.tx.Request().Source())
	decided := q.handler(q.ctx, req)
	decided.Body = ownBody(decided.Body) // its methods are the application's too
	a = decided
}

// handled gives a request outside any call to its handler, if there is one.
func (s *Stack) handled(tx serverTx, method sip.RequestMethod) bool {
	handler := s.handlersNow()[method]
	if handler == nil {
		return false
	}
	q := s.newDecision(tx, handler)
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
	q := d.stack.newDecision(tx, handler)
	if !d.requests.Offer(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
	return true
}

// Do sends a request outside any call, from the stack's own socket and with its
// credentials, and waits for the final answer, whatever its status: REGISTER,
// OPTIONS, MESSAGE, SUBSCRIBE and the like. req is not changed. What it lacks
// is filled in: From, To, Call-ID, CSeq, User-Agent, and the route through the
// outbound proxy; a From or Contact without a host gets the address by which
// the peer reaches us. When ctx ends first its error is returned, and the
// request runs its course unheard.
//
// Errors: ErrInvalidArgument (a request that belongs to a call), ErrNotStarted,
// ErrShutdown, ErrTimeout, ErrTransport, ctx's.
func (s *Stack) Do(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	if ctx == nil {
		return nil, errNilContext("Do")
	}
	if req == nil || req.Recipient.Host == "" || belongsToCalls(req.Method) ||
		(req.CSeq() != nil && req.CSeq().MethodName != req.Method) {
		return nil, fmt.Errorf("%w: not a request for Do", ErrInvalidArgument)
	}
	room, err := s.transactions()
	if err != nil {
		return nil, err
	}
	own := s.complete(req)
	w := newWaiter()
	x := &exchange{
		room: room, life: s.life, timeout: s.config.txTimeout(), attempt: s.credentials.Begin(s.config.lookup()),
		opt:      txn.RequestOptions{NextHop: nextHop(own), Timeout: s.config.TxTimeout, Prepare: fillHosts},
		response: w.response, done: w.done, background: s.tasks.Go, ask: s.calls.Go,
	}
	seq := own.CSeq().SeqNo
	x.next = func(context.Context) (uint32, func(), error) { seq++; return seq, func() {}, nil }
	if err := x.send(ctx, own); err != nil {
		return nil, fmt.Errorf("dialog: %s: %w", req.Method, err)
	}
	return w.wait(ctx, string(req.Method))
}

// complete returns a copy of a request with the headers that it lacks.
func (s *Stack) complete(req *sip.Request) *sip.Request {
	own := req.Clone()
	if own.From() == nil {
		own.AppendHeader(s.caller(InviteOpts{}, "sip").from(TagGen()))
	} else if !own.From().Params.Has("tag") {
		own.From().Params.Add("tag", TagGen())
	}
	if own.To() == nil {
		to := *own.Recipient.Clone()
		to.Headers = nil
		own.AppendHeader(nameAddr{uri: to}.to(""))
	}
	if own.CallID() == nil {
		id := sip.CallIDHeader(randomHex(16))
		own.AppendHeader(&id)
	}
	if own.CSeq() == nil {
		own.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: own.Method})
	}
	if headerValue(own, "User-Agent") == "" {
		own.AppendHeader(sip.NewHeader("User-Agent", s.config.userAgent()))
	}
	if len(own.GetHeaders("Route")) == 0 {
		for _, route := range s.preloadedRoute(nil) {
			own.AppendHeader(&sip.RouteHeader{Address: route})
		}
	}
	return own
}

// nextHop is where a request outside a dialog goes (RFC 3261 8.1.2).
func nextHop(req *sip.Request) sip.Uri {
	if routes := req.GetHeaders("Route"); len(routes) > 0 {
		if route, ok := routes[0].(*sip.RouteHeader); ok {
			return *route.Address.Clone()
		}
	}
	return *req.Recipient.Clone()
}

// fillHosts gives From and Contact the address by which the peer reaches us.
func fillHosts(req *sip.Request, local transport.Local) {
	if from := req.From(); from != nil && from.Address.Host == "" {
		from.Address.Host = bracketed(local.Host)
	}
	for _, h := range req.GetHeaders("Contact") {
		if contact, ok := h.(*sip.ContactHeader); ok && contact.Address.Host == "" && !contact.Address.Wildcard {
			own := contactFor(contact.Address.User, local).Address
			own.UriParams = append(own.UriParams, contact.Address.UriParams...)
			contact.Address = own
		}
	}
}

// Do sends a request inside the call and waits for the final answer, whatever
// its status: INFO, MESSAGE, OPTIONS, SUBSCRIBE, or a method of the
// application's own. Of req only the method, the body and headers that a call
// does not set itself are used. What RFC 5057 says of a failure happens: a 481
// ends the call. When ctx ends first its error is returned, and the request
// runs its course unheard.
//
// Errors: ErrInvalidArgument (a method with a way of its own), *StateError (the
// call is not established), ErrPending, ErrTimeout, ErrTransport, ctx's.
func (d *Dialog) Do(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	if ctx == nil {
		return nil, errNilContext("Do")
	}
	if req == nil || req.Method == "" || belongsToCalls(req.Method) || req.Method == sip.REFER || req.Method == sip.NOTIFY {
		return nil, fmt.Errorf("%w: not a request for Do", ErrInvalidArgument)
	}
	w, err := d.sendRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	return w.wait(ctx, string(req.Method))
}

func (d *Dialog) sendRequest(ctx context.Context, from *sip.Request) (*waiter, error) {
	if err := d.lockInTurn(ctx, string(from.Method)); err != nil {
		return nil, err
	}
	defer d.turn.release()
	req := d.nextRequestLocked(from.Method)
	opt := d.optionsLocked()
	d.mutex.Unlock()
	for _, h := range from.Headers() {
		if mayAddHeader(h.Name()) {
			req.AppendHeader(sip.HeaderClone(h))
		}
	}
	req.SetBody(from.Body())

	w := newWaiter()
	x, err := d.exchange(opt, nil)
	if err == nil {
		x.response = func(res *sip.Response) {
			if res.StatusCode >= 300 {
				d.failed(from.Method, res.StatusCode, res.Reason)
			}
			w.response(res)
		}
		x.done = func(err error) {
			if err != nil {
				d.unanswered(from.Method, err)
			}
			w.done(err)
		}
		err = x.send(ctx, req)
	}
	if err != nil {
		return nil, fmt.Errorf("dialog: %s: %w", from.Method, err)
	}
	return w, nil
}

// SendInfo sends an INFO with a body and waits for its answer; see Do. An answer
// of 300 or more is a *ResponseError.
func (d *Dialog) SendInfo(ctx context.Context, body Body, headers ...Header) error {
	return d.sendBody(ctx, sip.INFO, body, headers)
}

// SendMessage sends a MESSAGE with a body and waits for its answer; see Do. An
// answer of 300 or more is a *ResponseError.
func (d *Dialog) SendMessage(ctx context.Context, body Body, headers ...Header) error {
	return d.sendBody(ctx, sip.MESSAGE, body, headers)
}

func (d *Dialog) sendBody(ctx context.Context, method sip.RequestMethod, body Body, headers []Header) error {
	req := sip.NewRequest(method, sip.Uri{})
	appendHeaders(req, headers)
	setBody(req, body)
	res, err := d.Do(ctx, req)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return newResponseError(method, res)
	}
	return nil
}

// waiter waits for the final answer to a request.
type waiter struct {
	final chan outcome
}

type outcome struct {
	res *sip.Response
	err error
}

func newWaiter() *waiter { return &waiter{final: make(chan outcome, 1)} }

func (w *waiter) response(res *sip.Response) {
	if !res.IsProvisional() {
		w.tell(outcome{res: res})
	}
}

// done follows a final response, or takes its place.
func (w *waiter) done(err error) {
	if err != nil {
		w.tell(outcome{err: callError(err)})
	}
}

// tell keeps the first outcome.
func (w *waiter) tell(o outcome) {
	select {
	case w.final <- o:
	default:
	}
}

func (w *waiter) wait(ctx context.Context, method string) (*sip.Response, error) {
	select {
	case o := <-w.final:
		if o.err != nil {
			return nil, fmt.Errorf("dialog: %s: %w", method, o.err)
		}
		return o.res, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
