package dialog

import (
	"context"
	"errors"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/callrecord"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/takeover"
	"sipdialog.example/dialog/internal/tasks"
	"sipdialog.example/dialog/internal/transport"
)

// How this process goes on with calls that another process had. internal/takeover says
// which of them the Store is asked for; docs/cluster.md describes the whole.

// Takeover says why a call that another process had is here now.
type Takeover struct {
	// Method is that of the peer's request which led to it, or INVITE if that was a 200 to
	// ours which the peer has sent again. It is empty if the call was taken because its
	// session timer was overdue, or because it was handed over.
	Method sip.RequestMethod
}

// OnRestored sets the callback for calls that were taken over from the Store of the
// configuration; those of [Stack.Restore] are not told. The callback runs on its own
// goroutine, with no lock held, before the request that led to the takeover is handled: it
// can read AppData, and register callbacks. The request, and all other messages of that
// call, wait until it returns, two seconds at most. A panic in it is counted, and the call
// goes on.
func (s *Stack) OnRestored(callback func(*Dialog, Takeover)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.callbacks.OnRestored = callback
}

const (
	defaultTakes = 1000
	// takesAtOnce bounds the requests that wait for the Store at the same time.
	takesAtOnce = 256
)

// newTakeovers bounds what the Store is asked; nil without one.
func newTakeovers(c *StackConfig) *takeovers {
	if c.Store == nil {
		return nil
	}
	return &takeovers{gate: takeover.New[StoreKey](orDefault(c.Limits.TakesPerSecond, defaultTakes), takesAtOnce)}
}

// takeOverInDialog takes over the call of a request that is for no call here, and handles
// it. It reports false if there is no such call anywhere.
func (s *Stack) takeOverInDialog(tx serverTx, req *sipmsg.Message, key DialogKey) (answered bool) {
	if s.takeovers == nil {
		return false
	}
	switch s.takeOver(key, req.Method) {
	case takeover.Taken:
		d := s.find(key)
		if d == nil {
			return false // its From tag is another's, or the call has ended in OnRestored
		}
		d.handleRequest(tx, req)
	case takeover.NotKept:
		return false
	case takeover.Ended:
		s.answerEnded(tx)
	default:
		// A 481 would end the call (RFC 5057 5.1).
		s.busy(tx, &s.counters.takeovers)
	}
	return true
}

// answerEnded answers a request for a call that has ended: a BYE has crossed ours, or was
// sent again (RFC 5407 3.2.1).
func (s *Stack) answerEnded(tx serverTx) {
	if tx.Message().Method == sip.BYE {
		s.answerWith(tx, sip.StatusOK)
		return
	}
	tx.Dismiss(sip.StatusCallTransactionDoesNotExists)
}

// takeOverByAck takes over the call of an ACK that is for no call here: one with an answer
// in it. Another tells nothing that the state of the call does not have.
func (s *Stack) takeOverByAck(ack *sipmsg.Message, flow *transport.Flow) {
	if s.takeovers == nil || len(ack.Body()) == 0 {
		return
	}
	key := keyOfRequest(ack)
	if _, ended := s.recentlyEnded(key); ended || s.takeOver(key, sip.ACK) != takeover.Taken {
		return
	}
	if d := s.find(key); d != nil {
		d.handleAck(ack, flow)
	}
}

// unmatched returns what is done about a 2xx to an INVITE that this process has not sent: its
// sender repeats it, since it has got no ACK from the process that had the call before.
func (s *Stack) unmatched(res *sipmsg.Message) func() {
	key := keyOfResponse(res)
	if key.LocalTag == "" || key.RemoteTag == "" || s.takeovers == nil && s.find(key) == nil {
		return nil
	}
	return func() {
		if _, ended := s.recentlyEnded(key); ended {
			return
		}
		if s.find(key) == nil && (s.takeovers == nil || s.takeOver(key, sip.INVITE) != takeover.Taken) {
			return
		}
		if d := s.find(key); d != nil {
			d.acknowledgeUnmatched(sipheader.CSeq(res))
		}
	}
}

// takeOver takes the call of a request over, if the Store may be asked. The caller is the
// queue of the Call-ID, so that nothing else waits.
func (s *Stack) takeOver(key DialogKey, method sip.RequestMethod) (outcome takeover.Outcome) {
	if s.ready() != nil {
		return takeover.Failed
	}
	gate, id := s.takeovers.gate, NewStoreKey(key.CallID, key.LocalTag)
	outcome, may := gate.Begin(id, time.Now())
	if !may {
		return outcome
	}
	outcome = takeover.Failed
	defer func() { gate.End(id, outcome, time.Now()) }()
	if s.room() == 0 {
		return takeover.Failed // it is not taken: its owner may live
	}
	ctx, cancel := context.WithTimeout(s.base, s.config.storeTimeout())
	defer cancel()
	if peeker, ok := s.config.Store.(Peeker); ok { // its owner may live: it is taken if we can go on with it
		if _, _, outcome = s.lookUp(func() (Record, error) { return peeker.Peek(ctx, id) }); outcome != takeover.Taken {
			return outcome
		}
	}
	asked := time.Now()
	r, snapshot, outcome := s.lookUp(func() (Record, error) { return s.config.Store.Take(ctx, id, s.owner) })
	if outcome != takeover.Taken {
		return outcome
	}
	return s.goOn(snapshot, ownership{fence: r.Fence, confirmed: asked, due: r.Due}, Takeover{Method: method})
}

// lookUp gets a record from the Store, and reports Taken if this process can go on with it.
func (s *Stack) lookUp(get func() (Record, error)) (r Record, snapshot *Snapshot, outcome takeover.Outcome) {
	err := ErrPanic
	s.askStore(func(Store) error {
		r, err = get()
		return err
	})
	s.storeAnswered(err)
	switch {
	case errors.Is(err, ErrNotKept):
		return r, nil, takeover.NotKept
	case errors.Is(err, ErrEnded):
		return r, nil, takeover.Ended
	case err != nil:
		return r, nil, takeover.Failed
	}
	if snapshot = s.readRecord(r); snapshot == nil {
		return r, nil, takeover.Unusable
	}
	return r, snapshot, takeover.Taken
}

// storeAnswered logs when the Store begins to fail, once: each request may ask it.
func (s *Stack) storeAnswered(err error) {
	failed := err != nil && !errors.Is(err, ErrNotKept) && !errors.Is(err, ErrEnded)
	if s.takeovers.failing.Swap(failed) != failed && failed {
		s.log.Warn("calls cannot be taken over: the Store does not respond", "error", err)
	}
}

// goOn restores a call that was taken from the Store, and tells the application. It runs in
// the queue of the Call-ID.
func (s *Stack) goOn(snapshot *Snapshot, by ownership, why Takeover) takeover.Outcome {
	by.overdue, by.heard = why.Method == "", why.Method != ""
	d, err := s.restore(snapshot, by)
	if errors.Is(err, ErrExists) {
		if s.keepTaken(snapshot, by) {
			return takeover.Taken
		}
		d, err = s.restore(snapshot, by)
	}
	switch {
	case errors.Is(err, ErrEnded):
		return takeover.Ended
	case errors.Is(err, ErrVersion), errors.Is(err, ErrInvalidArgument):
		s.refuseRecord(snapshot.CallID, err)
		return takeover.Unusable
	case err != nil:
		s.log.Warn("call cannot be taken over", "call_id", snapshot.CallID, "error", err)
		return takeover.Failed
	}
	s.counters.takenOver.Add(1)
	d.putOff(by)
	s.tellRestored(d, why)
	return takeover.Taken
}

// putOff has a call saved whose record is due, so that no other process takes it too.
func (d *Dialog) putOff(by ownership) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if by.overdue || !by.due.IsZero() && !by.due.After(time.Now()) {
		d.changedIfKeptLocked()
	}
}

// keepTaken keeps a call that is here, and was taken from the Store once more: its session
// was overdue. It reports false if other processes have had the call meanwhile. What is here
// is old then, its CSeq numbers too, and ends; the call is to be restored.
func (s *Stack) keepTaken(snapshot *Snapshot, by ownership) bool {
	d := s.find(DialogKey{CallID: snapshot.CallID, LocalTag: snapshot.LocalTag, RemoteTag: snapshot.RemoteTag})
	if d == nil {
		return true
	}
	w := d.writer()
	if w == nil || by.fence <= w.Fence()+1 || d.isEnding() {
		w.Raise(by.fence, by.confirmed)
		return true
	}
	w.Release()
	d.moveAway(ErrMoved)
	return false
}

func (d *Dialog) isEnding() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.ending != nil || d.peerHungUp
}

// refuseRecord logs a record with which this process cannot go on. The record stays: another
// one may be able to.
func (s *Stack) refuseRecord(name string, err error) {
	s.log.Warn("record of the Store cannot be taken over", "record", name, "error", err)
}

// readRecord returns the snapshot of a record; nil if it is none, or is not for this process.
func (s *Stack) readRecord(r Record) *Snapshot {
	snapshot, err := s.unpack(r.Data)
	switch {
	case err != nil:
	case snapshot.Version > SnapshotVersion:
		err = ErrVersion
	case NewStoreKey(snapshot.CallID, snapshot.LocalTag) != r.Key:
		err = invalid("snapshot of another call")
	case !s.wants(snapshot):
		return nil
	default:
		if !r.Expires.IsZero() { // the Store may have its own clock for that
			callrecord.SetEnds(snapshot, time.Now(), r.Expires.Add(-keptLonger))
		}
		return snapshot
	}
	s.refuseRecord(r.Key.String(), err)
	return nil
}

// wants asks TakeoverFilter. One that panics refuses.
func (s *Stack) wants(snapshot *Snapshot) (yes bool) {
	filter := s.config.TakeoverFilter
	if filter == nil {
		return true
	}
	shown := snapshot.Clone()
	s.application(func() {
		value, returned := tasks.Apart(func() { yes = filter(shown) })
		if !returned {
			yes = false
			s.logPanic(s.log, "TakeoverFilter", value, nil)
		}
	})
	return yes
}

// restoredPatience bounds how long the messages of a call wait for OnRestored.
const restoredPatience = 2 * time.Second

// tellRestored runs OnRestored, and waits for it.
func (s *Stack) tellRestored(d *Dialog, why Takeover) {
	callback := s.callbacksNow().OnRestored
	if callback == nil {
		return
	}
	done := make(chan struct{})
	if !s.calls.Go(func() {
		s.guard(d.log, "OnRestored", func() { callback(d, why) }, func() { close(done) })
	}) {
		return
	}
	limit := time.NewTimer(restoredPatience)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		d.log().Warn("OnRestored has not returned: the call continues")
	case <-s.base.Done():
	}
}
