package txn

import (
	"sync"
	"time"
)

// timed is a transaction as its timers see it: it checks the generation under mu.
type timed interface {
	onTimer(s *slot, generation uint32)
}

// transaction is the common part of the four machines.
type transaction struct {
	// Set at construction.

	layer   *Layer
	key     string // in the table
	machine *machine
	// timeout is Timer B, F or H, or how long an unanswered request lives.
	timeout  time.Duration
	owner    timed
	reliable bool

	mu       sync.Mutex // guards the fields below
	state    state
	interval time.Duration // of retransmission
	retry    slot
	limit    slot
	// wait is how long it absorbs late messages from now on; zero except within a step.
	wait time.Duration
	over bool // what waits is a record in the layer
}

// attach completes a new transaction, which must not move any more.
func (tx *transaction) attach(owner timed) {
	tx.owner = owner
	tx.retry.tx, tx.limit.tx = tx, tx
}

// advanceLocked takes the arrow for e: it changes the state and the timers and
// returns the other actions, or false when there is no such arrow.
func (tx *transaction) advanceLocked(e event) (action, bool) {
	t := tx.machine[tx.state][e]
	if t.next == stateNone {
		return 0, false
	}
	tx.state = t.next
	if t.next == stateTerminated || t.do&(quiet|linger) != 0 {
		tx.stopLocked()
	}
	if t.do&start != 0 {
		tx.startLocked()
	}
	if t.do&again != 0 {
		tx.backOffLocked()
	}
	if t.do&freshen != 0 && !tx.reliable {
		tx.retry.armLocked(freshTime, eventRetry)
	}
	if t.do&linger != 0 {
		tx.lingerLocked()
	}
	return t.do, true
}

// startLocked starts the timers of a first state, or of an INVITE server's
// Completed.
func (tx *transaction) startLocked() {
	tx.interval = tx.layer.timers.T1
	switch {
	case tx.machine == &nonInviteServer:
		tx.retry.armLocked(tx.layer.timers.trying(), eventRetry)
	case !tx.reliable:
		tx.retry.armLocked(tx.interval, eventRetry)
	}
	tx.limit.armLocked(tx.timeout, eventLimit)
}

// backOffLocked doubles the interval: up to T2 for Timers E and G, without
// bound for Timer A; in Proceeding Timer E is T2.
func (tx *transaction) backOffLocked() {
	tx.interval *= 2
	if t2 := tx.layer.timers.T2; tx.machine != &inviteClient && (tx.interval > t2 || tx.state == stateProceeding) {
		tx.interval = t2
	}
	tx.retry.armLocked(tx.interval, eventRetry)
}

// lingerLocked waits for stragglers, or ends where none can come.
func (tx *transaction) lingerLocked() {
	d := tx.layer.timers.linger(tx.machine, tx.state, tx.reliable)
	if d == 0 {
		tx.state = stateTerminated
		return
	}
	tx.wait = d
}

// restLocked ends a step: from now on the record that file has made absorbs late messages,
// or the transaction itself does.
func (tx *transaction) restLocked(file func(wait time.Duration) bool) {
	wait := tx.wait
	if tx.wait = 0; wait == 0 {
		return
	}
	if tx.over = file(wait); !tx.over {
		tx.limit.armLocked(wait, eventLimit)
	}
}

func (tx *transaction) stopLocked() {
	tx.retry.stopLocked()
	tx.limit.stopLocked()
}
