package txn

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// Server is a server transaction as the user holds it. Its methods may be called
// from any goroutine, also after the end of the transaction, and do not block.
type Server struct {
	// Set at construction.

	tx     *serverTx
	m      *sipmsg.Message
	callID string
	flow   *transport.Flow

	// weight is about the number of bytes of request and response, if it was counted.
	weight int

	// sent is the last response, for Repeat and for retransmitted requests; tx.mu
	// guards it. It is here and not in tx, so that an accepted INVITE holds nothing once
	// the user has released it.
	sent response
}

// response is one of ours: its bytes, or the parts of which a provisional one is made each
// time it is sent.
type response struct {
	code   int
	reason string
	fields []sipmsg.Field
	data   []byte
	lent   bool // data are not to be kept
}

// own has the data of a response kept.
func (r *response) own() {
	if r.lent {
		r.data, r.lent = bytes.Clone(r.data), false
	}
}

// serverTx is the machine. It keeps bytes, not messages, and releases the Server once
// nothing is delivered any more: completed transactions absorb late messages for 32 s.
type serverTx struct {
	transaction

	// Set at construction.

	toTag  string
	merge  string  // key in Layer.merging; empty for a request inside a dialog
	backup *backup // of a stream; nil on UDP

	// transaction.mu guards the fields below.

	reply *transport.Flow // where responses go
	final int             // status of the final response
	user  *Server         // for the user; nil when nothing more is delivered
	last  []byte          // the final response, for retransmitted requests, without a user
	held  int             // what is counted of it in Layer.held
	// merged is true when another transaction has its merge; brief when it ends with its
	// answer.
	merged, brief bool
	// acked is true when the user repeats its 2xx no more.
	acked bool
}

// newServer makes a transaction that is in no table yet. toTag is used when
// the request's To has none; empty for a new one.
func (l *Layer) newServer(m *sipmsg.Message, flow *transport.Flow, k, toTag string) *Server {
	if m.ToTag != "" {
		toTag = strings.Clone(m.ToTag) // what it is cut from is not to be kept
	}
	if toTag == "" {
		toTag = newTag()
	}
	tx := &serverTx{
		transaction: transaction{
			layer: l, key: k,
			machine: &nonInviteServer, reliable: flow.Reliable(), timeout: l.timers.limit(),
			state: stateTrying,
		},
		toTag: toTag,
		reply: l.transport.Reply(flow, m),
	}
	switch m.Method {
	case sip.INVITE:
		tx.machine, tx.state = &inviteServer, stateProceeding
		tx.merge = mergeKey(m)
	case sip.CANCEL:
	default:
		tx.merge = mergeKey(m)
	}
	if target, ok := l.transport.ReplyTarget(flow, m); ok {
		tx.backup = &backup{target: target}
	}
	tx.attach(tx)
	tx.user = &Server{tx: tx, m: m, callID: m.CallID, flow: flow}
	return tx.user
}

// addServer files a new transaction. It reports false when the request turns
// out to be a retransmission, or the layer is closed.
func (l *Layer) addServer(s *Server) bool {
	tx := s.tx
	if present, added := l.servers.add(tx.key, tx); !added {
		l.merging.remove(tx.merge, tx)
		tx.discard()
		present.requestAgain(s.m, s.flow)
		return false
	}
	if l.requestPast([]byte(tx.key), s.m, s.flow) { // it has ended since it was looked for
		tx.close()
		return false
	}
	tx.weigh()
	if l.closed.Load() { // Close may have looked before it was there
		tx.close()
		return false
	}
	return true
}

// begin bounds the life of a request that is not answered at once: one that is
// needs no timers. An INVITE rings as long as the user lets it.
func (tx *serverTx) begin() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state == stateTrying {
		tx.startLocked()
	}
}

// Request returns the request. It is read only.
func (s *Server) Request() *sip.Request { return s.m.Request() }

// Message returns the request as it was received.
func (s *Server) Message() *sipmsg.Message { return s.m }

func (s *Server) isInvite() bool { return s.m.Method == sip.INVITE }

// Flow returns the flow the request came by.
func (s *Server) Flow() *transport.Flow { return s.flow }

// Local returns how the sender of the request reaches us later.
func (s *Server) Local() transport.Local {
	s.flow.Recheck()
	return s.flow.Contact()
}

// ToTag returns the tag of the request's To, or the one made for its responses.
func (s *Server) ToTag() string { return s.tx.toTag }

// Final returns the status of the final response, or 0.
func (s *Server) Final() int {
	s.tx.mu.Lock()
	defer s.tx.mu.Unlock()
	return s.tx.final
}

// NewResponse returns a response with the headers that RFC 3261 8.2.6 copies,
// the transaction's To tag (not in a 100), and Record-Route where it belongs. An
// empty reason means the RFC's. The response is the caller's. Headers that are not changed
// in it are written as they were received.
func (s *Server) NewResponse(code int, reason string) *sip.Response {
	return s.m.NewReply(code, orPhrase(reason, code), s.tx.toTag)
}

// Trying sends a 100 (RFC 3261 17.2.1). A failure is only logged.
func (s *Server) Trying() { s.tx.layer.answer(s, sip.StatusTrying) }

// Respond sends a response. nil means that it was written (UDP), or queued on
// its connection, or, that being lost, that a new one is being set up (RFC 3261
// 18.2.2). The same final response once more repeats the first one's bytes.
// Concurrent provisional responses leave in any order.
//
// Errors: ErrFinalSent when a different final response was sent; ErrEnded when the transaction has ended; ErrNotAllowed for a status out of range,
// a provisional response to another request than INVITE, and 408 to such (RFC
// 4320 4); ErrTransport when it could not be written, though the transaction continues.
func (s *Server) Respond(res *sip.Response) error {
	if res == nil {
		return fmt.Errorf("%w: no response", ErrNotAllowed)
	}
	if err := s.allowed(res.StatusCode); err != nil {
		return err
	}
	return s.respond(response{code: res.StatusCode, reason: res.Reason, data: s.m.Encode(res)})
}

// Answer is Respond for a response with nothing of its own but the fields, which it
// takes over.
func (s *Server) Answer(code int, reason string, fields ...sipmsg.Field) error {
	if err := s.allowed(code); err != nil {
		return err
	}
	r := response{code: code, reason: orPhrase(reason, code), fields: fields}
	if code < 200 {
		return s.respond(r)
	}
	reply := s.reply(r)
	lent := s.m.Lend(&reply)
	defer lent.Return()
	return s.respond(response{code: code, reason: r.reason, data: lent.Bytes(), lent: true})
}

func orPhrase(reason string, code int) string {
	if reason == "" {
		return reasonPhrase(code)
	}
	return reason
}

// bytes are those of a response.
func (s *Server) bytes(r response) []byte {
	if r.data != nil || r.code == 0 {
		return r.data
	}
	reply := s.reply(r)
	return s.m.Reply(&reply)
}

func (s *Server) reply(r response) sipmsg.Reply {
	return sipmsg.Reply{Code: r.code, Reason: r.reason, Tag: s.tx.toTag, Fields: r.fields}
}

func (s *Server) respond(r response) error {
	do, err := s.decide(&r)
	if err != nil || do&send == 0 {
		return err
	}
	s.tx.layer.logAnswer(s.m, s.flow, r.code, r.reason)
	return s.write(r)
}

// Refuse answers 503 with a Retry-After, at a limit, and takes none: the
// transaction ends at once, and the request, if it comes again, gets the same
// answer without one (RFC 3261 8.2.7). Errors: as Respond.
func (s *Server) Refuse() error {
	s.tx.layer.refusals.add(s.tx.key)
	s.tx.setBrief()
	const code = sip.StatusServiceUnavailable
	err := s.respond(response{code: code, reason: reasonPhrase(code), data: s.tx.layer.serviceUnavailable(s.m, s.tx.key)})
	s.tx.close()
	return err
}

// Dismiss answers a request that belongs to nothing, and keeps no transaction for it:
// the same request, if it comes again, gets the same answer for the same reason (RFC
// 3261 8.2.7). It is not for a request that has got 100.
func (s *Server) Dismiss(code int) {
	s.tx.close()
	s.tx.layer.dismiss(s.m, s.flow, s.tx.key, code)
}

// Later does work behind that of the request's Call-ID which waits already. It reports
// false when the layer is closed.
func (s *Server) Later(work func()) bool { return s.tx.layer.queues.push(s.callID, 0, work) }

// Later does work of a Call-ID after the messages that have arrived for it, as if it had
// arrived now. It returns false when the layer is closed.
func (l *Layer) Later(callID string, work func()) bool { return l.queues.push(callID, 0, work) }

// ReplyBy has the responses that are still to be sent, and repeated, go by another
// flow, by which their client has been heard since.
func (s *Server) ReplyBy(flow *transport.Flow) { s.tx.replyBy(flow) }

// Repeat sends the bytes of the last response again: a 2xx to INVITE, until its
// ACK comes. Errors: ErrEnded, ErrTransport.
func (s *Server) Repeat() error {
	r, ok := s.repeated()
	if !ok {
		return ErrEnded
	}
	s.tx.layer.counters.retransmitted.Add(1)
	return s.write(r)
}

func (s *Server) allowed(code int) error {
	if code < 100 || code > 699 {
		return fmt.Errorf("%w: status out of range", ErrNotAllowed)
	}
	if !s.isInvite() && (code < 200 || code == sip.StatusRequestTimeout) {
		return fmt.Errorf("%w: %d to %s", ErrNotAllowed, code, s.m.Method)
	}
	return nil
}

// decide takes the step of a response; after the first final one there is no
// other.
func (s *Server) decide(r *response) (action, error) {
	tx := s.tx
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.final == 0 && tx.state == stateTerminated:
		return 0, ErrEnded
	case tx.final == 0:
		return tx.respondLocked(s, r), nil
	case tx.over:
		return s.decidePastLocked(r)
	case r.code != tx.final || !bytes.Equal(r.data, s.sent.data):
		return 0, ErrFinalSent
	case tx.state == stateTerminated:
		return 0, ErrEnded
	}
	*r = s.sent // the same, and not lent
	do, _ := tx.advanceLocked(eventRepeat)
	return do, nil
}

func (tx *serverTx) respondLocked(s *Server, r *response) action {
	s.sent = *r
	if r.code >= 200 {
		tx.final = r.code
	}
	do, _ := tx.advanceLocked(responseEvent(r.code))
	tx.restLocked(tx.fileLocked)
	if tx.over {
		s.sent, tx.user = response{}, nil
		return do
	}
	r.own()
	s.sent = *r
	switch tx.state {
	case stateAccepted: // repeats are the user's, by its own handle
		tx.user = nil
	case stateCompleted:
		if tx.machine == &nonInviteServer {
			tx.last, tx.user = r.data, nil
		}
	}
	tx.tidyLocked()
	return do
}

// tidyLocked releases everything at the end, and until then counts the bytes that are held.
func (tx *serverTx) tidyLocked() {
	if tx.over {
		return
	}
	if tx.state == stateTerminated {
		tx.last, tx.user = nil, nil
		tx.layer.servers.remove(tx.key, tx)
		tx.layer.merging.remove(tx.merge, tx)
	}
	tx.weighLocked()
}

// weigh counts the bytes of a new transaction.
func (tx *serverTx) weigh() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.weighLocked()
}

// weighLocked counts the present bytes of the transaction in place of those before.
func (tx *serverTx) weighLocked() {
	weight := 0
	if tx.state != stateTerminated {
		weight = txWeight + textWeight(len(tx.key)+len(tx.merge)+len(tx.toTag))
		if tx.user != nil {
			weight += tx.user.weight
		} else {
			weight += textWeight(len(tx.last))
		}
	}
	tx.layer.held.give(int64(tx.held - weight))
	tx.held = weight
}

// discard ends a transaction that is in no table.
func (tx *serverTx) discard() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.state = stateTerminated
	tx.weighLocked()
}

// requestAgain answers a retransmission as the first one was. Over UDP each copy says
// where its sender is: a router may have forgotten the binding of the copies before.
func (tx *serverTx) requestAgain(m *sipmsg.Message, flow *transport.Flow) {
	if tx.isOver() {
		tx.layer.requestPast([]byte(tx.key), m, flow)
		return
	}
	if !flow.Reliable() && !tx.reliable && tx.repeats(m) {
		tx.replyBy(tx.layer.transport.Reply(flow, m))
	}
	if data := tx.step(eventRequest); data != nil {
		tx.layer.counters.retransmitted.Add(1)
		_ = tx.write(data, nil) // it comes again when this is lost
	}
}

// repeats reports whether a request, whose branch is that of the transaction, belongs to
// the same call: a stranger may guess the branch of some clients.
func (tx *serverTx) repeats(m *sipmsg.Message) bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.user == nil {
		return tx.merge == "" || tx.merge == mergeKey(m)
	}
	first := tx.user.m
	return first.CallID == m.CallID && first.FromTag == m.FromTag && first.CSeq == m.CSeq
}

// replyBy has responses go by another flow from now on.
func (tx *serverTx) replyBy(flow *transport.Flow) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.reply = flow
}

// step takes an arrow and returns the bytes to write.
func (tx *serverTx) step(e event) []byte {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.stepLocked(e)
}

func (tx *serverTx) stepLocked(e event) []byte {
	do, ok := tx.advanceLocked(e)
	if !ok {
		return nil
	}
	if do&fail != 0 {
		tx.failLocked(tx.user, ErrTimeout)
	}
	if e == eventRetry && tx.machine == &nonInviteServer {
		tx.user.sent = response{code: sip.StatusTrying, reason: reasonPhrase(sip.StatusTrying)} // RFC 4320 4.1
	}
	var data []byte
	if do&send != 0 {
		data = tx.lastLocked()
	}
	tx.tidyLocked()
	return data
}

// lastLocked is the last response; nil before the first.
func (tx *serverTx) lastLocked() []byte {
	if tx.user != nil {
		return tx.user.bytes(tx.user.sent)
	}
	return tx.last
}

func (tx *serverTx) onTimer(s *slot, generation uint32) {
	if data := tx.expire(s, generation); data != nil {
		if tx.machine == &inviteServer {
			tx.layer.counters.retransmitted.Add(1)
		}
		_ = tx.write(data, nil) // Timer H reports a failure
	}
}

func (tx *serverTx) expire(s *slot, generation uint32) []byte {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if s.generation != generation {
		return nil
	}
	return tx.stepLocked(s.event)
}

func (tx *serverTx) failLocked(s *Server, err error) {
	if s != nil {
		tx.layer.queues.push(s.callID, 0, func() { tx.layer.user.ServerFailed(s, err) })
	}
}

// close ends the transaction without a word.
func (tx *serverTx) close() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.state = stateTerminated
	tx.stopLocked()
	tx.tidyLocked()
}
