package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"
)

// lockToSend acquires the send slot and then the mutex, for a request that only an
// established call may send.
func (d *Dialog) lockToSend(ctx context.Context, op string) error {
	return d.lockToSendIf(ctx, op, func() error { return d.mayRequestLocked(op) })
}

// lockToSendIf acquires the send slot and then the mutex, for a request that
// mayLocked allows. It asks twice: before, as a request does not wait for an ACK
// that waits for the application; and then, as the condition has to hold when the
// request is built. On an error neither is held.
func (d *Dialog) lockToSendIf(ctx context.Context, op string, mayLocked func() error) error {
	d.mutex.RLock()
	err := mayLocked()
	d.mutex.RUnlock()
	if err != nil {
		return err
	}
	if err := d.sendSlot.Acquire(ctx); err != nil {
		return err
	}
	d.mutex.Lock()
	if err := mayLocked(); err != nil {
		d.mutex.Unlock()
		d.sendSlot.Release()
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

// drainSendSlot waits until the request that the call is writing has left. It may
// be a PRACK in an early dialog whose BYE, with the higher CSeq, is next. It waits
// no longer than the PRACK itself does.
func (d *Dialog) drainSendSlot() {
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().timers().T1)
	defer cancel()
	if d.sendSlot.Acquire(ctx) == nil {
		d.sendSlot.Release()
	}
}
