package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"
)

// referLife is how long a subscription lasts that a REFER made (RFC 3515 2.4.4
// leaves it to the notifier).
const referLife = 3 * time.Minute

// ReferSubscription is the implicit subscription of a REFER (RFC 3515 2.4.4),
// one we received or one we sent. Its methods may be called from any goroutine.
type ReferSubscription struct {
	// ID is the REFER's CSeq header value, such as "2 REFER".
	ID string

	// Set at construction; dialog may be nil.

	dialog     *Dialog
	referToURI sip.Uri
	// sent is true when the REFER was ours.
	sent bool

	// The dialog's mutex guards the fields below.

	active bool
	// status is what the latest NOTIFY said.
	status Progress
	expiry *time.Timer
	until  time.Time
	// answered is closed once the REFER has its final answer; err is set when
	// that was no 2xx. waited is true while a WaitRefer waits for it.
	answered chan struct{}
	err      error
	waited   bool
	// done is closed when the subscription ends.
	done chan struct{}
}

// Progress is a status line of the transferred call (RFC 3515 2.4.5); the zero
// value means that none has been reported.
type Progress struct {
	Status int
	Reason string
}

// Status returns what was reported last: by us for a REFER we received, by the
// peer for one we sent.
func (r *ReferSubscription) Status() Progress {
	if r == nil || r.dialog == nil {
		return Progress{}
	}
	r.dialog.mutex.RLock()
	defer r.dialog.mutex.RUnlock()
	return r.status
}

// Done returns a channel that is closed when the subscription ends: by its
// last NOTIFY, its expiry, or the end of the call.
func (r *ReferSubscription) Done() <-chan struct{} {
	if r == nil || r.dialog == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		if !r.openLocked() {
			close(r.done)
		}
	}
	return r.done
}

// openLocked reports whether the subscription is in its dialog's registry.
func (r *ReferSubscription) openLocked() bool {
	return r.registryLocked()[r.ID] == r
}

func (r *ReferSubscription) registryLocked() map[string]*ReferSubscription {
	if r.sent {
		return r.dialog.sentRefers
	}
	return r.dialog.referSubscriptions
}

// endLocked ends the subscription and forgets it.
func (r *ReferSubscription) endLocked() {
	r.active = false
	stopTimer(r.expiry)
	if !r.openLocked() {
		return
	}
	delete(r.registryLocked(), r.ID)
	if r.done != nil {
		close(r.done)
	}
}

// answeredLocked gives WaitRefer its result, once.
func (r *ReferSubscription) answeredLocked(err error) {
	select {
	case <-r.answered:
	default:
		r.err = err
		close(r.answered)
	}
}

// endSubscriptionsLocked ends all that a call's end ends.
func (d *Dialog) endSubscriptionsLocked() {
	for _, r := range d.referSubscriptions {
		r.endLocked()
	}
	for _, r := range d.sentRefers {
		r.answeredLocked(ErrTerminated)
		r.endLocked()
	}
}

// activateLocked starts the subscription, or prolongs it.
func (r *ReferSubscription) activateLocked(life time.Duration) {
	r.active = true
	r.until = time.Now().Add(life)
	if r.expiry == nil {
		r.expiry = r.dialog.after(life, r.expired)
		return
	}
	r.expiry.Reset(life)
}

// expired ends a subscription whose time is over. The peer is told if it is
// the one that subscribed (RFC 6665 4.2.2).
func (r *ReferSubscription) expired() {
	r.dialog.mutex.Lock()
	if !r.active || time.Now().Before(r.until) {
		r.dialog.mutex.Unlock()
		return
	}
	if r.sent {
		r.endLocked()
		r.dialog.mutex.Unlock()
		return
	}
	last := r.status
	r.dialog.mutex.Unlock()
	r.dialog.background(func() {
		ctx, cancel := context.WithTimeout(context.Background(), r.dialog.config().txTimeout())
		defer cancel()
		if _, err := r.sendNotify(ctx, last, "terminated;reason=timeout"); err != nil {
			r.dialog.log().Debug("NOTIFY could not be sent", "error", err)
			r.dialog.mutex.Lock()
			r.endLocked()
			r.dialog.mutex.Unlock()
		}
	})
}

func (r *ReferSubscription) refusedLocked(err error) {
	r.endLocked()
	r.answeredLocked(err)
}

// GetReferSubscription returns the live subscription with that ID: one of a
// REFER received before one of a REFER sent.
func (d *Dialog) GetReferSubscription(id string) (*ReferSubscription, bool) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if r, ok := d.referSubscriptions[id]; ok {
		return r, true
	}
	r, ok := d.sentRefers[id]
	if !ok || !r.active {
		return nil, false
	}
	return r, true
}

// GetAllReferSubscriptions returns the active subscriptions, received and sent.
func (d *Dialog) GetAllReferSubscriptions() []*ReferSubscription {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	var list []*ReferSubscription
	for _, registry := range []map[string]*ReferSubscription{d.referSubscriptions, d.sentRefers} {
		for _, r := range registry {
			if r.active {
				list = append(list, r)
			}
		}
	}
	return list
}
