package dialog

import (
	"net/netip"
	"sync/atomic"
	"time"

	"sipdialog.example/dialog/internal/lockstat"
	"sipdialog.example/dialog/internal/testhook"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// Stats has the present sizes and the counts since Start. Reading it takes a few locks
// briefly and some atomic loads; counting is always on.
type Stats struct {
	// Now: calls in progress, calls that have ended here and whose peer is
	// being released, those that are over but for a transfer's subscription (and
	// those of REFERs outside calls), and calls remembered for what may come late.
	Dialogs, Releasing, Subscribed, Tombstones int
	// CallBytes is what calls hold of the messages of their peers.
	CallBytes int
	// Unconfirmed is the calls of peers that were answered and not acknowledged yet.
	Unconfirmed int
	// Callbacks is how many of the application's callbacks run, Trace among them.
	Callbacks int
	// ClientTransactions and ServerTransactions live, Queues have work.
	// TransactionBytes is what the latter hold, about.
	ClientTransactions, ServerTransactions, Queues, TransactionBytes int
	// Connections and Handshakes are the streams open and being set up, StreamBytes is
	// what they hold of messages that wait, about.
	Connections, Handshakes, StreamBytes int

	// Since Start: calls placed, taken in, and established.
	Placed, Arrived, Answered uint64
	// Ended counts the calls that ended, by who ended them.
	Ended map[Party]uint64
	// Refused counts what was refused, and Dropped what was dropped or lost,
	// by reason.
	Refused, Dropped map[string]uint64
	// Panics counts those of the application's code, and any other survived.
	Panics uint64
	// Messages read and written, and those written that had been before.
	MessagesIn, MessagesOut, Retransmissions uint64

	// StackLock and DialogLocks are the waiting at the stack's lock, and at
	// those of all dialogs.
	StackLock, DialogLocks LockStats
}

// LockStats says how often, and how long altogether, a lock was waited for.
type LockStats struct {
	Waits  uint64
	Waited time.Duration
}

// counters are the atomic part of Stats.
type counters struct {
	placed, arrived, answered              atomic.Uint64
	ended                                  [PartyShutdown + 1]atomic.Uint64
	nobody, full, rate, source, subscribed atomic.Uint64
	panics, bodies, progress, forks        atomic.Uint64
	answers, unconfirmed, bytes            atomic.Uint64
	stackLock, dialogLocks                 lockstat.Stats
}

// Stats returns the counts. It may be called at any time; after Shutdown they do not
// change.
func (s *Stack) Stats() Stats {
	c := &s.counters
	stats := Stats{
		Callbacks: s.callbacksRunning(), Unconfirmed: s.unconfirmed.Len(), CallBytes: s.callBytes.Held(),
		Placed: c.placed.Load(), Arrived: c.arrived.Load(), Answered: c.answered.Load(),
		Ended: make(map[Party]uint64),
		Refused: map[string]uint64{
			"nobody": c.nobody.Load(), "full": c.full.Load(), "rate": c.rate.Load(),
			"source": c.source.Load(), "subscriptions": c.subscribed.Load(), "call bytes": c.bytes.Load(),
		},
		Dropped: map[string]uint64{
			"bodies": c.bodies.Load(), "progress": c.progress.Load(), "forks": c.forks.Load(), "answers": c.answers.Load(),
			"unconfirmed": c.unconfirmed.Load(), "records": s.journal.Dropped(),
		},
		Panics:      c.panics.Load(),
		StackLock:   lockStats(&c.stackLock),
		DialogLocks: lockStats(&c.dialogLocks),
	}
	for by := PartyLocal; by <= PartyShutdown; by++ {
		stats.Ended[by] = c.ended[by].Load()
	}
	s.mutex.RLock()
	stats.Dialogs, stats.Releasing, stats.Tombstones = len(s.dialogs), len(s.releasing), len(s.tombstones)
	stats.Subscribed = len(s.subscribed)
	layer, sockets := s.layer, s.sockets
	s.mutex.RUnlock()
	if layer != nil {
		stats.addTransactions(layer)
	}
	if sockets != nil {
		stats.addTransport(sockets)
	}
	return stats
}

func (s *Stats) addTransactions(layer *txn.Layer) {
	now, counted := layer.Running(), layer.Stats()
	s.ClientTransactions, s.ServerTransactions, s.Queues = now.Clients, now.Servers, now.Queues
	s.TransactionBytes = layer.Held()
	s.Retransmissions = counted.Retransmissions
	s.Refused["merged"], s.Refused["queue"] = counted.Merged, counted.Refused
	s.Dropped["malformed"] = counted.Malformed
	s.Dropped["unmatched"], s.Dropped["responses"] = counted.Unmatched, counted.Responses
	s.Panics += counted.Panics
}

func (s *Stats) addTransport(sockets *transport.Layer) {
	counted := sockets.Stats()
	s.Connections, s.Handshakes = counted.Connections, counted.Handshakes
	s.MessagesIn, s.MessagesOut = counted.MessagesIn, counted.MessagesOut
	s.Refused["malformed"] = counted.Answered400
	s.StreamBytes = counted.Held
	s.Refused["connections"] = counted.ConnectionsRefused
	s.Refused["connections of a source"] = counted.ConnectionsOfSource
	s.Dropped["silent connections"] = counted.ConnectionsSilent
	s.Dropped["crowded connections"] = counted.ConnectionsCrowded
	s.Refused["handshakes"] = counted.HandshakesRefused
	s.Dropped["malformed"] += counted.Malformed
	s.Dropped["slow connections"] = counted.ConnectionsSlow
	s.Dropped["idle connections"] = counted.ConnectionsIdle
	s.Dropped["dead connections"] = counted.ConnectionsNoPong
	s.Dropped["half messages"] = counted.ConnectionsPartial
	s.Dropped["unframed streams"] = counted.ConnectionsUnframed
	s.Dropped["handshakes"] = counted.HandshakesFailed
	s.Dropped["writes"] = counted.WriteErrors
	s.Panics += counted.Panics
}

func lockStats(l *lockstat.Stats) LockStats {
	return LockStats{Waits: l.Waits(), Waited: l.Waited()}
}

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
