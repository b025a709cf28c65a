package txn

import (
	"bytes"
	"time"

	"sipdialog.example/dialog/internal/past"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Acknowledged ends the repetitions of the 2xx to an INVITE: its ACK has come, or is not
// waited for. From now on, for Timer L, a record absorbs retransmissions of the INVITE (RFC
// 6026 7.1). It has no effect before the 2xx.
func (s *Server) Acknowledged() {
	tx := s.tx
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state != stateAccepted || tx.acked {
		return
	}
	tx.acked = true
	tx.stopLocked()
	tx.lingerLocked()
	tx.restLocked(tx.fileLocked)
}

// fileLocked leaves a record of the transaction, which then is in no table. It reports
// false when more is needed of it: a user that repeats its 2xx, another's place in
// Layer.merging, an address that does not go into a record.
func (tx *serverTx) fileLocked(wait time.Duration) bool {
	if tx.merged || tx.brief || tx.state == stateAccepted && !tx.acked {
		return false
	}
	r := past.Record[remains]{Key: tx.key, Alias: tx.merge, Note: tx.toTag, Value: remains{state: tx.state}}
	if tx.state == stateCompleted {
		way, ok := tx.reply.Place()
		if !ok {
			return false
		}
		r.Value.way, r.Data = way, tx.lastLocked()
	}
	if !tx.layer.pastServers.add(wait, &r, tx.held) {
		return false
	}
	tx.held = 0
	tx.layer.servers.remove(tx.key, tx)
	tx.layer.merging.remove(tx.merge, tx)
	return true
}

func (tx *serverTx) isOver() bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.over
}

// setBrief has the transaction end with its answer.
func (tx *serverTx) setBrief() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.brief = true
}

// requestPast answers a retransmission of a request whose transaction is over, and reports
// whether it is one (RFC 3261 17.2.2, RFC 6026 7.1).
func (l *Layer) requestPast(k []byte, m *sipmsg.Message, flow *transport.Flow) bool {
	r, found := l.pastServers.find(k)
	if !found || r.Value.state != stateCompleted {
		return found
	}
	to := l.transport.At(r.Value.way)
	if !flow.Reliable() && (r.Alias == "" || r.Alias == mergeKey(m)) { // see requestAgain
		to = l.transport.Reply(flow, m)
	}
	if to != nil {
		l.counters.retransmitted.Add(1)
		_ = to.Send(r.Data) // it comes again when this is lost
	}
	return true
}

// acknowledgePast is acknowledge for a transaction that is over.
func (l *Layer) acknowledgePast(k []byte, m *sipmsg.Message, old bool) bool {
	r, found := l.pastServers.find(k)
	return found && r.Value.state == stateConfirmed && !(old && m.ToTag != r.Note)
}

// repeated is the response that Repeat sends; false when there is none.
func (s *Server) repeated() (response, bool) {
	tx := s.tx
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.over {
		r, found := tx.layer.pastServers.find([]byte(tx.key))
		return response{code: tx.final, data: r.Data}, found && r.Value.state == stateCompleted
	}
	return s.sent, s.sent.code != 0 && tx.state != stateConfirmed && tx.state != stateTerminated
}

// decidePastLocked is decide for a transaction that is over: only a non-INVITE's repeats
// its response.
func (s *Server) decidePastLocked(r *response) (action, error) {
	kept, found := s.tx.layer.pastServers.find([]byte(s.tx.key))
	switch {
	case r.code != s.tx.final:
		return 0, ErrFinalSent
	case !found:
		return 0, ErrEnded
	case kept.Value.state != stateCompleted:
		return 0, nil
	case !bytes.Equal(r.data, kept.Data):
		return 0, ErrFinalSent
	}
	return send, nil
}
