package dialog

import (
	"errors"
	"time"

	"sipdialog.example/dialog/internal/registry"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The stack's mutex guards the registry (internal/registry): the functions of this file take
// it, but for those called …Locked.

// These refuse a call inside the stack.
var (
	errTooManyFromSource = errors.New("dialog: too many dialogs from one source")
	errDraining          = errors.New("dialog: stack is draining")
)

func newRegistry(c *StackConfig) *registry.Of[DialogKey, *Dialog] {
	return registry.New[DialogKey](time.Now(), registry.Limits{
		Calls: c.maxDialogs(), PerSource: c.Limits.DialogsPerSource,
		Subscribed: orDefault(c.Limits.SubscribedCalls, defaultSubscribed), Ended: orDefault(c.Limits.Tombstones, defaultTombstones),
	}, registry.Traits[*Dialog]{Source: (*Dialog).source, IsCallee: (*Dialog).IsUAS})
}

// registered is the error for a dialog that was not added.
func registered(v registry.Verdict) error {
	return [...]error{
		registry.Full: ErrMaxDialogs, registry.SourceFull: errTooManyFromSource,
		registry.Known: ErrExists, registry.Ended: ErrEnded,
	}[v]
}

// DialogByKey returns the call with that key. A key without the peer's tag, from before
// the tag was known, finds the call until it ends.
func (s *Stack) DialogByKey(key DialogKey) (*Dialog, bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.registry.ByKey(key)
}

// Dialogs returns the calls in progress, in no order.
func (s *Stack) Dialogs() []*Dialog {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	list := make([]*Dialog, 0, len(s.dialogs))
	for _, d := range s.dialogs {
		list = append(list, d)
	}
	return list
}

// openCalls returns the calls of which something is left.
func (s *Stack) openCalls() []*Dialog {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.registry.Open()
}

// find returns the dialog of a request of the peer (RFC 3261 12.2.2), or nil.
func (s *Stack) find(key DialogKey) *Dialog {
	s.mutex.RLock()
	d, byHalf := s.registry.Find(key)
	s.mutex.RUnlock()
	if byHalf && !d.isEarly() {
		return nil
	}
	return d
}

// isEarly reports whether forks of our INVITE may still answer.
func (d *Dialog) isEarly() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.phase == phaseInviting
}

// keyOfRequest is the key of the dialog of a peer's request.
func keyOfRequest(req *sipmsg.Message) DialogKey {
	return DialogKey{CallID: sipheader.CallID(req), LocalTag: sipheader.ToTag(req), RemoteTag: sipheader.FromTag(req)}
}

func keyOfResponse(res *sipmsg.Message) DialogKey {
	return DialogKey{CallID: sipheader.CallID(res), LocalTag: sipheader.FromTag(res), RemoteTag: sipheader.ToTag(res)}
}

// register adds a new call, within MaxDialogs.
func (s *Stack) register(d *Dialog) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	if s.refusesLocked(d) {
		return errDraining
	}
	var replaced *Dialog
	if t := d.incoming.replacement; t != nil && !t.Join && t.Refusal(t.state()) == 0 {
		replaced = t.call
	}
	// The dialog is new: no other goroutine holds its mutex.
	return registered(s.registry.Add(d.keyLocked(), d, replaced))
}

// rekeyLocked files a dialog under its present key. Both mutexes are held.
func (d *Dialog) rekeyLocked(old DialogKey) {
	if d.stack != nil && d.keyLocked() != old {
		d.stack.registry.Rekey(d, old, d.keyLocked())
	}
}

// leaveActiveLocked removes a dialog that ended from the calls in progress. Requests
// still find it while its peer is not released.
func (s *Stack) leaveActiveLocked(d *Dialog) {
	if s != nil && s.registry.Leave(d.keyLocked(), d) {
		s.fileEndedLocked(d)
	}
}

// forgetLocked removes a dialog whose peer is released, or whose last subscription has
// ended.
func (s *Stack) forgetLocked(d *Dialog) {
	if s != nil && s.registry.Leaves(d.keyLocked(), d) {
		s.fileEndedLocked(d)
	}
}

// fileEndedLocked files an ended call, and leaves a tombstone if nothing is left of it.
func (s *Stack) fileEndedLocked(d *Dialog) {
	key := d.keyLocked()
	if s.registry.File(key, d, d.phase.isOpen(), d.inUseLocked()) {
		return
	}
	d.endSubscriptionsLocked(ErrMaxDialogs)
	d.holds.End()
	if !d.movedAwayLocked() { // it may come back
		s.addTombstoneLocked(d)
	}
	s.registry.Announce()
}

func (s *Stack) addTombstoneLocked(d *Dialog) {
	if s.client == nil {
		return // not started, or closed: nothing arrives any more
	}
	life := 64 * s.config.timers().T1
	s.registry.AddTombstone(time.Now(), life, d.keyLocked(), d.currentLocked().reliable.awaited())
	if s.tombstoneTimer == nil {
		s.tombstoneTimer = s.timers().AfterFunc(life, s.expireTombstones)
	}
}

// tombstonesTogether is how long tombstones may outstay their time, so that many end at
// once.
const tombstonesTogether = 100 * time.Millisecond

// expireTombstones drops the tombstones that have expired, and arms the timer for the
// next.
func (s *Stack) expireTombstones() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.tombstoneTimer == nil {
		return // shut down
	}
	if next, ok := s.registry.Expire(time.Now()); ok {
		s.tombstoneTimer.Reset(max(next, tombstonesTogether))
		return
	}
	s.tombstoneTimer = nil
}

func (s *Stack) dropTombstonesLocked() {
	stopTimer(s.tombstoneTimer)
	s.tombstoneTimer = nil
	s.registry.ForgetEnded()
}

// recentlyEnded reports whether a call with that key ended within 64*T1, and returns
// the PRACK that it still expects.
func (s *Stack) recentlyEnded(key DialogKey) (expected rel100.RAck, ok bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.registry.EndedLately(key)
}
