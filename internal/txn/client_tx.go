package txn

import (
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// clientTx is the machine, for one target. After the final response it keeps
// bytes only.
type clientTx struct {
	transaction

	// Set at construction.

	flow *transport.Flow

	// transaction.mu guards the fields below.

	client      *Client // for the user; nil when nothing is delivered (any more)
	data        []byte  // until the final response
	ack         []byte  // the ACK to a failure of an INVITE
	provisional bool
	cancelled   bool           // CANCEL is asked for
	extra       []sip.Header   // what CANCEL carries besides
	repeats     map[string]int // how many further 2xx wait for delivery, by To tag
	unwatch     func()         // ends the watch over the connection; nil before and after
}

// output has the actions of a step that are performed without the lock.
type output struct {
	data    []byte    // to be written
	cancel  *clientTx // to be started
	unwatch func()    // to be called
}

// newClient makes a transaction that is in no table yet. client is nil for a
// CANCEL, whose responses are not delivered.
func (l *Layer) newClient(o outgoing, client *Client) *clientTx {
	tx := &clientTx{
		transaction: transaction{
			layer: l, key: clientKey(o.branch, o.req.Method),
			machine: &nonInviteClient, reliable: o.flow.Reliable(), timeout: l.timeout,
			state: stateTrying,
		},
		flow:   o.flow,
		client: client,
		data:   o.data,
	}
	if o.req.Method == sip.INVITE {
		tx.machine, tx.state = &inviteClient, stateCalling
	}
	tx.attach(tx)
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
	tx.client = nil
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

// heardBy notes the flow that a response has come by.
func (tx *clientTx) heardBy(flow *transport.Flow) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if c := tx.client; c != nil {
		c.mu.Lock()
		c.heard = flow
		c.mu.Unlock()
	}
}

func (tx *clientTx) receive(res *sipmsg.Message) {
	tx.perform(tx.step(responseEvent(res.Status), res, nil))
}

func (tx *clientTx) lost(err error) {
	tx.perform(tx.step(eventLost, nil, errtext.As(ErrTransport, err)))
}

func (tx *clientTx) onTimer(s *slot, generation uint32) {
	if silence := tx.unanswered(s, generation); silence > 0 {
		// Before the timeout is delivered: the user's next request avoids this flow.
		tx.flow.Doubt(silence)
	}
	tx.perform(tx.expire(s, generation))
}

// unanswered is how long a transaction has waited that times out now; zero where none
// does.
func (tx *clientTx) unanswered(s *slot, generation uint32) time.Duration {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case s.event != eventLimit || s.generation != generation || !tx.waitingLocked():
		return 0
	case tx.machine == &inviteClient && tx.state == stateProceeding: // see cancelLocked
		return tx.layer.timers.limit()
	}
	return tx.timeout
}

func (tx *clientTx) expire(s *slot, generation uint32) output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if s.generation != generation {
		return output{}
	}
	err := ErrTimeout
	if tx.machine == &inviteClient && tx.state == stateProceeding {
		err = ErrCancelled // RFC 3261 9.1: the only limit there is the one after CANCEL
	}
	return tx.stepLocked(s.event, nil, err)
}

func (tx *clientTx) step(e event, res *sipmsg.Message, err error) output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.stepLocked(e, res, err)
}

// stepLocked takes the arrow for e. Deliveries to the user are queued here, under the
// lock, so that they come in the order of the steps.
func (tx *clientTx) stepLocked(e event, res *sipmsg.Message, err error) output {
	do, ok := tx.advanceLocked(e)
	if !ok {
		return output{}
	}
	var out output
	switch {
	case do&send != 0:
		out.data = tx.data
		tx.layer.counters.retransmitted.Add(1)
	case do&ack != 0:
		out.data = tx.ackLocked(res)
	}
	if failsOver(e, do, res, tx.provisional) && tx.moveLocked(outcome{res: res, err: err, lost: e == eventLost}) {
		do &^= up | done | fail
	}
	switch {
	case do&up == 0:
	case e == event2xx && do&linger == 0:
		tx.repeatedLocked(res)
	default:
		out.data = tx.responseLocked(res, out.data)
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
		out.unwatch = tx.unwatch
		tx.unwatch, tx.data = nil, nil
	}
	tx.restLocked(tx.fileLocked)
	if tx.state == stateTerminated {
		tx.layer.clients.remove(tx.key, tx)
	}
	return out
}

// responseLocked delivers a response to the user, once the ACK to it, if there is one,
// has been written: a peer that reads the user's next request before the ACK may refuse
// it. The caller writes the result.
func (tx *clientTx) responseLocked(res *sipmsg.Message, ack []byte) (unsent []byte) {
	c := tx.client
	if c == nil {
		return ack
	}
	if tx.waitingLocked() {
		if !tx.layer.queues.push(c.callID, tx.layer.queueLen, func() { c.hear(res) }) {
			tx.layer.counters.responses.Add(1)
		}
		return nil
	}
	if !tx.layer.queues.push(c.callID, 0, func() {
		tx.perform(output{data: ack})
		c.final(res)
	}) {
		return ack
	}
	return nil
}

// maxRepeats is how many 2xx with the same To tag wait for their delivery. RFC 3261
// 13.3.1.4 has a peer send eleven in all.
const maxRepeats = 32

// repeatedLocked delivers a further 2xx to an INVITE. While maxRepeats of one To tag wait,
// more of them are dropped, since each gets the same ACK: a peer that repeats its 2xx
// without end does not fill the queue.
func (tx *clientTx) repeatedLocked(res *sipmsg.Message) {
	c := tx.client
	if c == nil {
		return
	}
	tag := res.ToTag
	if tx.repeats[tag] >= maxRepeats || !tx.layer.queues.push(c.callID, tx.layer.queueLen, func() {
		tx.toldOf(tag)
		c.user.Response(c, res)
	}) {
		tx.layer.counters.responses.Add(1)
		return
	}
	if tx.repeats == nil {
		tx.repeats = make(map[string]int)
	}
	tx.repeats[tag]++
}

// toldOf allows the delivery of another 2xx with that To tag.
func (tx *clientTx) toldOf(tag string) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.repeats[tag]--; tx.repeats[tag] <= 0 {
		delete(tx.repeats, tag)
	}
	if len(tx.repeats) == 0 {
		tx.repeats = nil
	}
}

func (tx *clientTx) doneLocked(err error) {
	if c := tx.client; c != nil {
		tx.layer.queues.push(c.callID, 0, func() { c.done(err) })
	}
	tx.client = nil
}

// perform does the actions of a step. No lock is held.
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
		out.cancel.logCancel()
		// If it cannot be written, the INVITE ends by its own timer or watch.
		_ = out.cancel.launch()
	}
}

// close ends the transaction: with ErrClosed for a user that has no final response, with
// nil for one that has its 2xx.
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
