package txn

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// retryAfter is the Retry-After, in seconds, of a 503 at a limit.
const retryAfter = "10"

// receiveNew takes any request but ACK and CANCEL.
func (l *Layer) receiveNew(m *sipmsg.Message, flow *transport.Flow, key []byte) {
	if l.isAgain(key, m, flow) {
		return
	}
	k := string(key)
	if l.refusals.has(k) {
		l.refuse503(m, flow, k)
		return
	}
	weight := weightOf(m)
	if !l.admits(m, txWeight+weight) {
		l.refuseAtLimit(m, flow, k)
		return
	}
	s := l.newServer(m, flow, k, "")
	s.weight, s.tx.held = weight, txWeight+weight
	merged := !l.claim(s)
	s.tx.merged = merged
	if !l.addServer(s) {
		return
	}
	if merged { // RFC 3261 8.2.2.2
		l.logBadInput(m, flow, &l.counters.merged, "Merged Request")
		l.answer(s, sip.StatusLoopDetected)
		return
	}
	if opensDialog(m) {
		s.Trying()
	}
	if !l.queues.pushTask(s.callID, l.bound(m), s) {
		l.counters.refused.Add(1)
		if err := s.Refuse(); err != nil {
			l.logUnanswered(m, sip.StatusServiceUnavailable, flow, err)
		}
	}
}

// isAgain takes a retransmission, and reports whether the request is one. The table is
// asked first: a transaction leaves it once its record is there.
func (l *Layer) isAgain(k []byte, m *sipmsg.Message, flow *transport.Flow) bool {
	if tx, ok := l.servers.find(k); ok {
		tx.requestAgain(m, flow)
		return true
	}
	return l.requestPast(k, m, flow)
}

// opensDialog reports whether a request is an INVITE outside dialogs. Inside one its
// user says 100: from then on it may send no INVITE itself (RFC 3261 14.1), and so it
// has to know first.
func opensDialog(m *sipmsg.Message) bool { return m.Method == sip.INVITE && m.ToTag == "" }

// admits reports whether a transaction is within the bounds, and counts it then.
func (l *Layer) admits(m *sipmsg.Message, weight int) bool {
	if l.serverCount() < l.most && l.held.take(int64(weight), l.held.most/8) {
		return true
	}
	return l.serverCount() < l.most+l.most/8+urgent && l.inCall(m) && l.held.take(int64(weight), 0)
}

// refuseAtLimit responds to a request beyond the bounds. A BYE or PRACK that belongs to no
// call gets its usual response.
func (l *Layer) refuseAtLimit(m *sipmsg.Message, flow *transport.Flow, k string) {
	if !endsOrAcknowledges(m) || l.inCall(m) {
		l.refuse503(m, flow, k)
		return
	}
	l.counters.refused.Add(1)
	l.dismiss(m, flow, k, sip.StatusCallTransactionDoesNotExists)
}

// endsOrAcknowledges reports whether a request is needed even when there is too much to
// do.
func endsOrAcknowledges(m *sipmsg.Message) bool {
	return m.Method == sip.BYE || m.Method == sip.PRACK
}

// dismiss answers a request without a transaction (RFC 3261 8.2.7): the same again
// gets the same answer for the same reason.
func (l *Layer) dismiss(m *sipmsg.Message, flow *transport.Flow, k string, code int) {
	l.reply(m, flow, code, m.Reply(&sipmsg.Reply{Code: code, Reason: reasonPhrase(code), Tag: l.tagOf(k)}))
}

// reply sends a response for which there is no transaction.
func (l *Layer) reply(m *sipmsg.Message, flow *transport.Flow, code int, data []byte) {
	l.logAnswer(m, flow, code, reasonPhrase(code))
	if err := l.transport.Reply(flow, m).Send(data); err != nil {
		l.logUnanswered(m, code, flow, err)
	}
}

// run delivers a request to the user, which answers most of them before it returns.
func (s *Server) run() {
	l := s.tx.layer
	defer s.tx.begin() // also when the user panics
	l.logReceived(s.m, s.flow)
	l.user.Request(s)
}

// serviceUnavailable is the 503 that refuses at a limit, the same each time.
func (l *Layer) serviceUnavailable(m *sipmsg.Message, k string) []byte {
	return m.Reply(&sipmsg.Reply{
		Code: sip.StatusServiceUnavailable, Reason: reasonPhrase(sip.StatusServiceUnavailable), Tag: l.tagOf(k),
		Fields: []sipmsg.Field{{Name: "Retry-After", Value: retryAfter}},
	})
}

// refuse503 refuses without a transaction (RFC 3261 8.2.7): there are as many as
// there may be, or the request has been refused before.
func (l *Layer) refuse503(m *sipmsg.Message, flow *transport.Flow, k string) {
	l.counters.refused.Add(1)
	l.refusals.add(k)
	l.reply(m, flow, sip.StatusServiceUnavailable, l.serviceUnavailable(m, k))
}

// bound is how much may wait before a request is refused.
func (l *Layer) bound(m *sipmsg.Message) int {
	if endsOrAcknowledges(m) {
		return l.queueLen + urgent
	}
	return l.queueLen
}

// claim makes s the one transaction of its request. It reports false when another
// copy has come by another path.
func (l *Layer) claim(s *Server) bool {
	if s.tx.merge == "" {
		return true
	}
	first, added := l.merging.add(s.tx.merge, s.tx)
	// The same key means no other path (RFC 3261 8.2.2.2): another read loop has just
	// received a retransmission.
	if !added {
		return first.key == s.tx.key
	}
	if other, over := l.pastServers.merges(s.tx.merge); over && other != s.tx.key {
		l.merging.remove(s.tx.merge, s.tx)
		return false
	}
	return true
}

// answer sends a response of this layer's own.
func (l *Layer) answer(s *Server, code int) {
	if err := s.Answer(code, ""); err != nil {
		l.logUnanswered(s.m, code, s.flow, err)
	}
}

// receiveAck absorbs an ACK that belongs to a failure response; all others are
// delivered: only the user knows the ACKs it waits for.
func (l *Layer) receiveAck(m *sipmsg.Message, flow *transport.Flow, k []byte, old bool) {
	if l.absorbs(k, m, old) {
		return
	}
	l.logReceived(m, flow)
	if !l.queues.push(m.CallID, l.queueLen+urgent, func() { l.user.Ack(m, flow) }) {
		l.counters.refused.Add(1) // it comes again, with the 2xx
	}
}

func (l *Layer) absorbs(k []byte, m *sipmsg.Message, old bool) bool {
	if tx, ok := l.servers.find(k); ok {
		return tx.acknowledge(m, old)
	}
	return l.acknowledgePast(k, m, old)
}

// acknowledge reports whether the ACK was for this layer. That of an RFC 2543
// client also needs our tag (RFC 3261 17.2.3).
func (tx *serverTx) acknowledge(m *sipmsg.Message, old bool) bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if old && m.ToTag != tx.toTag {
		return false
	}
	do, ok := tx.advanceLocked(eventAck)
	tx.restLocked(tx.fileLocked)
	if ok && tx.state != stateAccepted {
		tx.last, tx.user = nil, nil
	}
	tx.tidyLocked()
	return do&up == 0 // RFC 6026 7.1: in Accepted it is passed up
}

// receiveCancel answers a CANCEL (RFC 3261 9.2).
func (l *Layer) receiveCancel(m *sipmsg.Message, flow *transport.Flow, id string) {
	k := serverKey(id, sip.CANCEL)
	if l.isAgain([]byte(k), m, flow) {
		return
	}
	l.logReceived(m, flow)
	target, tag, found := l.cancelled(id)
	if !found {
		l.dismiss(m, flow, k, sip.StatusCallTransactionDoesNotExists)
		return
	}
	if s := l.newServer(m, flow, k, tag); l.addServer(s) {
		l.answer(s, sip.StatusOK)
		if target != nil {
			target.cancel(m)
		}
	}
}

// cancelled finds the transaction that a CANCEL cancels: the one of any method with the
// same ID, nil when it has ended, and its To tag.
func (l *Layer) cancelled(id string) (target *serverTx, tag string, found bool) {
	for _, method := range []sip.RequestMethod{
		sip.INVITE, sip.BYE, sip.OPTIONS, sip.REFER, sip.NOTIFY, sip.SUBSCRIBE, sip.INFO,
		sip.MESSAGE, sip.PRACK, sip.UPDATE, sip.PUBLISH, sip.REGISTER,
	} {
		k := []byte(serverKey(id, method))
		if tx, ok := l.servers.find(k); ok {
			return tx, tx.toTag, true
		}
		if r, over := l.pastServers.find(k); over {
			return nil, r.Note, true
		}
	}
	return nil, "", false
}

// cancel delivers a CANCEL to the user, if the request is an INVITE without a final
// response by then.
func (tx *serverTx) cancel(m *sipmsg.Message) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	s := tx.user
	if tx.machine != &inviteServer || tx.state != stateProceeding || s == nil {
		return
	}
	tx.layer.queues.push(s.callID, 0, func() {
		if s.Final() == 0 {
			tx.layer.user.Cancel(s, m)
		}
	})
}
