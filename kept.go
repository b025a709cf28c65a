package dialog

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/callrecord"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/tasks"
)

// How a call is kept in the Store of the configuration. internal/storewriter says when it is
// written, this file what. docs/cluster.md has the rules.

// Durability says what waits for the Store.
type Durability int

const (
	// BeforeAnswer saves a call before its 2xx or our ACK is sent, and likewise a re-INVITE
	// or UPDATE that changes our session: what the peer knows to be agreed is never lost with
	// the process. That adds the time of a Save, and at most StoreTimeout, to the answer.
	BeforeAnswer Durability = iota
	// Async saves it meanwhile: a process that dies loses the calls of its last few
	// milliseconds.
	Async
)

const (
	defaultStoreTimeout = 250 * time.Millisecond
	// checkAge is how old the Store's word may be that a call is ours when something is sent
	// that the peer has not asked for. lease is how old it may be for a refresh while the Store
	// does not answer.
	checkAge, lease = 30 * time.Second, 2 * time.Minute
	// checkAgain is the pause before a session that has expired is looked at again while the
	// Store does not answer.
	checkAgain = 5 * time.Second
	// keptLonger is how long a record outlasts its session: who reads it relies on that.
	// keptWithout is how long it is kept without a session timer.
	keptLonger, keptWithout = time.Hour, 24 * time.Hour
)

// newStoreWriters is the part of a Stack that writes its calls, nil without a Store.
func (s *Stack) newStoreWriters() *storewriter.Group {
	if s.config.Store == nil {
		return nil
	}
	s.owner = orDefault(s.config.Node, "node") + "." + randomHex(4)
	g := &storewriter.Group{Store: engine{s}, Go: s.tasks.Go, Run: s.tasks.Run, Base: s.base}
	if store, ok := s.config.Store.(PromptStore); ok && store.Prompt() == s.config.Store {
		g.IsPrompt, g.DropAll = true, engine{s}.dropAll
	}
	return g
}

// checkStore is a part of validate.
func (c *StackConfig) checkStore() error {
	switch {
	case c.Durability < BeforeAnswer || c.Durability > Async:
		return invalid("Durability %d", c.Durability)
	case (c.Seal == nil) != (c.Open == nil):
		return invalid("Seal without Open, or Open without Seal")
	case c.StoreTimeout < 0:
		return invalid("StoreTimeout %v", c.StoreTimeout)
	case strings.ContainsFunc(c.Node, func(r rune) bool { return r <= ' ' || r > '~' }):
		return invalid("Node %q", c.Node)
	}
	return nil
}

func (c *StackConfig) storeTimeout() time.Duration {
	return orDefault(c.StoreTimeout, defaultStoreTimeout)
}

// engine is the Store for internal/storewriter.
type engine struct{ s *Stack }

func (e engine) Check(ctx context.Context, key storewriter.Key, fence uint64) storewriter.Result {
	return e.s.askStoreHere(func(store Store) error { return store.Check(ctx, StoreKey(key), fence) })
}

func (e engine) Drop(ctx context.Context, key storewriter.Key, fence uint64) storewriter.Result {
	return e.s.askStoreHere(func(store Store) error { return store.Drop(ctx, StoreKey(key), fence, e.tomb()) })
}

func (e engine) dropAll(ctx context.Context, calls []storewriter.Dropped) (results []storewriter.Result) {
	list := make([]Record, len(calls))
	for i, call := range calls {
		list[i] = Record{Key: StoreKey(call.Key), Fence: call.Fence}
	}
	e.s.askStoreHere(func(store Store) error {
		for _, err := range store.(PromptStore).DropAll(ctx, list, e.tomb()) {
			results = append(results, resultOf(err))
		}
		return nil
	})
	return results
}

// tomb is how long a call that has ended is known as such: requests are repeated so long.
func (e engine) tomb() time.Duration { return 64 * e.s.config.timers().T1 }

func (e engine) Take(ctx context.Context, key storewriter.Key) (fence uint64, result storewriter.Result) {
	result = e.s.askStoreHere(func(store Store) error {
		r, err := store.Take(ctx, StoreKey(key), e.s.owner)
		fence = r.Fence
		return err
	})
	return fence, result
}

// askStore is askStoreHere, with a Store that may end its goroutine (runtime.Goexit).
func (s *Stack) askStore(ask func(Store) error) (result storewriter.Result) {
	tasks.Apart(func() { result = s.askStoreHere(ask) })
	return result
}

// askStoreHere calls a method of the Store. One that panics has not answered.
func (s *Stack) askStoreHere(ask func(Store) error) (result storewriter.Result) {
	defer func() {
		if value := recover(); value != nil {
			s.logPanic(s.log, "Store", value, debug.Stack())
			result = storewriter.Unknown
		}
	}()
	return resultOf(ask(s.config.Store))
}

func resultOf(err error) storewriter.Result {
	switch {
	case err == nil:
		return storewriter.Done
	case errors.Is(err, ErrMoved), errors.Is(err, ErrEnded):
		return storewriter.Moved
	case errors.Is(err, ErrNotKept):
		return storewriter.NotKept
	}
	return storewriter.Unknown
}

// writerLocked is the Writer of the call; nil without a Store, and before the call is
// answered.
func (d *Dialog) writerLocked() *storewriter.Writer {
	if d.saved == nil {
		return nil
	}
	return d.saved.writer
}

// writer is writerLocked for those without the mutex.
func (d *Dialog) writer() *storewriter.Writer {
	if d.stack == nil || d.stack.writers == nil {
		return nil
	}
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.writerLocked()
}

// changedLocked has the call saved, now that it has changed.
func (d *Dialog) changedLocked() { d.keepingLocked().Mark() }

// keepingLocked is the Writer of a call that was answered; nil without a Store, and once the
// call is being ended. The first change is its 2xx.
func (d *Dialog) keepingLocked() *storewriter.Writer {
	if d.stack == nil || d.stack.writers == nil || d.state == DialogStateTerminated || d.ending != nil {
		return nil
	}
	if d.saved == nil {
		d.saved = &keptCall{}
	}
	if d.saved.writer == nil {
		d.saved.writer = d.stack.writers.NewCall(storewriter.Key(NewStoreKey(d.callID, d.ownTag())), (*writtenCall)(d))
	}
	return d.saved.writer
}

// saveAnswerLocked has an established call saved with what our 2xx agrees upon. It reports
// whether the 2xx waits for that: awaitSaved must follow.
func (d *Dialog) saveAnswerLocked() (held bool) {
	if d.state != DialogStateEstablished {
		return false
	}
	w := d.keepingLocked()
	if held = d.answersSavedLocked(); held {
		w.Note()
	} else {
		w.Mark()
	}
	return held
}

// changedIfKeptLocked is changedLocked for what may change before the 2xx.
func (d *Dialog) changedIfKeptLocked() { d.writerLocked().Mark() }

// writtenCall is a Dialog for internal/storewriter.
type writtenCall Dialog

// Save saves the call as it is now.
func (c *writtenCall) Save(ctx context.Context, fence uint64) storewriter.Result {
	d := (*Dialog)(c)
	r, ok := d.record(fence)
	if !ok {
		return storewriter.Done // it is being ended: its Drop follows
	}
	return d.stack.askStoreHere(func(store Store) (err error) {
		if seal := d.config().Seal; seal != nil {
			if r.Data, err = seal(r.Data); err != nil {
				return err
			}
		}
		return store.Save(ctx, r)
	})
}

// record is the call as it is now, and false if it is being ended.
func (d *Dialog) record(fence uint64) (r Record, ok bool) {
	now := time.Now()
	d.mutex.Lock()
	if d.state == DialogStateTerminated || d.ending != nil || d.peerHungUp {
		d.mutex.Unlock()
		return Record{}, false
	}
	d.saved.writer.Reading()
	snapshot := d.snapshotLocked(now)
	snapshot.Fence = fence
	d.saved.offered, d.saved.offeredSession = snapshot.SeqTop, d.currentLocked().negotiation.Local()
	d.currentLocked().Limit(snapshot.SeqTop)
	r = Record{
		Key: NewStoreKey(d.callID, d.ownTag()), Fence: fence, Owner: d.stack.owner,
		Due: d.dueLocked(now), Expires: d.keptUntilLocked(now),
	}
	d.mutex.Unlock()
	r.Data = d.stack.pack(snapshot)
	return r, true
}

// dueLocked is when another process should see to the session: at once for a call that is
// handed over. One that is overdue already is being refreshed.
func (d *Dialog) dueLocked(now time.Time) time.Time {
	due := d.timer.DueAt()
	if d.saved.leaving {
		return now
	}
	if !due.IsZero() && !due.After(now) {
		return now.Add(ClaimTime)
	}
	return due
}

// keptUntilLocked is when the Store may forget the call.
func (d *Dialog) keptUntilLocked(now time.Time) time.Time {
	if d.timer.Active() {
		return d.timer.ExpiresAt().Add(keptLonger)
	}
	return now.Add(keptWithout)
}

// answersSavedLocked reports whether our answer waits until the call is saved: the Store does
// not have it yet, or has it with another session of ours.
func (d *Dialog) answersSavedLocked() bool {
	return d.config().Durability == BeforeAnswer && d.writerLocked() != nil &&
		!(d.saved.isKept && d.saved.session == d.currentLocked().negotiation.Local())
}

// awaitSaved waits until the call is saved as it is now, and goes on without that after the
// StoreTimeout, or a tenth of it if the Store has not answered lately.
func (d *Dialog) awaitSaved() (isSaved bool) {
	wait := d.config().storeTimeout()
	if d.stack.writers.IsDown() {
		wait /= 10
	}
	ctx, cancel := context.WithTimeout(d.baseContext(), wait)
	defer cancel()
	isSaved = d.writer().Wait(ctx) != storewriter.Unknown
	if !isSaved {
		d.stack.counters.unsaved.Add(1)
	}
	return isSaved
}

// respondWhenSaved writes a 2xx once saved has waited for that, on a goroutine of its own: the
// peer's next messages do not wait. If saved reports that the call has ended meanwhile, the
// request gets 487 (RFC 3261 15.1.2).
func (d *Dialog) respondWhenSaved(tx serverTx, res *sip.Response, saved func() bool) {
	d.finalGoodbye(func() {
		if saved() {
			d.stack.respond(tx, res)
			return
		}
		d.stack.answerWith(tx, sip.StatusRequestTerminated)
	})
}

// fewSeqs is how many CSeq numbers are left when a request waits for more of them: several
// may be on their way to draw one.
const fewSeqs = 8

// awaitSeqs waits, before a request draws its CSeq number, until there are numbers that no
// other process will use, at most for the StoreTimeout. dialogstate draws none that are not.
func (d *Dialog) awaitSeqs() {
	if d.lacksSeqs() {
		d.writer().Note()
		d.awaitSaved()
	}
}

// errStoreSilent explains an ErrTimeout.
var errStoreSilent = errors.New("the Store does not respond")

func (d *Dialog) lacksSeqs() bool {
	if d.writer() == nil {
		return false
	}
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.currentLocked().SeqsLeft() < fewSeqs
}

// drewLocked asks for more CSeq numbers when some of them are used.
func (s *dialogState) drewLocked() {
	if s.SeqsLeft() < callrecord.SeqBlock-callrecord.SeqRenew {
		s.d.changedIfKeptLocked()
	}
}

// confirm reports whether the call is still this process's, before something that the peer
// has not asked for. Unknown means that the Store does not respond.
func (d *Dialog) confirm(ctx context.Context) storewriter.Result {
	w := d.writer()
	if w.IsConfirmed(checkAge) {
		return storewriter.Done
	}
	ctx, cancel := context.WithTimeout(ctx, d.config().storeTimeout())
	defer cancel()
	return w.Confirm(ctx, checkAge)
}

// pack makes the bytes of a Record of a snapshot, and unpack reads them.
func (s *Stack) pack(snapshot *Snapshot) []byte { return snapshot.Text() }

func (s *Stack) unpack(data []byte) (*Snapshot, error) {
	if open := s.config.Open; open != nil {
		err := ErrPanic
		tasks.Apart(func() { data, err = open(data) })
		if err != nil {
			return nil, err
		}
	}
	snapshot := &Snapshot{}
	return snapshot, snapshot.UnmarshalJSON(data)
}

// Saved lets the CSeq numbers be used that the latest record has reserved.
func (c *writtenCall) Saved() {
	d := (*Dialog)(c)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.currentLocked().Allow(d.saved.offered)
	d.saved.isKept, d.saved.session = true, d.saved.offeredSession
}

// Moved ends the call here, since another process has it: nothing is sent, and the Store
// keeps it.
func (c *writtenCall) Moved() { (*Dialog)(c).moveAway(ErrMoved) }
