package dialog

import (
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/txn"
)

// Left is what a stack holds.
type Left struct {
	Dialogs, Aliases, Releasing, Subscribed, Replacing, Tombstones int
	// Sources are the addresses of which another number of calls is counted than
	// are in progress.
	Sources int
	// Subscriptions are those of the REFERs in what is left of all calls.
	Subscriptions int
	// TombstoneTimer is whether the timer runs that forgets the calls that have ended.
	TombstoneTimer     bool
	Tasks, Byes, Calls int
	Transactions       txn.Counts
}

// Leftovers counts what a stack holds: nothing, in the end.
func Leftovers(s *Stack) Left {
	s.mutex.RLock()
	left := Left{
		Dialogs: len(s.dialogs), Aliases: len(s.aliases), Releasing: len(s.releasing), Subscribed: len(s.subscribed), Replacing: len(s.replacing), Tombstones: len(s.tombstones),
		Sources: miscounted(s), TombstoneTimer: s.tombstoneTimer != nil,
		Tasks: s.tasks.Running() + s.stopping.Running(), Byes: s.byes.Running(), Calls: s.callbacksRunning() + s.deliveries.Running(),
	}
	for _, index := range []map[DialogKey]*Dialog{s.dialogs, s.releasing, s.subscribed} {
		for _, d := range index {
			left.Subscriptions += subscriptionsOf(d)
		}
	}
	client := s.client
	s.mutex.RUnlock()
	if r, ok := client.(txnLayer); ok {
		left.Transactions = r.layer.Running()
	}
	return left
}

// miscounted is how many sources have a count that is not that of their calls.
func miscounted(s *Stack) int {
	calls := make(map[netip.Addr]int)
	for _, d := range s.dialogs {
		if source := d.source(); source.IsValid() {
			calls[source]++
		}
	}
	wrong := 0
	for source, n := range s.bySource {
		if n != calls[source] || n == 0 {
			wrong++
		}
		delete(calls, source)
	}
	return wrong + len(calls)
}

func subscriptionsOf(d *Dialog) int {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return len(d.referSubscriptions) + len(d.sentRefers)
}

// SameURI compares two URIs as a redirection does.
func SameURI(a, b sip.Uri) bool { return sipuri.Same(a, b) }

// HoldLocks locks a dialog and its stack until the result is called.
func HoldLocks(d *Dialog) (release func()) {
	d.stack.mutex.Lock()
	d.mutex.Lock()
	return func() {
		d.mutex.Unlock()
		d.stack.mutex.Unlock()
	}
}

// Reports is whether a call tells a referrer of its responses.
func Reports(d *Dialog) bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.follower != nil
}

// HoldStack locks a stack, but none of its dialogs, until the result is called.
func HoldStack(s *Stack) (release func()) {
	s.mutex.Lock()
	return s.mutex.Unlock
}

// GiveUp does to a call what Shutdown does that has no time left.
func GiveUp(d *Dialog) { d.clear(Cause{By: PartyShutdown}) }

// LogAll logs all that is logged of a call's course.
func LogAll(d *Dialog) {
	d.logPlaced()
	d.logArrived()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.logStateLocked(DialogStateRinging)
	d.logAcceptedLocked(sip.INVITE, offeranswer.ByDefault)
	d.logEndedLocked()
}

// ExpireSession and RefreshSession do what the two session timers of a call do when
// they fire.
func ExpireSession(d *Dialog)  { d.sessionExpired() }
func RefreshSession(d *Dialog) { d.refreshSession() }
