package txn

import (
	"context"
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Client is a request of ours as the user holds it: one transaction, or one after
// the other while targets fail (RFC 3263 4.3). Its methods may be called from any
// goroutine and do not block.
type Client struct {
	// Set at construction.

	layer  *Layer
	callID string
	user   ClientUser
	method sip.RequestMethod

	mu sync.Mutex // guards the fields below; taken under a transaction's

	tx        *clientTx       // the attempt in progress, or the last one
	heard     *transport.Flow // the latest response came by it; nil before
	sent      []byte          // the request, by it; let go of after the final response
	route     *route          // where else it can go; let go of likewise
	cancelled bool            // by the user: it goes nowhere else
	stop      func()          // ends a move that is under way; nil when there is none
}

// Request writes req, releases it, and returns. Responses and the outcome go to user,
// perhaps before Request returns. It sets the top Via with a branch of its
// own, and Max-Forwards and Content-Length when absent. With opt.Flow lost or
// nil, all addresses of opt.NextHop are tried in turn. A request that is too
// long for UDP uses TCP if a connection can be opened (RFC 3261 18.1.1).
//
// If a target fails later, the request goes to the next one (RFC 3263 4.3): after a 503, or
// if its connection is lost, or the timeout passes, before its first response. user gets only the outcome at the last target; if no further target can be
// reached, that of the one before.
//
// It blocks while it resolves and connects, until ctx ends; ctx has no effect
// afterwards. After an error user is not called: ErrNotAllowed (ACK,
// CANCEL, or a header missing), ErrClosed, ErrTransport, ctx's.
func (l *Layer) Request(ctx context.Context, req *draft.Request, opt RequestOptions, user ClientUser) (*Client, error) {
	if err := checkOutgoing(req); err != nil {
		return nil, err
	}
	if req.Method == sip.ACK || req.Method == sip.CANCEL {
		return nil, fmt.Errorf("%w: %s", ErrNotAllowed, req.Method)
	}
	defer req.Release()
	c := &Client{
		layer: l, callID: req.CallID(), user: user,
		method: req.Method, route: newRoute(opt),
	}
	if err := l.deliver(ctx, req, c.route, c.attempt); err != nil {
		l.logUnsent(req, opt, err)
		return nil, err
	}
	return c, nil
}

// attempt sends the request to one target, by a transaction of its own. After an error that
// transaction delivers nothing.
func (c *Client) attempt(o outgoing) error {
	tx := c.layer.newClient(o, c)
	if !c.begin(tx) {
		return ErrCancelled
	}
	c.layer.logSent(o.req, o.flow) // not shared yet
	return tx.launch()
}

// begin makes tx the attempt in progress, unless the user has cancelled.
func (c *Client) begin(tx *clientTx) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled {
		return false
	}
	c.tx, c.sent, c.stop, c.heard = tx, tx.data, nil, nil
	return true
}

// Sent returns the text of the request as it was sent last, and nil once
// [ClientUser.Response] has returned for a final response. It is read only.
func (c *Client) Sent() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

// Flow returns the flow of the attempt in progress: in the end of the one that was
// answered, or failed last.
func (c *Client) Flow() *transport.Flow { return c.current().flow }

// Heard returns the flow that the latest response came by, whose peer may be elsewhere
// than that of Flow: behind a router that has forgotten it. Before any it is Flow's.
func (c *Client) Heard() *transport.Flow {
	c.mu.Lock()
	heard := c.heard
	c.mu.Unlock()
	if heard != nil {
		return heard
	}
	return c.Flow()
}

// Provisional reports whether a provisional response to the attempt in progress
// has come.
func (c *Client) Provisional() bool {
	tx := c.current()
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.provisional
}

func (c *Client) current() *clientTx {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tx
}

// final delivers the response that ends the transaction, and then releases the request: an
// accepted INVITE stays here for 32 s more.
func (c *Client) final(res *sipmsg.Message) {
	defer c.forget()
	c.hear(res)
}

// hear hands over a response.
func (c *Client) hear(res *sipmsg.Message) {
	c.logResponse(res)
	c.user.Response(c, res)
}

// done delivers the end of the transaction to the user.
func (c *Client) done(err error) {
	if err != nil {
		c.logFailed(err)
	}
	c.user.Done(c, err)
}

func (c *Client) forget() {
	c.mu.Lock()
	c.sent, c.route = nil, nil
	c.mu.Unlock()
}
