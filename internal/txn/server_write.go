package txn

import (
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/transport"
)

// backup is where responses go once their connection is lost (RFC 3261
// 18.2.2).
type backup struct {
	target transport.Target // set at construction

	// transaction.mu guards the fields below.

	lost   *transport.Flow // the flow that is replaced
	unsent []byte          // waits for the new connection
	unsure *Server         // gets the failure
}

// write sends a response, as write of the transaction does. The bytes of a provisional
// response are free once it has left, unless a connection may still have to write them.
func (s *Server) write(r response) error {
	s.tx.mu.Lock()
	flow := s.tx.reply
	s.tx.mu.Unlock()
	if r.data != nil || flow.Reliable() || s.tx.backup != nil {
		return s.tx.write(s.bytes(r), s)
	}
	reply := s.reply(r)
	lent := s.m.Lend(&reply)
	defer lent.Return()
	if err := flow.Send(lent.Bytes()); err != nil {
		return errtext.As(ErrTransport, err)
	}
	return nil
}

// write sends a response where responses of this transaction go. When the
// connection is lost it goes by a new one: write returns nil then, and if that fails, the
// failure is delivered to s, unless nil.
func (tx *serverTx) write(data []byte, s *Server) error {
	tx.mu.Lock()
	flow := tx.reply
	tx.mu.Unlock()
	err := flow.Send(data)
	if err == nil {
		return nil
	}
	if tx.backup == nil {
		return errtext.As(ErrTransport, err)
	}
	return tx.redial(flow, data, s)
}

// redial connects again on its own goroutine, in place of the lost flow, and sends the
// response that is the latest then: by the flow of ReplyBy, if that was called meanwhile.
func (tx *serverTx) redial(lost *transport.Flow, data []byte, s *Server) error {
	tx.mu.Lock()
	under := tx.backup.unsent != nil
	tx.backup.lost, tx.backup.unsent = lost, data
	if s != nil {
		tx.backup.unsure = s
	}
	tx.mu.Unlock()
	group := &tx.layer.tasks
	if tx.machine == &inviteServer {
		group = &tx.layer.redials
	}
	if !under && !group.Go(tx.reconnect) {
		return ErrClosed
	}
	return nil
}

func (tx *serverTx) reconnect() {
	flow, err := tx.layer.transport.Connect(tx.layer.ctx, tx.backup.target)
	tx.mu.Lock()
	data, s := tx.backup.unsent, tx.backup.unsure
	tx.backup.unsent, tx.backup.unsure = nil, nil
	moved := !tx.reply.Same(tx.backup.lost) // the client has been heard since
	if err == nil && !moved {
		tx.reply = flow
	}
	tx.mu.Unlock()
	switch {
	case moved:
		err = tx.write(data, s)
	case err == nil:
		err = flow.Send(data)
	}
	if err != nil {
		tx.mu.Lock()
		tx.failLocked(s, errtext.As(ErrTransport, err))
		tx.mu.Unlock()
	}
}
