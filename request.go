package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/contact"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/outgoing"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
	"sipdialog.example/dialog/internal/wellformed"
)

// Do sends a request outside calls, from the stack's own socket and with its
// credentials, and waits for the final response of any status: REGISTER, OPTIONS,
// MESSAGE, SUBSCRIBE and the like. req is not changed. Missing headers are added: From,
// To, Call-ID, CSeq, User-Agent, the Contact of a SUBSCRIBE, NOTIFY or REFER, and the
// route through the outbound proxy. A From or Contact without a host gets the address
// at which the peer reaches us. To is the Request-URI; in a REGISTER it is the address
// of record, the same as From (RFC 3261 10.2). If ctx ends first, its error is returned,
// and the response is not reported.
//
// Errors: ErrInvalidArgument (a request that belongs to a call, or that could not be
// read), ErrNotStarted, ErrShutdown, ErrTimeout, ErrTransport, that of ctx.
func (s *Stack) Do(ctx context.Context, req *sip.Request) (result *sip.Response, err error) {
	defer naming("Do", &err)
	result, _, err = s.do(ctx, req, DoOpts{})
	return result, err
}

// DoOpts are the options of DoWith.
type DoOpts struct {
	// Flow, unless nil, carries the request, whatever its URI and Route say: no name is
	// resolved, and no other connection is opened. The route through the outbound proxy
	// is then not added.
	Flow *Flow
	// Sent, unless nil, is called before DoWith returns, on the same goroutine, with the
	// request as it was written last, but for its Via: with the Contact, credentials, and the
	// CSeq to which challenges have raised it. It is not called if nothing was written.
	Sent func(req *sip.Request)
}

// DoWith is [Stack.Do] with options. It also returns the flow of the response: a
// telephone keeps the flow of its REGISTER, sends later requests on it, and registers
// again when it is lost (RFC 5626 4.4).
//
// Errors: those of Do, and ErrFlowLost.
func (s *Stack) DoWith(ctx context.Context, req *sip.Request, opts DoOpts) (result *sip.Response, flow *Flow, err error) {
	defer naming("DoWith", &err)
	return s.do(ctx, req, opts)
}

func (s *Stack) do(ctx context.Context, req *sip.Request, opts DoOpts) (*sip.Response, *Flow, error) {
	if ctx == nil {
		return nil, nil, errNilContext("Do")
	}
	if err := checkRequestOutside(req); err != nil {
		return nil, nil, err
	}
	own, err := outgoing.Typed(req)
	if err != nil {
		return nil, nil, malformed(err)
	}
	layer, err := s.transactions()
	if err != nil {
		return nil, nil, err
	}
	by, err := s.usableFlow(opts.Flow, outgoing.NextHop(own))
	if err != nil {
		return nil, nil, err
	}
	s.completing().Complete(own)
	outgoing.RouteBy(s.firstHop(by), own)
	w, filled := retry.NewWaiter(callError), false
	prepare := func(req *draft.Request, local transport.Local) {
		if !filled {
			filled = true
			outgoing.FillHosts(own, local.Host, func(user string, secure bool) contact.Ours { return s.addressAt(user, local, secure) })
			req.Replace(own)
		}
	}
	x := &retry.Request{
		Layer: layer, Owner: &stackOwner{stack: s, heard: w.Heard}, Base: s.base, Timeout: s.config.txTimeout(),
		Attempt: s.attempt(&auth.Scope{}), OnResponse: w.Response, OnDone: w.Done,
	}
	if opts.Sent != nil {
		var last outgoing.Last
		x.Leaving = last.Note
		defer last.Report(opts.Sent)
	}
	x.To(onlyBy(by, txn.RequestOptions{NextHop: outgoing.NextHop(own), Prepare: prepare}))
	if err := x.Send(ctx, draft.Of(own)); err != nil {
		return nil, nil, err
	}
	res, err := w.Wait(ctx)
	if err != nil {
		return nil, nil, err
	}
	keepRegistered(own, res, w.Flow())
	return res.Response(), s.flowOf(w.Flow()), nil
}

// completing is what a request outside calls gets where it has nothing of its own.
func (s *Stack) completing() outgoing.Defaults {
	return outgoing.Defaults{
		From: s.caller(InviteOpts{}, "sip"), Agent: s.config.userAgent(), Tag: TagGen, CallID: newCallID,
	}
}

// Do sends a request inside the call and waits for the final response of any status:
// INFO, MESSAGE, OPTIONS, SUBSCRIBE, or a method of the application. Of req it uses only
// the method, the body, Max-Forwards and headers that a call does not set itself. An INFO
// may be sent as soon as there is an early dialog (RFC 6086 4.2.1), other methods once
// the call is established. A failure has the effect of RFC 5057: a 481 ends the call, or
// only the early dialog if there are several. So does an INFO that gets no response for
// TxTimeout, or a 408 (RFC 3261 12.2.1.2), unless StackConfig.KeepUnanswered is set; a
// MESSAGE, an OPTIONS or another method does not. If ctx ends first, its error is
// returned, and the transaction continues unobserved: an INFO may still end the call.
//
// Errors: ErrInvalidArgument (a method that has its own function, or a request that could
// not be read), *StateError (too early in the call), ErrInfoPackage, ErrPending,
// ErrTimeout, ErrTransport, that of ctx.
func (d *Dialog) Do(ctx context.Context, req *sip.Request) (result *sip.Response, err error) {
	defer naming("Do", &err)
	if ctx == nil {
		return nil, errNilContext("Do")
	}
	if err := checkRequestInside(req); err != nil {
		return nil, err
	}
	w, err := d.sendRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	res, err := w.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return res.Response(), nil
}

func (d *Dialog) sendRequest(ctx context.Context, from *sip.Request) (*retry.Waiter, error) {
	var headers []sip.Header // cloned without locks: their types may be the application's
	for _, h := range from.Headers() {
		if wellformed.SetBy(h.Name()) == "" {
			headers = append(headers, sip.HeaderClone(h))
		}
	}
	if err := d.lockToSend(ctx, string(from.Method)); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	if err := d.mayInformLocked(from); err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	s, e := d.currentLocked(), d.currentForkLocked()
	req, err := s.nextRequestLocked(from.Method)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	for _, h := range headers {
		req.AddHeader(h)
	}
	if hops := from.MaxForwards(); hops != nil {
		req.SetMaxForwards(int(*hops))
	}
	req.Body = from.Body()
	w := retry.NewWaiter(callError)
	if err := s.unlockAndSend(ctx, req, e, e.mayRepeatLocked, func(x *retry.Request) { d.reportTo(w, e, from.Method, x) }); err != nil {
		return nil, err
	}
	return w, nil
}

// reportTo has a client request tell a waiter of its outcome, after what a failure ends.
func (d *Dialog) reportTo(w *retry.Waiter, e *earlyDialog, method sip.RequestMethod, x *retry.Request) {
	x.OnResponse = func(res *sipmsg.Message) {
		if res.Status >= 300 {
			d.failed(e, method, res.Status, res.Reason)
		}
		w.Response(res)
	}
	x.OnDone = func(err error) {
		if err != nil {
			d.unanswered(e, method, err)
		}
		w.Done(err)
	}
}

// SendInfo sends an INFO with a body and waits for its response; see Do. A response of
// 300 or more is returned as a *ResponseError. If the peer does not respond for
// TxTimeout, the call ends by BYE, even if ctx has ended before, unless
// StackConfig.KeepUnanswered is set.
func (d *Dialog) SendInfo(ctx context.Context, body Body, headers ...Header) error {
	return opErr("SendInfo", d.sendBody(ctx, sip.INFO, body, headers))
}

// SendMessage sends a MESSAGE with a body and waits for its response; see Do. A
// response of 300 or more is returned as a *ResponseError. Without a response it returns
// ErrTimeout, and the call continues (RFC 5057 5.3).
func (d *Dialog) SendMessage(ctx context.Context, body Body, headers ...Header) error {
	return opErr("SendMessage", d.sendBody(ctx, sip.MESSAGE, body, headers))
}

func (d *Dialog) sendBody(ctx context.Context, method sip.RequestMethod, body Body, headers []Header) error {
	body = ownBody(body)
	if err := firstError(checkBody(body), checkHeaders(headers, body, checkHeader)); err != nil {
		return err
	}
	req := sip.NewRequest(method, sip.Uri{})
	appendHeaders(req, headers)
	setBody(req, body)
	res, err := d.Do(ctx, req)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return newResponseError(method, received(res))
	}
	return nil
}
