package dialog

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/tombstone"
)

// The registry is six sets of the stack, guarded by its mutex.
//
//	dialogs    the calls in progress, one entry a call
//	aliases    earlier keys of calls in progress: a UAC's before it learnt the
//	           peer's tag
//	releasing  calls that have ended for the application, and further forks,
//	           whose peer is not released yet
//	subscribed calls that are over on both sides, but for subscriptions of
//	           REFERs (RFC 5057 4), and the dialogs of REFERs outside calls
//	replacing  calls in progress that another has come to replace when there was
//	           no room for it, and that other
//	tombstones calls that ended within the last 64*T1
//
// All are empty in the end.

// These refuse a call inside the stack.
var (
	errTooManyFromSource = errors.New("dialog: too many dialogs from one source")
	errDraining          = errors.New("dialog: stack is draining")
)

// DialogByKey returns the call with that key. A key without the peer's tag, from before
// the tag was known, finds the call until it ends.
func (s *Stack) DialogByKey(key DialogKey) (*Dialog, bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if d, ok := s.dialogs[key]; ok {
		return d, true
	}
	d, ok := s.aliases[key]
	return d, ok
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

// find returns the dialog of a request of the peer (RFC 3261 12.2.2), or nil. A
// request that arrives before our own INVITE has learnt the peer's tag finds the dialog
// by our half of the key.
func (s *Stack) find(key DialogKey) *Dialog {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if d := s.dialogs[key]; d != nil {
		return d
	}
	if d := s.releasing[key]; d != nil {
		return d
	}
	if d := s.subscribed[key]; d != nil {
		return d
	}
	if d := s.aliases[key]; d != nil && d.IsUAS() {
		return d // an early dialog of WithFork, which may have ended
	}
	half := DialogKey{CallID: key.CallID, LocalTag: key.LocalTag}
	for _, index := range []map[DialogKey]*Dialog{s.dialogs, s.aliases, s.releasing} {
		if d := index[half]; d != nil && d.isEarly() {
			return d
		}
	}
	return nil
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
	limit := s.config.maxDialogs()
	full := limit >= 0 && len(s.dialogs) >= limit
	if full && !s.mayReplaceLocked(d, limit) {
		return ErrMaxDialogs
	}
	source := d.source()
	if limit := s.config.Limits.DialogsPerSource; limit > 0 && source.IsValid() && s.bySource[source] >= limit {
		return errTooManyFromSource
	}
	if source.IsValid() {
		s.bySource[source]++
	}
	if full {
		s.replacing[d.incoming.replacement.call] = d
	}
	// The dialog is new: no other goroutine holds its mutex.
	s.dialogs[d.keyLocked()] = d
	return nil
}

// mayReplaceLocked reports whether a call is accepted beyond MaxDialogs: it replaces
// one that is here (RFC 3891 3). One may wait for each; and a replaced call stays until
// its BYE is answered, so that calls which replace each other in turn are bounded too.
func (s *Stack) mayReplaceLocked(d *Dialog, limit int) bool {
	t := d.incoming.replacement
	return t != nil && !t.join && s.replacing[t.call] == nil && len(s.dialogs)-limit < limit && t.rejection() == 0
}

// rekeyLocked files a dialog under its present key; the old one stays an alias.
func (s *Stack) rekeyLocked(d *Dialog, old DialogKey) {
	if s == nil || s.dialogs[old] != d {
		s.rekeyReleasingLocked(d, old)
		return
	}
	delete(s.dialogs, old)
	s.dialogs[d.keyLocked()] = d
	s.aliases[old] = d
	d.aliases = append(d.aliases, old)
}

func (s *Stack) rekeyReleasingLocked(d *Dialog, old DialogKey) {
	if s == nil || s.releasing[old] != d {
		return
	}
	delete(s.releasing, old)
	s.releasing[d.keyLocked()] = d
}

// leaveActiveLocked removes a dialog that ended from the calls in progress. Requests
// still find it while its peer is not released.
func (s *Stack) leaveActiveLocked(d *Dialog) {
	if s == nil || s.dialogs[d.keyLocked()] != d {
		return
	}
	delete(s.dialogs, d.keyLocked())
	for _, alias := range d.aliases {
		delete(s.aliases, alias)
	}
	d.aliases = nil
	delete(s.replacing, d)
	if t := d.incoming.replacement; t != nil && s.replacing[t.call] == d {
		delete(s.replacing, t.call)
	}
	s.leaveSourceLocked(d.source())
	s.fileEndedLocked(d)
}

// fileEndedLocked files an ended call: under releasing while its peer is not released,
// else under subscribed while it has subscriptions (RFC 5057 4), else as a tombstone.
func (s *Stack) fileEndedLocked(d *Dialog) {
	key := d.keyLocked()
	if s.releasing[key] == d { // not a fork of the same key that was declined
		delete(s.releasing, key)
	}
	delete(s.subscribed, key)
	full := len(s.subscribed) >= orDefault(s.config.Limits.SubscribedCalls, defaultSubscribed)
	switch {
	case d.phase.isOpen():
		s.releasing[key] = d
	case d.inUseLocked() && !full:
		s.subscribed[key] = d
	default:
		d.endSubscriptionsLocked(ErrMaxDialogs)
		d.holds.End()
		if !d.movedAwayLocked() { // it may come back
			s.addTombstoneLocked(key, d.currentLocked().reliable.awaited())
		}
		s.fewerLocked()
	}
}

// leaveSourceLocked uncounts a call of a source address.
func (s *Stack) leaveSourceLocked(source netip.Addr) {
	if !source.IsValid() {
		return
	}
	if s.bySource[source]--; s.bySource[source] <= 0 {
		delete(s.bySource, source)
	}
}

// forgetLocked removes a dialog whose peer is released, or whose last subscription has
// ended.
func (s *Stack) forgetLocked(d *Dialog) {
	if s == nil || s.releasing[d.keyLocked()] != d && s.subscribed[d.keyLocked()] != d {
		return
	}
	s.fileEndedLocked(d)
}

func (s *Stack) addTombstoneLocked(key DialogKey, expected rel100.RAck) {
	if s.client == nil {
		return // not started, or closed: nothing arrives any more
	}
	life := 64 * s.config.timers().T1
	s.tombstones.Add(time.Now(), life, tombstone.Key(key), expected)
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
	if next, ok := s.tombstones.Expire(time.Now()); ok {
		s.tombstoneTimer.Reset(max(next, tombstonesTogether))
		return
	}
	s.tombstoneTimer = nil
}

func (s *Stack) dropTombstonesLocked() {
	stopTimer(s.tombstoneTimer)
	s.tombstoneTimer = nil
	s.tombstones.Clear()
}

// recentlyEnded reports whether a call with that key ended within 64*T1, and returns
// the PRACK that it still expects.
func (s *Stack) recentlyEnded(key DialogKey) (expected rel100.RAck, ok bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.tombstones.Find(tombstone.Key(key))
}

func (s *Stack) endedLocked(key DialogKey) bool {
	_, ended := s.tombstones.Find(tombstone.Key(key))
	return ended
}

// openWait is a wait until at most most calls are left: few is then closed.
type openWait struct {
	most int
	few  chan struct{}
}

// fewerLocked ends the waits for the number of calls that is reached.
func (s *Stack) fewerLocked() {
	s.waits = slices.DeleteFunc(s.waits, func(w *openWait) bool {
		few := s.openLocked() <= w.most
		if few {
			close(w.few)
		}
		return few
	})
}

// openLocked counts the calls that are in the registry.
func (s *Stack) openLocked() int {
	return len(s.dialogs) + len(s.releasing) + len(s.subscribed)
}
