package retry

import (
	"context"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/txn"
)

// maxRetries bounds how often one request gives in to a 422, or a 500.
const maxRetries = 3

func (x *Request) mayRetry() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.retries++
	return x.retries <= maxRetries
}

// retry begins another try, and reports whether it does.
func (x *Request) retry(tx written, f func()) bool {
	x.mu.Lock()
	x.challenged, x.sent.Text = tx, tx.Sent()
	x.mu.Unlock()
	if x.Owner.Go(f) {
		return true
	}
	x.mu.Lock()
	x.challenged = nil
	x.mu.Unlock()
	return false
}

// retryChanged sends the request again with a change that a response demands.
func (x *Request) retryChanged(res *sipmsg.Message, change func(*draft.Request)) {
	if !x.resend(change) {
		x.failoverOrReport(res, nil)
	}
}

// retryWithCredentials asks for credentials and sends the request with them. When there
// are none, or the application takes too long, the challenge is the outcome.
func (x *Request) retryWithCredentials(challenge *sipmsg.Message) {
	if !x.credentials(challenge) || !x.resend(unchanged) {
		x.failoverOrReport(challenge, nil)
	}
}

// credentials asks the application, on a separate goroutine, so that the request
// continues if the application does not return.
func (x *Request) credentials(challenge *sipmsg.Message) bool {
	ctx, cancel := context.WithTimeout(x.Base, x.Timeout)
	defer cancel()
	found := make(chan bool, 1)
	if !x.Owner.GoAsk(func() {
		known := false
		defer func() { found <- known }()
		known = x.Attempt.Challenged(challenge.Response(), func(c auth.Challenge) (auth.Login, bool) { return x.login(ctx, c) })
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

func (x *Request) login(ctx context.Context, c auth.Challenge) (auth.Login, bool) {
	x.mu.Lock()
	sent := x.sent
	x.mu.Unlock()
	return x.Owner.Login(ctx, sent, c)
}

// resend sends the request again, changed, and reports false when it may not be sent.
func (x *Request) resend(change func(*draft.Request)) bool {
	ctx, cancel := context.WithTimeout(x.Base, x.Timeout)
	defer cancel()
	x.mu.Lock()
	req := draft.Parse(x.sent.Text)
	x.mu.Unlock()
	seq, err := x.Owner.Begin(ctx, req)
	if err != nil {
		return false
	}
	req.SetCSeq(seq)
	change(req)
	x.mu.Lock()
	x.sent.Text = req.Text()
	x.mu.Unlock()
	err = x.Send(ctx, req)
	x.Owner.End()
	if err != nil {
		x.failoverOrReport(nil, err)
	}
	return true
}

// failover sends a request that failed to another target, and reports whether there is
// one.
func (x *Request) failover(tx written, res *sipmsg.Message, err error) bool {
	turn := x.nextTarget(res)
	return turn != nil && x.retry(tx, func() { x.sendToTarget(turn, res, err) })
}

func (x *Request) nextTarget(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions {
	if x.Alternatives == nil {
		return nil
	}
	return x.Alternatives(res)
}

// sendToTarget sends the request to another target. Where it may not be sent, the
// failure before is the outcome.
func (x *Request) sendToTarget(turn func(*draft.Request) txn.RequestOptions, res *sipmsg.Message, err error) {
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
func (x *Request) leaveServer(req *draft.Request) {
	for _, name := range CredentialHeaders {
		req.Remove(name)
	}
	if x.Attempt != nil {
		x.Attempt.Anew()
	}
}

// CredentialHeaders have credentials: the ACK to a 2xx carries those of its INVITE (RFC
// 3261 22.1). It is only read.
var CredentialHeaders = [...]string{"Authorization", "Proxy-Authorization"}

// failoverOrReport sends the request to another target, or reports its outcome.
func (x *Request) failoverOrReport(res *sipmsg.Message, err error) {
	if turn := x.nextTarget(res); turn != nil {
		x.sendToTarget(turn, res, err)
		return
	}
	x.report(res, err)
}
