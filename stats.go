package dialog

import (
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
	// The present numbers of calls: Dialogs are in progress; Releasing have ended here,
	// and their peer is being told; Subscribed have ended, but have the subscription of
	// a transfer (or belong to a REFER outside calls); Tombstones are remembered for
	// late messages.
	Dialogs, Releasing, Subscribed, Tombstones int
	// CallBytes is the number of bytes of peers' messages that calls hold.
	CallBytes int
	// Unconfirmed is the number of peers' calls that were answered and not acknowledged
	// yet.
	Unconfirmed int
	// Callbacks is the number of running callbacks of the application, Trace among them.
	Callbacks int
	// ClientTransactions and ServerTransactions are the numbers of transactions, Queues
	// that of Call-IDs with waiting messages. TransactionBytes is about the number of
	// bytes that server transactions hold.
	ClientTransactions, ServerTransactions, Queues, TransactionBytes int
	// Connections and Handshakes are the numbers of streams that are open and being set
	// up. StreamBytes is about the number of bytes of waiting messages that they hold.
	Connections, Handshakes, StreamBytes int

	// Since Start: calls placed, received, and established.
	Placed, Arrived, Answered uint64
	// Restored counts the calls that were restored from a snapshot, TakenOver those among
	// them that were taken from the Store.
	Restored, TakenOver uint64
	// Unsaved counts how often a call went on without the Store: a 2xx or an ACK that left
	// before the call was saved, and blocks of CSeq numbers that were used unsaved.
	// StoreErrors counts the operations that the Store has not answered, and Unwritten is
	// the present number of calls whose latest change, or end, is not in the Store yet. All
	// are zero without a Store.
	Unsaved, StoreErrors uint64
	Unwritten            int
	// Ended counts the calls that ended, by the party that ended them; Ended[PartyMoved]
	// those that another process has.
	Ended map[Party]uint64
	// Refused counts the refusals, and Dropped the messages and other things that were
	// dropped or lost, by reason.
	Refused, Dropped map[string]uint64
	// Panics counts the recovered panics, those of the application's code among them.
	Panics uint64
	// MessagesIn and MessagesOut count the messages read and written, Retransmissions
	// the written ones that were repetitions.
	MessagesIn, MessagesOut, Retransmissions uint64

	// StackLock and DialogLocks are the waits for the stack's lock, and for those of all
	// dialogs.
	StackLock, DialogLocks LockStats
}

// LockStats is the number of waits for a lock, and their total duration.
type LockStats struct {
	Waits  uint64
	Waited time.Duration
}

// counters are the atomic part of Stats.
type counters struct {
	placed, arrived, answered, restored    atomic.Uint64
	takenOver, takeovers                   atomic.Uint64
	unsaved                                atomic.Uint64
	ended                                  [PartyMoved + 1]atomic.Uint64
	nobody, full, rate, source, subscribed atomic.Uint64
	panics, bodies, progress, forks        atomic.Uint64
	answers, unconfirmed, bytes, draining  atomic.Uint64
	stackLock, dialogLocks                 lockstat.Stats
}

// Stats returns the counts. It may be called at any time; after Shutdown they do not
// change.
func (s *Stack) Stats() Stats {
	c := &s.counters
	stats := Stats{
		Callbacks: s.callbacksRunning(), Unconfirmed: s.unconfirmed.Len(), CallBytes: s.callBytes.Held(),
		Placed: c.placed.Load(), Arrived: c.arrived.Load(), Answered: c.answered.Load(), Restored: c.restored.Load(),
		Ended: make(map[Party]uint64),
		Refused: map[string]uint64{
			"nobody": c.nobody.Load(), "full": c.full.Load(), "rate": c.rate.Load(),
			"source": c.source.Load(), "subscriptions": c.subscribed.Load(), "call bytes": c.bytes.Load(),
			"draining": c.draining.Load(),
		},
		Dropped: map[string]uint64{
			"bodies": c.bodies.Load(), "progress": c.progress.Load(), "forks": c.forks.Load(), "answers": c.answers.Load(),
			"unconfirmed": c.unconfirmed.Load(), "records": s.journal.Dropped(),
		},
		Panics:      c.panics.Load(),
		StackLock:   lockStats(&c.stackLock),
		DialogLocks: lockStats(&c.dialogLocks),
	}
	if s.writers != nil {
		stats.TakenOver, stats.Refused["takeovers"] = c.takenOver.Load(), c.takeovers.Load()
		stats.Unsaved, stats.StoreErrors, stats.Unwritten = c.unsaved.Load(), s.writers.Failures(), s.writers.Waiting()
	}
	for by := PartyLocal; by <= PartyMoved; by++ {
		stats.Ended[by] = c.ended[by].Load()
	}
	s.mutex.RLock()
	sizes, layer, sockets := s.registry.Sizes(), s.layer, s.sockets
	s.mutex.RUnlock()
	stats.Dialogs, stats.Releasing, stats.Subscribed, stats.Tombstones = sizes.Dialogs, sizes.Releasing, sizes.Subscribed, sizes.Tombstones
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

// Held counts the objects that the stack holds. Only the tests of this module can make its
// argument; applications have [Stack.Stats].
func (s *Stack) Held(testhook.Key) testhook.Held {
	s.mutex.RLock()
	held := testhook.Held{
		Sizes: s.registry.Audit(), TombstoneTimer: s.tombstoneTimer != nil,
		Tasks: s.tasks.Running() + s.stopping.Running(), Byes: s.byes.Running(), Calls: s.callbacksRunning() + s.deliveries.Running(),
	}
	for _, d := range s.registry.Open() {
		held.Subscriptions += len(d.subscriptions())
	}
	layer := s.layer
	s.mutex.RUnlock()
	if layer != nil {
		held.Transactions = layer.Running()
	}
	return held
}
