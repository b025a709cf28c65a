package dialog

import (
	"context"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/storewriter"
)

// The headers and timers of RFC 4028; the rules are internal/sessiontimer's.

// sessionTimer is the session timer of a dialog. The dialog's mutex guards it.
type sessionTimer struct {
	sessiontimer.Timer
	// expiry ends the call, refresh refreshes the session before that.
	expiry, refresh *deadline.Func
	// allowsUpdate is true when the peer's Allow lists UPDATE.
	allowsUpdate bool
}

func (c *StackConfig) sessionPolicy() sessiontimer.Policy {
	return sessiontimer.Policy{Interval: c.SessionExpires, MinSE: c.MinSE}
}

// askTimerLocked adds the session timer headers to an INVITE or UPDATE of ours (RFC 4028
// 7.1, 7.4).
func (d *Dialog) askTimerLocked(req *draft.Request) {
	if asked, minSE := d.timer.Ask(d.config().sessionPolicy()); asked.Interval > 0 {
		sessiontimer.Set(req, asked, minSE)
	}
}

// grantTimer adds to the 2xx to an INVITE or UPDATE the session timer that it grants
// (RFC 4028 9).
func (d *Dialog) grantTimer(req *sipmsg.Message, res *sip.Response) {
	asked := sessiontimer.RequestOf(req)
	granted := d.config().sessionPolicy().Grant(asked)
	if granted.Interval == 0 {
		return
	}
	res.AppendHeader(sip.NewHeader("Session-Expires", granted.String()))
	if asked.SupportsTimer { // a MUST for "uac", a SHOULD for "uas"
		res.AppendHeader(sip.NewHeader("Require", "timer"))
	}
}

// agreeTimerLocked starts the session timer of a 2xx, or stops it when the 2xx has
// none (RFC 4028 7.2, 9). role is ours; peer is the peer's message, request or 2xx.
func (d *Dialog) agreeTimerLocked(res sipheader.Message, role sessiontimer.Refresher, peer sipheader.Message) {
	d.stopSessionLocked()
	d.timer.NoteMinSE(sessiontimer.MinSEOf(peer))
	if sipheader.Has(peer, "Allow") {
		d.timer.allowsUpdate = sipheader.Lists(peer, "Allow", "UPDATE")
	}
	d.timer.Agree(time.Now(), sessiontimer.ExpiresOf(res), role)
	for _, u := range d.retransmissions {
		u.supersede()
	}
	d.startSessionLocked()
}

// startSessionLocked starts the session timer that was agreed upon.
func (d *Dialog) startSessionLocked() {
	if !d.timer.Active() || d.state == DialogStateTerminated {
		return
	}
	d.timer.expiry = d.onTime(d.timer.ExpiresIn(), (*Dialog).sessionExpired)
	if wait := d.timer.RefreshIn(); wait > 0 {
		d.timer.refresh = d.onTime(wait, (*Dialog).refreshSession)
	}
}

// stopSessionLocked stops the session timer.
func (d *Dialog) stopSessionLocked() {
	stopTimer(d.timer.expiry)
	stopTimer(d.timer.refresh)
	d.timer.expiry, d.timer.refresh = nil, nil
	d.timer.Stop()
}

// sessionExpired ends a call whose refresh did not come. A timer that fired just
// before it was stopped finds a later end.
// While the Store does not say that the call is ours, it does not end: another process may
// have it, and have refreshed it.
func (d *Dialog) sessionExpired() {
	if d.mutex.RLock(); !d.isExpiredLocked() {
		d.mutex.RUnlock()
		return
	}
	d.mutex.RUnlock()
	owned := d.confirm(d.baseContext())
	d.mutex.Lock()
	release := func() {}
	switch {
	case !d.isExpiredLocked():
	case owned == storewriter.Unknown:
		d.timer.expiry.Reset(checkAgain)
	default:
		release = d.hangupLocked(because(sip.StatusRequestTimeout, "session expired", Cause{By: PartyTimeout, Method: "BYE", Err: ErrTimeout}))
	}
	d.mutex.Unlock()
	release()
}

func (d *Dialog) isExpiredLocked() bool {
	return d.timer.IsExpired(time.Now()) && d.state == DialogStateEstablished
}

// refreshSession refreshes, on its own goroutine: by UPDATE where the peer
// takes it, else by a re-INVITE with the last session (RFC 4028 7.4).
func (d *Dialog) refreshSession() {
	d.mutex.RLock()
	due := d.timer.Active() && d.state == DialogStateEstablished && d.ending == nil
	byUpdate, expires := d.timer.allowsUpdate, d.timer.ExpiresAt()
	d.mutex.RUnlock()
	if !due {
		return
	}
	d.background(func() {
		ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
		defer cancel()
		if d.confirm(ctx) == storewriter.Unknown && !d.writer().IsConfirmed(lease) {
			d.refreshAgain(expires)
			return
		}
		var err error
		if byUpdate {
			_, err = d.Update(ctx, nil)
		} else {
			_, err = d.renegotiate(ctx, InviteOpts{}, func(now *offeranswer.Negotiation) (Body, error) { return now.Refresh() })
		}
		if err != nil {
			d.log().Debug("session could not be refreshed", "error", fmt.Sprint(err))
			d.refreshAgain(expires)
		}
	})
}

// refreshAgain tries once more, unless the session that was to expire then has been
// refreshed meanwhile.
func (d *Dialog) refreshAgain(expires time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !d.timer.Active() || !d.timer.ExpiresAt().Equal(expires) || d.state != DialogStateEstablished {
		return
	}
	d.timer.refresh = d.onTime(d.timer.RetryIn(d.isUAC), (*Dialog).refreshSession)
}
