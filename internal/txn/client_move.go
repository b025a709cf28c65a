package txn

import (
	"context"
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
)

// outcome is how an attempt ended: with a response, or an error.
type outcome struct {
	res  *sipmsg.Message
	err  error
	lost bool // the connection: another one to the same address may do
}

// failsOver reports whether a step is a failure in the sense of RFC 3263 4.3: a 503,
// or an error of the transport or a timeout without any response before.
func failsOver(e event, do action, res *sipmsg.Message, provisional bool) bool {
	switch e {
	case eventFailure:
		return do&up != 0 && res.Status == sip.StatusServiceUnavailable
	case eventLost:
		// A peer that has sent a provisional response is not tried by another
		// address too: both requests would be answered.
		return !provisional
	case eventLimit:
		return do&fail != 0 && !provisional
	default:
		return false
	}
}

// moveLocked sends the request to the next target, if there may be one: then this transaction
// delivers nothing more. The goroutine is counted before the
// transaction leaves the table, so that Close finds one or the other.
func (tx *clientTx) moveLocked(o outcome) bool {
	c, timeout := tx.client, tx.timeout
	if c == nil || !c.mayMove() || !tx.layer.tasks.Go(func() { c.move(timeout, o) }) {
		return false
	}
	tx.client = nil
	return true
}

func (c *Client) mayMove() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cancelled && c.route.more()
}

// move sends the request to the next target that can be reached within the
// timeout, or delivers the outcome to the user.
func (c *Client) move(timeout time.Duration, o outcome) {
	ctx, cancel := context.WithTimeout(c.layer.ctx, timeout)
	defer cancel()
	moved := false
	defer func() { // deferred: Prepare is not ours, and may panic
		if !moved {
			c.end(o)
		}
	}()
	defer c.layer.survive("preparing of a request")
	sent, ok := c.leave(cancel)
	if !ok {
		return
	}
	req := draft.Parse(sent)
	defer req.Release()
	w, tried := c.route, c.route.tried
	w.answered = !o.lost
	err := c.layer.deliver(ctx, req, w, c.attempt)
	moved = err == nil
	switch {
	case moved, c.isCancelled():
	case errors.Is(err, ErrClosed), w.tried > tried:
		o = outcome{err: err}
	}
}

// leave returns the request that was sent; false when the user has cancelled meanwhile.
func (c *Client) leave(stop func()) (sent []byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = stop
	return c.sent, !c.cancelled
}

func (c *Client) isCancelled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cancelled
}

// end delivers the outcome of the last attempt to the user.
func (c *Client) end(o outcome) {
	if o.res != nil {
		c.layer.queues.push(c.callID, 0, func() { c.final(o.res) })
	}
	c.layer.queues.push(c.callID, 0, func() { c.done(o.err) })
}
