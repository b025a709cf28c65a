package dialog

import (
	"errors"
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"
)

// The registry is six maps of the stack, guarded by its mutex.
//
//	dialogs    the calls in progress, one entry a call
//	aliases    earlier keys of calls in progress: a UAC's before it learnt the
//	           peer's tag
//	releasing  calls that have ended for the application, and further forks,
//	           whose far end is not released yet
//	subscribed calls that are over on both sides, but for subscriptions of
//	           REFERs (RFC 5057 4), and the dialogs of REFERs outside calls
//	heirs      calls in progress that another has come to replace when there was
//	           no room for it, and that other
//	tombs      calls that ended within the last 64*T1, by key, with the PRACK
//	           that may still come
//
// All are empty in the end.

// errTooManyFromSource refuses a call; nobody but the registry's caller sees it.
var errTooManyFromSource = errors.New("dialog: too many dialogs of one source")

// DialogByKey returns the call with that key. A key from before the peer's tag
// was known finds the call until it ends.
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

// find returns the dialog a request of the peer's belongs to (RFC 3261 12.2.2),
// or nil. A request that comes before our own INVITE taught us the peer's tag
// finds the dialog by our half of the key.
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

// keyOfRequest is the key under which we know the dialog of a peer's request.
func keyOfRequest(req *sip.Request) DialogKey {
	return DialogKey{CallID: callID(req), LocalTag: toTag(req), RemoteTag: fromTag(req)}
}

// register takes a new call in, exactly as long as there is room.
func (s *Stack) register(d *Dialog) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	limit := s.config.maxDialogs()
	full := limit >= 0 && len(s.dialogs) >= limit
	if full && !s.mayInheritLocked(d, limit) {
		return ErrMaxDialogs
	}
	if limit := s.config.Limits.DialogsPerSource; limit > 0 && d.source.IsValid() && s.bySource[d.source] >= limit {
		return errTooManyFromSource
	}
	if d.source.IsValid() {
		s.bySource[d.source]++
	}
	if full {
		s.heirs[d.takes.call] = d
	}
	// The dialog is new: nobody else holds its mutex.
	s.dialogs[DialogKey{CallID: d.callID, LocalTag: d.localTag, RemoteTag: d.remoteTag}] = d
	return nil
}

// mayInheritLocked reports whether a call is taken though there is no room: it is
// to replace one that is here, whose place it will have (RFC 3891 3). One may wait
// for each; and a replaced call stays until its BYE is answered, so that calls
// which replace each other in turn are bounded, too.
func (s *Stack) mayInheritLocked(d *Dialog, limit int) bool {
	t := d.takes
	return t != nil && !t.join && s.heirs[t.call] == nil && len(s.dialogs)-limit < limit && t.refusal() == 0
}

// rekeyLocked moves a dialog to its key of now; the old one stays an alias.
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

// retireLocked takes a dialog that ended out of the calls in progress. While
// its far end is not released it stays where requests find it.
func (s *Stack) retireLocked(d *Dialog) {
	if s == nil || s.dialogs[d.keyLocked()] != d {
		return
	}
	delete(s.dialogs, d.keyLocked())
	for _, alias := range d.aliases {
		delete(s.aliases, alias)
	}
	d.aliases = nil
	delete(s.heirs, d)
	if t := d.takes; t != nil && s.heirs[t.call] == d {
		delete(s.heirs, t.call)
	}
	s.leaveSourceLocked(d.source)
	s.layToRestLocked(d)
}

// layToRestLocked puts a call that has ended where what is left of it is found:
// a far end that is not released, then subscriptions, then nothing.
func (s *Stack) layToRestLocked(d *Dialog) {
	key := d.keyLocked()
	if s.releasing[key] == d { // not a fork of the same key that was declined
		delete(s.releasing, key)
	}
	delete(s.subscribed, key)
	full := len(s.subscribed) >= orDefault(s.config.Limits.SubscribedCalls, defaultSubscribed)
	switch {
	case d.phase != phaseReleased && d.phase != phaseSteady:
		s.releasing[key] = d
	case d.inUseLocked() && !full:
		s.subscribed[key] = d
	default:
		d.endSubscriptionsLocked(ErrMaxDialogs)
		s.buryLocked(key, d.reliable.unacknowledged())
		s.fewerLocked()
	}
}

// leaveSourceLocked uncounts a call by the address it came from.
func (s *Stack) leaveSourceLocked(source netip.Addr) {
	if !source.IsValid() {
		return
	}
	if s.bySource[source]--; s.bySource[source] <= 0 {
		delete(s.bySource, source)
	}
}

// forgetLocked takes out a dialog whose far end is released, or whose last
// subscription has ended.
func (s *Stack) forgetLocked(d *Dialog) {
	if s == nil || s.releasing[d.keyLocked()] != d && s.subscribed[d.keyLocked()] != d {
		return
	}
	s.layToRestLocked(d)
}

// tomb is a call that ended.
type tomb struct {
	key   DialogKey
	until time.Time
}

func (s *Stack) buryLocked(key DialogKey, expected rack) {
	if s.client == nil {
		return // not started, or closed: nothing arrives any more
	}
	if len(s.tombs) >= orDefault(s.config.Limits.Tombstones, defaultTombstones) {
		s.unearthLocked()
	}
	life := 64 * s.config.timers().T1
	s.tombs[key] = expected
	s.tombQueue = append(s.tombQueue, tomb{key: key, until: time.Now().Add(life)})
	if s.tombTimer == nil {
		s.tombTimer = time.AfterFunc(life, s.sweepTombs)
	}
}

// sweepTombs drops the tombstones whose time is over, and comes again when the
// next one's is.
func (s *Stack) sweepTombs() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.tombTimer == nil {
		return // shut down
	}
	now := time.Now()
	for len(s.tombQueue) > 0 && !s.tombQueue[0].until.After(now) {
		s.unearthLocked()
	}
	if len(s.tombQueue) == 0 {
		s.tombQueue, s.tombTimer = nil, nil
		return
	}
	s.tombTimer.Reset(time.Until(s.tombQueue[0].until))
}

func (s *Stack) unearthLocked() {
	delete(s.tombs, s.tombQueue[0].key)
	s.tombQueue = s.tombQueue[1:]
}

func (s *Stack) dropTombsLocked() {
	stopTimer(s.tombTimer)
	s.tombTimer, s.tombQueue = nil, nil
	clear(s.tombs)
}

// buried reports whether a call with that key ended lately, and which PRACK it
// still expects.
func (s *Stack) buried(key DialogKey) (expected rack, ok bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	expected, ok = s.tombs[key]
	return expected, ok
}

// fewerLocked wakes Shutdown when no more calls are left than it waits for.
func (s *Stack) fewerLocked() {
	if s.few != nil && s.openLocked() <= s.most {
		close(s.few)
		s.few = nil
	}
}

// openLocked counts the calls of which something is left.
func (s *Stack) openLocked() int {
	return len(s.dialogs) + len(s.releasing) + len(s.subscribed)
}
