package dialog

import (
	"context"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// clientRequest is a request of ours with its retries. A challenge (401, 407) is
// answered with the application's credentials: the request is sent again with the next
// CSeq (RFC 3261 22.2, 22.3), and only the outcome of the last try is reported.
type clientRequest struct {
	// Set at construction.

	layer transactionLayer
	stack *Stack
	// dialog is nil for a request outside calls. early is the early dialog that it is sent
	// in, if it is. mayRepeat, unless nil, may forbid that it is sent again; it is called
	// with the mutex held. attempt is nil when challenges are not answered.
	dialog    *Dialog
	early     *earlyDialog
	mayRepeat func() error
	attempt   *auth.Attempt
	// base and timeout bound a request that is sent again.
	base    context.Context
	timeout time.Duration
	// prepared, unless nil, is called for each request that will leave. leaving, unless
	// nil, is called as it is written, perhaps more than once.
	prepared, leaving func(req *draft.Request)
	// sent, unless nil, is called with the transaction of the request, perhaps more than
	// once.
	sent func(tx clientTx)
	// heard, unless nil, is called with the flow of a response.
	heard func(flow *transport.Flow)
	// response and done report the outcome, as those of a txn.ClientUser.
	response func(res *sipmsg.Message)
	done     func(err error)
	// alternatives, unless nil, is called when the request has failed, by a response or
	// without one. The result sends the request to another target; nil after the last.
	alternatives func(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions
	// overtaken is true for a request that is sent again after a 500: a later one of
	// the dialog may have arrived before it (RFC 3261 12.2.2).
	overtaken bool

	mu sync.Mutex // guards the fields below
	// opt says where the request goes.
	opt txn.RequestOptions
	// text is the request as it was sent last, once it is to be sent again. to and
	// transport are its destination.
	text      []byte
	to        auth.Destination
	transport string
	// challenged is the transaction after which the request is sent again.
	challenged clientTx
	// retries counts the tries after a 422 or 500.
	retries int
}

var _ txn.ClientUser = (*clientRequest)(nil)

// send writes the request.
func (x *clientRequest) send(ctx context.Context, req *draft.Request) error {
	x.mu.Lock()
	opt := x.opt
	x.mu.Unlock()
	opt.Authorize = x.authorize
	if x.prepared != nil {
		x.prepared(req)
	}
	tx, err := x.layer.Request(ctx, req, opt, x)
	if err != nil {
		return lostFlow(opt, callError(err))
	}
	x.announce(tx)
	return nil
}

// authorize adds the credentials for the destination of the flow.
func (x *clientRequest) authorize(ctx context.Context, req *draft.Request, flow *transport.Flow) (written func(sent bool)) {
	if x.attempt != nil {
		x.mu.Lock()
		opt := x.opt
		x.mu.Unlock()
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

// announce reports a transaction when its request has been sent, or its first response has
// arrived, whichever is noticed first. The second of the two reports it again before it
// continues, since the first report may not be finished yet.
func (x *clientRequest) announce(tx clientTx) {
	x.mu.Lock()
	nextHop := x.opt.NextHop
	x.mu.Unlock()
	if x.dialog != nil {
		x.dialog.noteDetour(x.early, nextHop, tx.Flow())
	}
	if x.sent != nil {
		x.sent(tx)
	}
}

// Response handles a response from the transaction layer.
func (x *clientRequest) Response(tx *txn.Client, res *sipmsg.Message) {
	switch {
	case x.heard != nil:
		x.heard(tx.Heard())
	case x.dialog != nil:
		x.dialog.heardBy(x.early, res, tx.Heard())
	}
	switch res.Status {
	case sip.StatusUnauthorized, sip.StatusProxyAuthRequired:
		if x.attempt != nil && x.retry(tx, func() { x.retryWithCredentials(res) }) {
			return
		}
	case statusIntervalTooSmall:
		if change := raiseInterval(res); change != nil && x.mayRetry() && x.retry(tx, func() { x.retryChanged(res, change) }) {
			return
		}
	case sip.StatusInternalServerError:
		if x.overtaken && x.mayRetry() && x.retry(tx, func() { x.retryChanged(res, func(*draft.Request) {}) }) {
			return
		}
	}
	if res.Status >= 300 && x.failover(tx, res, nil) {
		return
	}
	x.announce(tx)
	x.response(res)
}

// Done follows the last response of a transaction. When the request is sent again it is
// not the end.
func (x *clientRequest) Done(tx *txn.Client, err error) {
	x.mu.Lock()
	going, opt := x.challenged == clientTx(tx), x.opt
	x.mu.Unlock()
	if going || err != nil && x.failover(tx, nil, err) {
		return
	}
	x.done(lostFlow(opt, err))
}

// failover sends a request that failed to another target, and reports whether there is
// one.
func (x *clientRequest) failover(tx *txn.Client, res *sipmsg.Message, err error) bool {
	turn := x.nextTarget(res)
	return turn != nil && x.retry(tx, func() { x.sendToTarget(turn, res, err) })
}

func (x *clientRequest) nextTarget(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions {
	if x.alternatives == nil {
		return nil
	}
	return x.alternatives(res)
}

// sendToTarget sends the request to another target. Where it may not be sent, the
// failure before is the outcome.
func (x *clientRequest) sendToTarget(turn func(*draft.Request) txn.RequestOptions, res *sipmsg.Message, err error) {
	if !x.resend(func(req *draft.Request) {
		opt := turn(req)
		x.mu.Lock()
		x.opt, x.retries = opt, 0
		x.mu.Unlock()
		x.leaveServer(req)
	}) {
		x.report(res, err)
	}
}

// leaveServer removes the credentials for the server before, the application's own too.
func (x *clientRequest) leaveServer(req *draft.Request) {
	for _, name := range credentialHeaders {
		req.Remove(name)
	}
	if x.attempt != nil {
		x.attempt.Anew()
	}
}

// failoverOrReport sends the request to another target, or reports its outcome.
func (x *clientRequest) failoverOrReport(res *sipmsg.Message, err error) {
	if turn := x.nextTarget(res); turn != nil {
		x.sendToTarget(turn, res, err)
		return
	}
	x.report(res, err)
}

func (x *clientRequest) report(res *sipmsg.Message, err error) {
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

// retryChanged sends the request again with a change that a response demands.
func (x *clientRequest) retryChanged(res *sipmsg.Message, change func(*draft.Request)) {
	if !x.resend(change) {
		x.failoverOrReport(res, nil)
	}
}

// retry begins another try, and reports whether it does.
func (x *clientRequest) retry(tx *txn.Client, f func()) bool {
	x.mu.Lock()
	x.challenged, x.text = tx, tx.Sent()
	x.mu.Unlock()
	if x.stack.tasks.Go(f) {
		return true
	}
	x.mu.Lock()
	x.challenged = nil
	x.mu.Unlock()
	return false
}

// retryWithCredentials asks for credentials and sends the request with them. When there
// are none, or the application takes too long, the challenge is the outcome.
func (x *clientRequest) retryWithCredentials(challenge *sipmsg.Message) {
	if !x.credentials(challenge) || !x.resend(func(*draft.Request) {}) {
		x.failoverOrReport(challenge, nil)
	}
}

// credentials asks the application, on a separate goroutine, so that the client request
// continues if the application does not return.
func (x *clientRequest) credentials(challenge *sipmsg.Message) bool {
	ctx, cancel := context.WithTimeout(x.base, x.timeout)
	defer cancel()
	found := make(chan bool, 1)
	if !x.stack.calls.Go(func() {
		known := false
		defer func() { found <- known }()
		known = x.attempt.Challenged(challenge.Response(), func(c auth.Challenge) (auth.Login, bool) { return x.login(ctx, c) })
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

// resend sends the request again, changed, and reports false when it may not be sent.
func (x *clientRequest) resend(change func(*draft.Request)) bool {
	ctx, cancel := context.WithTimeout(x.base, x.timeout)
	defer cancel()
	if d := x.dialog; d != nil { // nothing else of the dialog leaves before it
		d.sendSlot.WaitOrJoin(ctx, d.sendSlot.Enqueue())
		if d.reserveSeqs() != nil {
			x.releaseSlot()
			return false
		}
	}
	x.mu.Lock()
	req := draft.Parse(x.text)
	x.mu.Unlock()
	seq, err := x.nextSeq(req)
	if err != nil {
		x.releaseSlot()
		return false
	}
	req.SetCSeq(seq)
	change(req)
	x.mu.Lock()
	x.text = req.Text()
	x.mu.Unlock()
	err = x.send(ctx, req)
	x.releaseSlot()
	if err != nil {
		x.failoverOrReport(nil, err)
	}
	return true
}

// releaseSlot lets the next request of the dialog leave.
func (x *clientRequest) releaseSlot() {
	if x.dialog != nil {
		x.dialog.sendSlot.Release()
	}
}

// nextSeq returns the CSeq of a request that is sent again.
func (x *clientRequest) nextSeq(req *draft.Request) (uint32, error) {
	if x.dialog == nil {
		return req.CSeq() + 1, nil
	}
	return x.dialog.nextSeq(x.early, x.mayRepeat)
}

// unlockAndSend sends a request that was built under the mutex, which it unlocks: in
// an early dialog, unless e is nil. set sets what is called with the outcome.
func (s *dialogState) unlockAndSend(ctx context.Context, req *draft.Request, e *earlyDialog, mayRepeat func() error, set func(x *clientRequest)) error {
	opt := s.optionsLocked()
	s.d.mutex.Unlock()
	x, err := s.d.newClientRequest(e, opt, mayRepeat)
	if err != nil {
		return err
	}
	set(x)
	return x.send(ctx, req)
}

// newClientRequest returns a client request of this dialog, for a request in an early
// dialog unless e is nil. mayRepeat, unless nil, may forbid that a request is sent again;
// it is called with the mutex held.
func (d *Dialog) newClientRequest(e *earlyDialog, opt txn.RequestOptions, mayRepeat func() error) (*clientRequest, error) {
	layer, err := d.transactionLayer()
	if err != nil {
		return nil, err
	}
	return &clientRequest{
		layer: layer, opt: opt, base: d.baseContext(), timeout: d.config().txTimeout(),
		stack: d.stack, dialog: d, early: e, mayRepeat: mayRepeat, attempt: d.stack.attempt(&d.credentials),
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
	s := d.stateOfLocked(e)
	defer s.drewLocked()
	return s.NextSeq(), nil
}

// credentialHeaders have credentials: the ACK to a 2xx carries those of its INVITE (RFC
// 3261 22.1). It is only read.
var credentialHeaders = [...]string{"Authorization", "Proxy-Authorization"}

// lockToSend acquires the send slot and then the mutex, for a request that only an
// established call may send.
func (d *Dialog) lockToSend(ctx context.Context, op string) error {
	return d.lockToSendIf(ctx, op, func() error { return d.mayRequestLocked(op) })
}

// lockToSendIf acquires the send slot and then the mutex, for a request that
// mayLocked allows. It asks twice: before, as a request does not wait for an ACK
// that waits for the application; and then, as the condition has to hold when the
// request is built. On an error neither is held.
func (d *Dialog) lockToSendIf(ctx context.Context, op string, mayLocked func() error) error {
	d.mutex.RLock()
	err := mayLocked()
	d.mutex.RUnlock()
	if err != nil {
		return err
	}
	if d.confirm(ctx) == storewriter.Moved {
		return ErrMoved
	}
	if err := d.sendSlot.Acquire(ctx); err != nil {
		return err
	}
	if err := d.reserveSeqs(); err != nil {
		d.sendSlot.Release()
		return err
	}
	d.mutex.Lock()
	if err := mayLocked(); err != nil {
		d.mutex.Unlock()
		d.sendSlot.Release()
		return err
	}
	return nil
}

func (d *Dialog) mayRequestLocked(op string) error {
	switch {
	case d.ackWaits:
		return ErrPending
	case op == string(sip.INFO) && d.isEarlyLocked(): // RFC 6086 4.2.1
	case d.state != DialogStateEstablished:
		return &StateError{Op: op, State: d.state, Need: "Established state"}
	}
	if d.ending != nil {
		return &StateError{Op: op, State: d.state, Need: "Established state and no hang-up begun"}
	}
	return nil
}

// drainSendSlot waits until the request that the call is writing has left. It may
// be a PRACK in an early dialog whose BYE, with the higher CSeq, is next. It waits
// no longer than the PRACK itself does.
func (d *Dialog) drainSendSlot() {
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().timers().T1)
	defer cancel()
	if d.sendSlot.Acquire(ctx) == nil {
		d.sendSlot.Release()
	}
}
