package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"
)

// lockInTurn takes the turn and then the mutex, for a request that only an
// established call may send.
func (d *Dialog) lockInTurn(ctx context.Context, op string) error {
	return d.lockInTurnIf(ctx, op, func() error { return d.mayRequestLocked(op) })
}

// lockInTurnIf takes the turn and then the mutex, for a request that mayLocked
// allows: before, so that it does not wait for an ACK that waits for the
// application, and then, so that what allows it holds when it is built. On an
// error neither is held.
func (d *Dialog) lockInTurnIf(ctx context.Context, op string, mayLocked func() error) error {
	d.mutex.RLock()
	err := mayLocked()
	d.mutex.RUnlock()
	if err != nil {
		return err
	}
	if err := d.turn.take(ctx); err != nil {
		return err
	}
	d.mutex.Lock()
	if err := mayLocked(); err != nil {
		d.mutex.Unlock()
		d.turn.release()
		return err
	}
	return nil
}

func (d *Dialog) mayRequestLocked(op string) error {
	switch {
	case d.ackWaits:
		return ErrPending
	case op == string(sip.INFO) && d.isEarlyLocked(): // RFC 6086 4.2.1
	case d.state != DialogStateEstablished:
		return &StateError{Op: op, State: d.state, Need: "Established state"}
	}
	if d.ending != nil {
		return &StateError{Op: op, State: d.state, Need: "Established state and no hang-up begun"}
	}
	return nil
}
