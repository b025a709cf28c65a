package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/journal"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// transactionLayer is the part of internal/txn that this package needs. A test can
// replace it.
type transactionLayer interface {
	retry.Layer
	// SendAck writes the ACK to a 2xx and keeps its bytes.
	SendAck(ctx context.Context, req *draft.Request, opt txn.RequestOptions) (ackTx, error)
	// CloseBy ends all transactions and waits, until ctx ends, for their remaining
	// deliveries.
	CloseBy(ctx context.Context)
}

// clientTx is a request of ours that may still be answered.
type clientTx = retry.Tx

// serverTx is a request of the peer that we answer.
type serverTx interface {
	// Message returns the request.
	Message() *sipmsg.Message
	Flow() *transport.Flow
	Local() transport.Local
	ToTag() string
	NewResponse(code int, reason string) *sip.Response
	// Trying sends 100: an INVITE outside dialogs has got it before.
	Trying()
	// Respond sends a provisional or the final response.
	Respond(res *sip.Response) error
	// Answer is Respond for one with nothing of its own but the fields.
	Answer(code int, reason string, fields ...sipmsg.Field) error
	// Refuse answers 503 at a limit, and needs no transaction itself.
	Refuse() error
	// Dismiss answers a request that belongs to nothing, and needs none either.
	Dismiss(code int)
	// Later does work behind what has arrived for its Call-ID, as if it did so now; false
	// when the layer is closed.
	Later(work func()) bool
	// ReplyBy has responses go by another flow from now on.
	ReplyBy(flow *transport.Flow)
	// Repeat sends the last response once more, byte for byte.
	Repeat() error
	// Acknowledged says that the 2xx to an INVITE is not repeated any more.
	Acknowledged()
}

// ackTx is an ACK that can be sent again, byte for byte.
type ackTx interface {
	Resend() error
	// ResendBy is Resend by another flow to the same peer.
	ResendBy(flow *transport.Flow) error
}

// txnLayer is the transactionLayer of internal/txn.
type txnLayer struct {
	layer   *txn.Layer
	journal *journal.Journal
}

func (r txnLayer) Request(ctx context.Context, req *draft.Request, opt txn.RequestOptions, user txn.ClientUser) (clientTx, error) {
	r.journal.Ask()
	tx, err := r.layer.Request(ctx, req, opt, user)
	if err != nil {
		return nil, err
	}
	return tx, nil
}

func (r txnLayer) SendAck(ctx context.Context, req *draft.Request, opt txn.RequestOptions) (ackTx, error) {
	ack, err := r.layer.SendAck(ctx, req, opt)
	if err != nil {
		return nil, err
	}
	return ack, nil
}

func (r txnLayer) CloseBy(ctx context.Context) { r.layer.CloseBy(ctx) }

// stackUser receives the deliveries of the transaction layer, so that its methods are not
// exported methods of Stack.
type stackUser struct{ stack *Stack }

func (u stackUser) Request(tx *txn.Server) {
	u.stack.journal.Ask()
	u.stack.handleRequest(tx)
}

func (u stackUser) Ack(ack *sipmsg.Message, flow *transport.Flow) { u.stack.handleAck(ack, flow) }
func (u stackUser) Cancel(tx *txn.Server, cancel *sipmsg.Message) { u.stack.handleCancel(tx, cancel) }
func (u stackUser) ServerFailed(tx *txn.Server, err error)        { u.stack.handleServerFailure(tx, err) }
