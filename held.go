package dialog

import (
	"net/netip"

	"sipdialog.example/dialog/internal/testhook"
)

// Held counts what the stack holds, for the tests of this module: no other can make the
// argument. Applications have [Stack.Stats].
func (s *Stack) Held(testhook.Key) testhook.Held {
	s.mutex.RLock()
	held := testhook.Held{
		Dialogs: len(s.dialogs), Aliases: len(s.aliases), Releasing: len(s.releasing), Subscribed: len(s.subscribed), Replacing: len(s.replacing), Tombstones: len(s.tombstones),
		Sources: s.miscounted(), TombstoneTimer: s.tombstoneTimer != nil,
		Tasks: s.tasks.Running() + s.stopping.Running(), Byes: s.byes.Running(), Calls: s.callbacksRunning() + s.deliveries.Running(),
	}
	for _, index := range []map[DialogKey]*Dialog{s.dialogs, s.releasing, s.subscribed} {
		for _, d := range index {
			held.Subscriptions += len(d.subscriptions())
		}
	}
	layer := s.layer
	s.mutex.RUnlock()
	if layer != nil {
		held.Transactions = layer.Running()
	}
	return held
}

// miscounted returns how many sources have a count that is not that of their calls.
// The stack's mutex is held.
func (s *Stack) miscounted() int {
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
