package txn

import (
	"time"

	"sipdialog.example/dialog/internal/past"
	"sipdialog.example/dialog/internal/sipmsg"
)

// fileLocked replaces a transaction that delivers nothing more by a record, and removes it
// from the tables. It reports false if the transaction is still needed: further 2xx of an
// accepted INVITE are delivered.
func (tx *clientTx) fileLocked(wait time.Duration) bool {
	way, ok := tx.flow.Place()
	if !ok || tx.state != stateCompleted {
		return false
	}
	r := past.Record[remains]{Key: tx.key, Data: tx.ack, Value: remains{state: tx.state, way: way}}
	if !tx.layer.pastClients.add(wait, &r, 0) {
		return false
	}
	tx.layer.clients.remove(tx.key, tx)
	return true
}

// responsePast absorbs a response to a request whose transaction is over, with an ACK if
// that is an INVITE's (RFC 3261 17.1.1.2, 17.1.2.2), and reports whether it is one.
func (l *Layer) responsePast(k []byte, m *sipmsg.Message) bool {
	r, found := l.pastClients.find(k)
	if !found {
		return false
	}
	if flow := l.transport.At(r.Value.way); flow != nil {
		flow.Learn(&m.Via)
		if m.Status >= 300 && len(r.Data) > 0 {
			_ = flow.Send(r.Data) // the response comes again when it is lost
		}
	}
	return true
}
