package txn

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// Client is a client transaction as the user holds it. Its methods may be called
// from any goroutine and do not block.
type Client struct {
	// Set at construction.

	tx   *clientTx
	flow *transport.Flow

	// req is let go of after the final response; tx.mu guards it.
	req *sip.Request
}

// clientTx is the machine. After the final response it keeps bytes only.
type clientTx struct {
	transaction

	// Set at construction.

	flow *transport.Flow

	// transaction.mu guards the fields below.

	client      *Client    // what the user knows; nil when it is not needed any more
	user        ClientUser // nil when nothing goes up (any more)
	data        []byte     // the request, until the final response
	ack         []byte     // the ACK to a failure of an INVITE
	provisional bool
	cancelled   bool         // CANCEL is asked for
	extra       []sip.Header // what CANCEL carries besides
	unwatch     func()       // ends the watch over the connection; nil before and after
}

// output is what a step leaves to do without the lock.
type output struct {
	data    []byte    // to be written
	cancel  *clientTx // to be started
	unwatch func()    // to be called
}

// Request writes req, takes it over, and returns; what comes of it goes to user,
// maybe before Request returns. It sets the top Via with a branch of its
// own, and Max-Forwards and Content-Length when absent. With opt.Flow lost or
// nil, all addresses of opt.NextHop are tried in turn. A request that is too
// long for UDP goes by TCP where that can be connected (RFC 3261 18.1.1).
//
// It blocks while it resolves and connects, until ctx ends; ctx has no effect
// afterwards. An error means that user will hear nothing: ErrNotAllowed (ACK,
// CANCEL, or a header missing), ErrClosed, ErrTransport, ctx's.
func (l *Layer) Request(ctx context.Context, req *sip.Request, opt RequestOptions, user ClientUser) (*Client, error) {
	if err := checkOutgoing(req); err != nil {
		return nil, err
	}
	if req.Method == sip.ACK || req.Method == sip.CANCEL {
		return nil, fmt.Errorf("%w: %s", ErrNotAllowed, req.Method)
	}
	var c *Client
	err := l.deliver(ctx, req, opt, func(o outgoing) error {
		tx := l.newClient(o, user, opt.Timeout)
		c = tx.client
		return tx.launch()
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Request returns the request as it was sent, and nil once
// [ClientUser.Response] has returned for a final response. It is read only.
func (c *Client) Request() *sip.Request {
	c.tx.mu.Lock()
	defer c.tx.mu.Unlock()
	return c.req
}

// forget lets go of the request: an accepted INVITE stays here for 32 s more.
func (c *Client) forget() {
	c.tx.mu.Lock()
	c.req = nil
	c.tx.mu.Unlock()
}

// Flow returns the flow the request left by.
func (c *Client) Flow() *transport.Flow { return c.flow }

// Provisional reports whether a provisional response has come.
func (c *Client) Provisional() bool {
	c.tx.mu.Lock()
	defer c.tx.mu.Unlock()
	return c.tx.provisional
}

// newClient makes a transaction that is in no table yet.
func (l *Layer) newClient(o outgoing, user ClientUser, timeout time.Duration) *clientTx {
	if timeout <= 0 {
		timeout = l.timeout
	}
	tx := &clientTx{
		transaction: transaction{
			layer: l, key: clientKey(o.branch, o.req.Method), callID: o.req.CallID().Value(),
			machine: &nonInviteClient, reliable: o.flow.Reliable(), timeout: timeout,
			state: stateTrying,
		},
		flow: o.flow,
		user: user,
		data: o.data,
	}
	if o.req.Method == sip.INVITE {
		tx.machine, tx.state = &inviteClient, stateCalling
	}
	tx.fired = tx.onTimer
	tx.client = &Client{tx: tx, req: o.req, flow: o.flow}
	return tx
}

// launch starts the transaction: timers first, since the response may be here
// before the write has returned. After an error the user hears nothing.
func (tx *clientTx) launch() error {
	data := tx.begin()
	if data == nil {
		return ErrClosed
	}
	if err := tx.flow.Send(data); err != nil {
		if tx.silence() {
			tx.lost(err)
			return err
		}
		return nil // something came of it all the same
	}
	if tx.reliable {
		tx.watch()
	}
	return nil
}

func (tx *clientTx) begin() []byte {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.layer.clients.add(tx.key, tx)
	if tx.layer.closed.Load() { // Close may have looked before it was there
		tx.layer.clients.remove(tx.key, tx)
		tx.state = stateTerminated
		return nil
	}
	tx.startLocked()
	return tx.data
}

// silence has the user hear nothing of a transaction that nothing has come of;
// it reports false when something has.
func (tx *clientTx) silence() bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state != stateCalling && tx.state != stateTrying {
		return false
	}
	tx.user = nil
	return true
}

// watch ends the transaction when its connection is lost before the final
// response.
func (tx *clientTx) watch() {
	unwatch := tx.flow.Watch(tx.lost)
	tx.mu.Lock()
	waiting := tx.waitingLocked()
	if waiting {
		tx.unwatch = unwatch
	}
	tx.mu.Unlock()
	if !waiting {
		unwatch()
	}
}

func (tx *clientTx) waitingLocked() bool {
	return tx.state == stateCalling || tx.state == stateTrying || tx.state == stateProceeding
}

func (tx *clientTx) receive(res *sip.Response) {
	tx.perform(tx.step(responseEvent(res.StatusCode), res, nil))
}

func (tx *clientTx) lost(err error) {
	tx.perform(tx.step(eventLost, nil, fmt.Errorf("%w: %w", ErrTransport, err)))
}

func (tx *clientTx) onTimer(s *slot, generation uint32, e event) {
	tx.perform(tx.expire(s, generation, e))
}

func (tx *clientTx) expire(s *slot, generation uint32, e event) output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if s.generation != generation {
		return output{}
	}
	err := ErrTimeout
	if tx.machine == &inviteClient && tx.state == stateProceeding {
		err = ErrCancelled // RFC 3261 9.1: the only limit there is the one after CANCEL
	}
	return tx.stepLocked(e, nil, err)
}

func (tx *clientTx) step(e event, res *sip.Response, err error) output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.stepLocked(e, res, err)
}

// stepLocked takes the arrow for e. What the user is to hear is queued here,
// under the lock, so that it hears it in the order of the steps.
func (tx *clientTx) stepLocked(e event, res *sip.Response, err error) output {
	do, ok := tx.advanceLocked(e)
	if !ok {
		return output{}
	}
	var out output
	switch {
	case do&send != 0:
		out.data = tx.data
	case do&ack != 0:
		out.data = tx.ackLocked(res)
	}
	if do&up != 0 {
		tx.responseLocked(res)
	}
	if do&done != 0 {
		tx.doneLocked(nil)
	}
	if do&fail != 0 {
		tx.doneLocked(err)
	}
	if e == event1xx {
		out.cancel = tx.provisionalLocked()
	}
	if !tx.waitingLocked() {
		out.unwatch, tx.unwatch, tx.data = tx.unwatch, nil, nil
	}
	if tx.state == stateTerminated {
		tx.layer.clients.remove(tx.key, tx)
	}
	return out
}

func (tx *clientTx) responseLocked(res *sip.Response) {
	c, user, final := tx.client, tx.user, !tx.waitingLocked()
	if user == nil {
		return
	}
	tx.layer.queues.push(tx.callID, 0, func() {
		user.Response(c, res)
		if final {
			c.forget()
		}
	})
}

func (tx *clientTx) doneLocked(err error) {
	if c, user := tx.client, tx.user; user != nil {
		tx.layer.queues.push(tx.callID, 0, func() { user.Done(c, err) })
	}
	tx.client, tx.user = nil, nil
}

// perform does what a step left to do; no lock is held.
func (tx *clientTx) perform(out output) {
	if out.unwatch != nil {
		out.unwatch()
	}
	if out.data != nil {
		if err := tx.flow.Send(out.data); err != nil {
			tx.lost(err)
		}
	}
	if out.cancel != nil {
		// When it cannot be written, the INVITE's own timer or watch tells.
		_ = out.cancel.launch()
	}
}

// close ends the transaction. A user that waits is told so; one that has its
// 2xx is told that it was all.
func (tx *clientTx) close() {
	tx.perform(tx.shut())
}

func (tx *clientTx) shut() output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state == stateTerminated {
		return output{}
	}
	err := ErrClosed
	if tx.state == stateAccepted {
		err = nil
	}
	tx.state = stateTerminated
	tx.stopLocked()
	tx.doneLocked(err)
	tx.layer.clients.remove(tx.key, tx)
	out := output{unwatch: tx.unwatch}
	tx.unwatch, tx.data = nil, nil
	return out
}
