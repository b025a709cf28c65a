package dialog

import (
	"context"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// clientRequest is a request of ours and all that comes of it. A challenge (401,
// 407) that the application has credentials for is answered: the request goes
// out once more with the next CSeq (RFC 3261 22.2, 22.3), and what is told of
// is what comes of that.
type clientRequest struct {
	// Set at construction.

	layer transactionLayer
	stack *Stack
	// dialog is nil for a request outside calls, attempt when challenges are not
	// answered.
	dialog  *Dialog
	attempt *auth.Attempt
	// base and timeout bound a request that goes out once more.
	base    context.Context
	timeout time.Duration
	// next draws the CSeq of a request that goes out once more; written is
	// called when it has left, before which no other request of its dialog may.
	// An error ends the client request.
	next func(ctx context.Context) (seq uint32, written func(), err error)
	// prepared, unless nil, is told of a request that is about to leave: the
	// first, and each that takes its place; leaving, unless nil, as it is written,
	// maybe more than once.
	prepared, leaving func(req *sip.Request)
	// sent, unless nil, is told of the request's transaction, and left, unless
	// nil, by which flow it went, for which next hop: maybe more than once.
	sent func(tx clientTx)
	left func(hop sip.Uri, flow *transport.Flow)
	// heard, unless nil, is told by which flow a response has come.
	heard func(res *sip.Response, flow *transport.Flow)
	// response and done are told what comes of the request, as a
	// txn.ClientUser is.
	response func(res *sip.Response)
	done     func(err error)
	// elsewhere, unless nil, is asked where else to go when the request has
	// failed, by a response or by none: what it returns turns the request there;
	// nil when that was the last.
	alternatives func(res *sip.Response) func(req *sip.Request) txn.RequestOptions
	// overtaken is true for a request that goes out once more after a 500: a
	// later one of the dialog may have come before it (RFC 3261 12.2.2).
	overtaken bool
	// background runs a function on a counted goroutine, or not at all, and so
	// does ask with one that calls the application.
	background, ask func(f func()) bool

	mu sync.Mutex // guards the fields below
	// opt says where the request goes.
	opt txn.RequestOptions
	// req is the request as it was sent last, to and transport say where it went.
	req       *sip.Request
	to        auth.Destination
	transport string
	// challenged is the transaction whose challenge is being answered.
	challenged clientTx
	// retries counts the refusals that were given in to: of a session interval,
	// and 500s.
	retries int
}

var _ txn.ClientUser = (*clientRequest)(nil)

// send writes the request.
func (x *clientRequest) send(ctx context.Context, req *sip.Request) error {
	x.mu.Lock()
	x.req = req
	opt := x.opt
	x.mu.Unlock()
	opt.Authorize = func(ctx context.Context, req *sip.Request, flow *transport.Flow) func(bool) {
		return x.authorize(ctx, req, flow, opt)
	}
	if x.prepared != nil {
		x.prepared(req)
	}
	tx, err := x.layer.Request(ctx, req, opt, x)
	if err != nil {
		return callError(err)
	}
	x.announce(tx)
	return nil
}

// authorize adds the credentials for whom the flow leads to. What it returns is called
// when the request has been written.
func (x *clientRequest) authorize(ctx context.Context, req *sip.Request, flow *transport.Flow, opt txn.RequestOptions) (written func(sent bool)) {
	written = func(bool) {}
	if x.attempt != nil {
		to := x.stack.destination(req, flow, opt)
		x.mu.Lock()
		x.to, x.transport = to, flow.Transport()
		x.mu.Unlock()
		written = x.attempt.Authorize(ctx, req, to)
	}
	if x.leaving != nil {
		x.leaving(req)
	}
	return written
}

// announce tells of a transaction as soon as its request has left, or its first
// response is here, whichever is noticed first. The other tells of it too before
// it goes on: the first may not be done yet.
func (x *clientRequest) announce(tx clientTx) {
	x.mu.Lock()
	hop := x.opt.NextHop
	x.mu.Unlock()
	if x.left != nil {
		x.left(hop, tx.Flow())
	}
	if x.sent != nil {
		x.sent(tx)
	}
}

// Response takes a response from the transactions below.
func (x *clientRequest) Response(tx *txn.Client, res *sip.Response) {
	if x.heard != nil {
		x.heard(res, tx.Heard())
	}
	switch res.StatusCode {
	case sip.StatusUnauthorized, sip.StatusProxyAuthRequired:
		if x.attempt != nil && x.retry(tx, func() { x.retryWithCredentials(res) }) {
			return
		}
	case statusIntervalTooSmall:
		if change := raiseInterval(res); change != nil && x.mayRetry() && x.retry(tx, func() { x.retryChanged(res, change) }) {
			return
		}
	case sip.StatusInternalServerError:
		if x.overtaken && x.mayRetry() && x.retry(tx, func() { x.retryChanged(res, func(*sip.Request) {}) }) {
			return
		}
	}
	if res.StatusCode >= 300 && x.failover(tx, res, nil) {
		return
	}
	x.announce(tx)
	x.response(res)
}

// Done follows a transaction's last response. That of one whose challenge is
// being answered is not the end.
func (x *clientRequest) Done(tx *txn.Client, err error) {
	x.mu.Lock()
	going := x.challenged == clientTx(tx)
	x.mu.Unlock()
	if going || err != nil && x.failover(tx, nil, err) {
		return
	}
	x.done(err)
}

// failover turns a request that failed to another target, and reports
// whether there is one.
func (x *clientRequest) failover(tx *txn.Client, res *sip.Response, err error) bool {
	turn := x.nextTarget(res)
	return turn != nil && x.retry(tx, func() { x.sendToTarget(turn, res, err) })
}

func (x *clientRequest) nextTarget(res *sip.Response) func(req *sip.Request) txn.RequestOptions {
	if x.alternatives == nil {
		return nil
	}
	return x.alternatives(res)
}

// sendToTarget sends the request to another target. Where it may not be sent, what
// came of the one before is the outcome.
func (x *clientRequest) sendToTarget(turn func(*sip.Request) txn.RequestOptions, res *sip.Response, err error) {
	if !x.resend(func(req *sip.Request) {
		opt := turn(req)
		x.mu.Lock()
		x.opt, x.retries = opt, 0
		x.mu.Unlock()
		x.leaveServer(req)
	}) {
		x.report(res, err)
	}
}

// leaveServer takes from a request the credentials that were for the server before,
// the application's own too.
func (x *clientRequest) leaveServer(req *sip.Request) {
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		for req.RemoveHeader(name) {
		}
	}
	if x.attempt != nil {
		x.attempt.Anew()
	}
}

// failoverOrReport goes elsewhere, or tells what came of the request.
func (x *clientRequest) failoverOrReport(res *sip.Response, err error) {
	if turn := x.nextTarget(res); turn != nil {
		x.sendToTarget(turn, res, err)
		return
	}
	x.report(res, err)
}

func (x *clientRequest) report(res *sip.Response, err error) {
	if res != nil {
		x.response(res)
	}
	x.done(err)
}

// maxRequestRetries bounds how often one request gives in to a 422, or a 500.
const maxRequestRetries = 3

func (x *clientRequest) mayRetry() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.retries++
	return x.retries <= maxRequestRetries
}

// retryChanged sends the request with a change that a response demands.
func (x *clientRequest) retryChanged(res *sip.Response, change func(*sip.Request)) {
	if !x.resend(change) {
		x.failoverOrReport(res, nil)
	}
}

// retry begins what makes a response not the last, and reports whether it
// does.
func (x *clientRequest) retry(tx *txn.Client, f func()) bool {
	x.mu.Lock()
	x.challenged = tx
	x.mu.Unlock()
	if x.background(f) {
		return true
	}
	x.mu.Lock()
	x.challenged = nil
	x.mu.Unlock()
	return false
}

// retryWithCredentials asks for credentials and sends the request with them. When it cannot
// be, or the application takes too long, the challenge is the final answer after
// all.
func (x *clientRequest) retryWithCredentials(challenge *sip.Response) {
	if !x.credentials(challenge) || !x.resend(func(*sip.Request) {}) {
		x.failoverOrReport(challenge, nil)
	}
}

// credentials asks the application, on a goroutine of its own: whatever it does
// there, the client request goes on.
func (x *clientRequest) credentials(challenge *sip.Response) bool {
	ctx, cancel := context.WithTimeout(x.base, x.timeout)
	defer cancel()
	found := make(chan bool, 1)
	if !x.ask(func() {
		known := false
		defer func() { found <- known }()
		known = x.attempt.Challenged(challenge, func(c auth.Challenge) (auth.Login, bool) { return x.login(ctx, c) })
	}) {
		return false
	}
	select {
	case known := <-found:
		return known
	case <-ctx.Done():
		return false
	}
}

// resend sends the request once more, changed, and reports false when it may not
// be.
func (x *clientRequest) resend(change func(*sip.Request)) bool {
	ctx, cancel := context.WithTimeout(x.base, x.timeout)
	defer cancel()
	seq, written, err := x.next(ctx)
	if err != nil {
		return false
	}
	x.mu.Lock()
	req := x.req.Clone()
	x.mu.Unlock()
	req.CSeq().SeqNo = seq
	change(req)
	err = x.send(ctx, req)
	written()
	if err != nil {
		x.failoverOrReport(nil, err)
	}
	return true
}

// newClientRequest returns a client request of this dialog's. mayRepeat, unless nil, may keep a
// request from going out once more; it is called with the mutex held.
func (d *Dialog) newClientRequest(opt txn.RequestOptions, mayRepeat func() error) (*clientRequest, error) {
	return d.newClientRequestIn(d.currentFork(), opt, mayRepeat)
}

// newClientRequestIn is newClientRequest for a request in an early dialog, unless e is nil.
func (d *Dialog) newClientRequestIn(e *earlyDialog, opt txn.RequestOptions, mayRepeat func() error) (*clientRequest, error) {
	layer, err := d.transactionLayer()
	if err != nil {
		return nil, err
	}
	return &clientRequest{
		layer: layer, opt: opt, base: d.baseContext(), timeout: d.config().txTimeout(),
		stack: d.stack, dialog: d, attempt: d.stack.attempt(&d.credentials),
		left:       func(hop sip.Uri, flow *transport.Flow) { d.wentBy(e, hop, flow) },
		heard:      func(res *sip.Response, flow *transport.Flow) { d.heardBy(e, res, flow) },
		background: d.stack.tasks.Go, ask: d.stack.calls.Go,
		next: func(ctx context.Context) (uint32, func(), error) {
			d.sendSlot.WaitOrJoin(ctx, d.sendSlot.Enqueue())
			seq, err := d.nextSeq(e, mayRepeat)
			if err != nil {
				d.sendSlot.Release()
				return 0, nil, err
			}
			return seq, d.sendSlot.Release, nil
		},
	}, nil
}

func (d *Dialog) nextSeq(e *earlyDialog, mayRepeat func() error) (seq uint32, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if mayRepeat != nil {
		if err := mayRepeat(); err != nil {
			return 0, err
		}
	}
	if e.isGone() {
		return 0, ErrTerminated // it would overtake the BYE that releases the fork
	}
	d.inDialogStateLocked(e, func() {
		d.localSeq++
		seq = d.localSeq
	})
	return seq, nil
}

// credentialsIn returns copies of the headers with credentials that a request
// carries: the ACK to a 2xx carries those of its INVITE (RFC 3261 22.1).
func credentialsIn(req *sip.Request) []sip.Header {
	var list []sip.Header
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		for h := range named(req, name) {
			list = append(list, sip.HeaderClone(h))
		}
	}
	return list
}
