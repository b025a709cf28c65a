package txn

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/transport"
)

// retryAfter is the Retry-After, in seconds, of a 503 for want of room.
const retryAfter = "10"

// receiveNew takes any request but ACK and CANCEL.
func (l *Layer) receiveNew(req *sip.Request, flow *transport.Flow, k string) {
	if tx, ok := l.servers.get(k); ok {
		tx.requestAgain()
		return
	}
	if full := l.bound(req.Method) > 0 && l.servers.len() >= l.most; full || l.refusals.has(k) {
		l.refuse503(req, flow, k)
		return
	}
	s := l.newServer(req, flow, k, "")
	merged := !l.claim(s)
	if !l.addServer(s) {
		return
	}
	if merged { // RFC 3261 8.2.2.2
		l.turnDown(req, flow, &l.counters.merged, "Merged Request")
		l.answer(s, s.NewResponse(sip.StatusLoopDetected, ""))
		return
	}
	if opensDialog(req) {
		s.Trying()
	}
	if !l.queues.push(s.callID, l.bound(req.Method), func() { l.hand(s) }) {
		l.counters.refused.Add(1)
		if err := s.Refuse(); err != nil {
			l.logUnsent(req, sip.StatusServiceUnavailable, flow, err)
		}
	}
}

// opensDialog reports whether a request is an INVITE outside dialogs. Inside one its
// user says 100: from then on it may send no INVITE itself (RFC 3261 14.1), and so it
// has to know first.
func opensDialog(req *sip.Request) bool {
	tag, _ := req.To().Params.Get("tag")
	return req.Method == sip.INVITE && tag == ""
}

// hand gives a request to the user, who answers most of them before it returns.
func (l *Layer) hand(s *Server) {
	defer s.tx.begin() // also when the user panics
	l.user.Request(s)
}

// noRoom is the 503 that refuses for want of room, the same each time.
func (l *Layer) noRoom(req *sip.Request, k string) *sip.Response {
	res := respond(req, sip.StatusServiceUnavailable, "", l.tagOf(k))
	res.AppendHeader(sip.NewHeader("Retry-After", retryAfter))
	return res
}

// refuse503 refuses without a transaction (RFC 3261 8.2.7): there are as many as
// there may be, or the request has been refused before.
func (l *Layer) refuse503(req *sip.Request, flow *transport.Flow, k string) {
	l.counters.refused.Add(1)
	l.refusals.add(k)
	res := l.noRoom(req, k)
	if err := l.transport.Reply(flow, req.Via()).Send(transport.Encode(res)); err != nil {
		l.logUnsent(req, res.StatusCode, flow, err)
	}
}

// bound is how much may wait before a request is refused; 0: it never is. What
// ends a call or answers a reliable response is needed most when there is
// too much to do.
func (l *Layer) bound(method sip.RequestMethod) int {
	if method == sip.BYE || method == sip.PRACK {
		return 0
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
	// The same key is no other path: a retransmission, just now, by another
	// read loop.
	return added || first.key == s.tx.key
}

// answer sends a response of this layer's own.
func (l *Layer) answer(s *Server, res *sip.Response) {
	if err := s.Respond(res); err != nil {
		l.logUnsent(s.req, res.StatusCode, s.flow, err)
	}
}

// logUnsent tells of a response that could not be written.
func (l *Layer) logUnsent(req *sip.Request, status int, flow *transport.Flow, err error) {
	l.log.Debug("txn: response not sent", "call_id", req.CallID().Value(), "status", status, "remote", flow.RemoteAddr(), "error", err)
}

// receiveAck absorbs an ACK that belongs to a failure response; all others go
// up: only the user knows the ACKs it waits for.
func (l *Layer) receiveAck(req *sip.Request, k string, old bool) {
	tx, ok := l.servers.get(k)
	if ok && tx.acknowledge(req, old) {
		return
	}
	l.queues.push(req.CallID().Value(), 0, func() { l.user.Ack(req) })
}

// acknowledge reports whether the ACK was for this layer. That of an RFC 2543
// client also needs our tag (RFC 3261 17.2.3).
func (tx *serverTx) acknowledge(req *sip.Request, old bool) bool {
	toTag, _ := req.To().Params.Get("tag")
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if old && toTag != tx.toTag {
		return false
	}
	do, ok := tx.advanceLocked(eventAck)
	if ok && tx.state != stateAccepted {
		tx.last, tx.user = nil, nil
	}
	tx.tidyLocked()
	return do&up == 0 // RFC 6026 7.1: in Accepted it is passed up
}

// receiveCancel answers a CANCEL (RFC 3261 9.2).
func (l *Layer) receiveCancel(req *sip.Request, flow *transport.Flow, id string) {
	k := serverKey(id, sip.CANCEL)
	if tx, ok := l.servers.get(k); ok {
		tx.requestAgain()
		return
	}
	target := l.cancelled(id)
	if target == nil {
		if s := l.newServer(req, flow, k, ""); l.addServer(s) {
			l.answer(s, s.NewResponse(sip.StatusCallTransactionDoesNotExists, ""))
		}
		return
	}
	if s := l.newServer(req, flow, k, target.toTag); l.addServer(s) {
		l.answer(s, s.NewResponse(sip.StatusOK, ""))
		target.cancel(req)
	}
}

// cancelled finds what a CANCEL is for: the transaction of any method that
// has the same ID.
func (l *Layer) cancelled(id string) *serverTx {
	for _, method := range []sip.RequestMethod{
		sip.INVITE, sip.BYE, sip.OPTIONS, sip.REFER, sip.NOTIFY, sip.SUBSCRIBE, sip.INFO,
		sip.MESSAGE, sip.PRACK, sip.UPDATE, sip.PUBLISH, sip.REGISTER,
	} {
		if tx, ok := l.servers.get(serverKey(id, method)); ok {
			return tx
		}
	}
	return nil
}

// cancel tells the user, if it is an INVITE without final response. The user
// may answer before it is told: then it is not.
func (tx *serverTx) cancel(req *sip.Request) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	s := tx.user
	if tx.machine != &inviteServer || tx.state != stateProceeding || s == nil {
		return
	}
	tx.layer.queues.push(s.callID, 0, func() {
		if s.Final() == 0 {
			tx.layer.user.Cancel(s, req)
		}
	})
}
