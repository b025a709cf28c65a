// Package retry says what a request of ours does after a failure, and does it: a
// challenge is answered with credentials (RFC 3261 22.2), a 422 with a longer session
// interval (RFC 4028 7.4), a refusal with the next target (RFC 3261 8.1.3.4). Only the
// outcome of the last try is reported. It knows no dialog: what a request needs of its
// call, its Owner does.
package retry

import (
	"context"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Tx is a request of ours that may still be answered.
type Tx interface {
	// Cancel sends CANCEL as soon as RFC 3261 9.1 allows, without blocking.
	Cancel(extra ...sip.Header)
	// Provisional reports whether a 1xx has come.
	Provisional() bool
	// Flow is the flow that the request left by last.
	Flow() *transport.Flow
	// Heard is the flow that the latest response has come by.
	Heard() *transport.Flow
}

// Layer is the transaction layer.
type Layer interface {
	// Request writes a request, releases it, and returns. Responses go to user, for one
	// Call-ID one at a time in arrival order.
	Request(ctx context.Context, req *draft.Request, opt txn.RequestOptions, user txn.ClientUser) (Tx, error)
}

// Owner is the call of a request, or the stack of a request outside calls. Its methods are
// called with no lock held.
type Owner interface {
	// Go runs f on a goroutine, and GoAsk an f that calls the application; false once the
	// stack has ended.
	Go(f func()) bool
	GoAsk(f func()) bool
	// Begin waits until the request may be sent again, and returns its next CSeq number;
	// sent is the request before. Until End nothing else of the call is sent. After an error
	// the request is not sent.
	Begin(ctx context.Context, sent *draft.Request) (seq uint32, err error)
	End()
	// Left is called with the flow of the request once it has left, Heard with that of a
	// response.
	Left(nextHop sip.Uri, flow *transport.Flow)
	Heard(res *sipmsg.Message, flow *transport.Flow)
	// Destination returns where a request that leaves by that flow goes.
	Destination(req *draft.Request, flow *transport.Flow, opt txn.RequestOptions) auth.Destination
	// Login asks the application for its answer to a challenge.
	Login(ctx context.Context, sent Sent, challenge auth.Challenge) (auth.Login, bool)
	// Unsent and Lost give an error its name for the application: of a request that was
	// not written, and of one that was.
	Unsent(opt txn.RequestOptions, err error) error
	Lost(opt txn.RequestOptions, err error) error
}

// Sent is a request as it was sent last, and its destination.
type Sent struct {
	Text      []byte
	To        auth.Destination
	Transport string
}

// Request is a request of ours with its retries.
type Request struct {
	// Set at construction.

	Layer Layer
	Owner Owner
	// Attempt is nil when challenges are not answered.
	Attempt *auth.Attempt
	// Base and Timeout bound a request that is sent again.
	Base    context.Context
	Timeout time.Duration
	// Prepared, unless nil, is called for each request that will leave. Leaving, unless
	// nil, is called as it is written, perhaps more than once.
	Prepared, Leaving func(req *draft.Request)
	// Sent, unless nil, is called with the transaction of the request, perhaps more than
	// once.
	Sent func(tx Tx)
	// OnResponse and OnDone report the outcome, as Response and Done of a txn.ClientUser.
	OnResponse func(res *sipmsg.Message)
	OnDone     func(err error)
	// Alternatives, unless nil, is called when the request has failed, by a response or
	// without one. The result sends the request to another target; nil after the last.
	Alternatives func(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions
	// Overtaken is true for a request that is sent again after a 500: a later one of
	// the dialog may have arrived before it (RFC 3261 12.2.2).
	Overtaken bool

	mu sync.Mutex // guards the fields below
	// opt says where the request goes.
	opt txn.RequestOptions
	// sent is the request as it was sent last; its text is set once it is sent again.
	sent Sent
	// challenged is the transaction after which the request is sent again.
	challenged written
	// retries counts the tries after a 422 or 500.
	retries int
}

var _ txn.ClientUser = (*Request)(nil)

// To sets where the request goes.
func (x *Request) To(opt txn.RequestOptions) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.opt = opt
}

func (x *Request) options() txn.RequestOptions {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.opt
}

// Send writes the request.
func (x *Request) Send(ctx context.Context, req *draft.Request) error {
	opt := x.options()
	opt.Authorize = x.authorize
	if x.Prepared != nil {
		x.Prepared(req)
	}
	tx, err := x.Layer.Request(ctx, req, opt, x)
	if err != nil {
		return x.Owner.Unsent(opt, err)
	}
	x.announce(tx)
	return nil
}

// authorize adds the credentials for the destination of the flow.
func (x *Request) authorize(ctx context.Context, req *draft.Request, flow *transport.Flow) (written func(sent bool)) {
	if x.Attempt != nil {
		to := x.Owner.Destination(req, flow, x.options())
		x.mu.Lock()
		x.sent.To, x.sent.Transport = to, flow.Transport()
		x.mu.Unlock()
		written = x.Attempt.Authorize(ctx, req, to)
	}
	if x.Leaving != nil {
		x.Leaving(req)
	}
	return written
}

// announce reports a transaction when its request has been sent, or its first response has
// arrived, whichever is noticed first. The second of the two reports it again before it
// continues, since the first report may not be finished yet.
func (x *Request) announce(tx Tx) {
	x.Owner.Left(x.options().NextHop, tx.Flow())
	if x.Sent != nil {
		x.Sent(tx)
	}
}

// written is a request that has left, as a *txn.Client is.
type written interface {
	Tx
	// Sent returns its text.
	Sent() []byte
}

// Response handles a response from the transaction layer.
func (x *Request) Response(tx *txn.Client, res *sipmsg.Message) { x.answered(tx, res) }

func (x *Request) answered(tx written, res *sipmsg.Message) {
	x.Owner.Heard(res, tx.Heard())
	if again := x.remedy(res); again != nil && x.retry(tx, again) {
		return
	}
	if res.Status >= 300 && x.failover(tx, res, nil) {
		return
	}
	x.announce(tx)
	x.OnResponse(res)
}

// remedy returns the function that sends the request again to where the response came
// from; nil where that would not help.
func (x *Request) remedy(res *sipmsg.Message) func() {
	switch res.Status {
	case sip.StatusUnauthorized, sip.StatusProxyAuthRequired:
		if x.Attempt != nil {
			return func() { x.retryWithCredentials(res) }
		}
	case sessiontimer.StatusTooSmall:
		if raise := sessiontimer.Raise(res); raise != nil && x.mayRetry() {
			return func() { x.retryChanged(res, raise) }
		}
	case sip.StatusInternalServerError:
		if x.Overtaken && x.mayRetry() {
			return func() { x.retryChanged(res, unchanged) }
		}
	}
	return nil
}

func unchanged(*draft.Request) {}

// Done follows the last response of a transaction. When the request is sent again it is
// not the end.
func (x *Request) Done(tx *txn.Client, err error) { x.ended(tx, err) }

func (x *Request) ended(tx written, err error) {
	x.mu.Lock()
	going, opt := x.challenged == tx, x.opt
	x.mu.Unlock()
	if going || err != nil && x.failover(tx, nil, err) {
		return
	}
	x.OnDone(x.Owner.Lost(opt, err))
}

func (x *Request) report(res *sipmsg.Message, err error) {
	if res != nil {
		x.OnResponse(res)
	}
	x.OnDone(err)
}
