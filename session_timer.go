package dialog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// minSessionInterval is the least Min-SE there is (RFC 4028 4).
const minSessionInterval = 90 * time.Second

// statusIntervalTooSmall refuses a session interval (RFC 4028 6).
const statusIntervalTooSmall = 422

// sessionTimer is the agreement that a session is refreshed (RFC 4028). The
// dialog's mutex guards it.
type sessionTimer struct {
	// interval is zero while there is none.
	interval time.Duration
	// ours is true when the refresh is our task.
	ours bool
	// expiry ends the call at ends, refresh refreshes before that.
	expiry, refresh *time.Timer
	ends            time.Time
	// allowsUpdate is true when the peer takes UPDATE.
	allowsUpdate bool
	// least is the largest Min-SE that a 422 has demanded in this call, or a
	// request of the peer's has had; zero when there was none.
	least time.Duration
}

func (c *StackConfig) minSE() time.Duration {
	return max(c.MinSE, minSessionInterval)
}

// sessionExpires reads a Session-Expires header: the interval, zero when there
// is none that can be read, and the refresher, which may be missing.
func sessionExpires(msg message) (interval time.Duration, refresher string) {
	header := headerValue(msg, "Session-Expires")
	if header == "" {
		return 0, "" // in most messages
	}
	value, params := sipmsg.CutParams(header)
	refresher = strings.ToLower(params.Text("refresher"))
	if refresher != "uac" && refresher != "uas" {
		refresher = "" // RFC 4028 4 knows no other
	}
	interval, _ = sipmsg.Seconds(value)
	return interval, refresher
}

func minSEOf(msg message) time.Duration {
	least, _ := sipmsg.Seconds(sipmsg.Bare(headerValue(msg, "Min-SE")))
	return least
}

func supportsTimer(msg message) bool {
	return lists(msg, "Supported", "timer")
}

// inspectTimer refuses a session interval below our least, when its sender can
// be told so (RFC 4028 9).
func (s *Stack) inspectTimer(tx serverTx, req *sipmsg.Message) *sip.Response {
	interval, _ := sessionExpires(req)
	if interval == 0 || interval >= s.config.minSE() || !supportsTimer(req) {
		return nil
	}
	res := tx.NewResponse(statusIntervalTooSmall, "Session Interval Too Small")
	res.AppendHeader(sip.NewHeader("Min-SE", sipmsg.FormatSeconds(s.config.minSE())))
	return res
}

// askTimerLocked adds to an INVITE or UPDATE of ours what it asks of the timer:
// what was agreed, else what is configured (RFC 4028 7.1, 7.4).
func (d *Dialog) askTimerLocked(req *sip.Request) {
	interval, refresher := d.config().SessionExpires, ""
	if d.timer.interval > 0 {
		interval, refresher = d.timer.interval, ";refresher=uas"
		if d.timer.ours {
			refresher = ";refresher=uac"
		}
	}
	if interval <= 0 {
		return
	}
	least := max(d.config().minSE(), d.timer.least)
	req.AppendHeader(sip.NewHeader("Session-Expires", sipmsg.FormatSeconds(max(interval, least))+refresher))
	if least > minSessionInterval || d.timer.least > 0 {
		req.AppendHeader(sip.NewHeader("Min-SE", sipmsg.FormatSeconds(least)))
	}
}

// noteLeastLocked keeps the Min-SE of a request inside the call, the peer's or one
// of ours that a 422 has changed, for those that follow (RFC 4028 7.4).
func (d *Dialog) noteLeastLocked(msg message) {
	d.timer.least = max(d.timer.least, minSEOf(msg))
}

// raiseInterval answers a 422: the request asks for what the refusal demands
// (RFC 4028 7.4). nil when it demands nothing.
func raiseInterval(res *sip.Response) func(req *sip.Request) {
	least := minSEOf(res)
	if res.StatusCode != statusIntervalTooSmall || least <= 0 {
		return nil
	}
	return func(req *sip.Request) {
		asked, refresher := sessionExpires(req)
		if refresher != "" {
			refresher = ";refresher=" + refresher
		}
		for _, name := range []string{"Session-Expires", "Min-SE"} {
			removeHeaders(req, name)
		}
		req.AppendHeader(sip.NewHeader("Session-Expires", sipmsg.FormatSeconds(max(asked, least))+refresher))
		req.AppendHeader(sip.NewHeader("Min-SE", sipmsg.FormatSeconds(least)))
	}
}

// grantTimer adds to the 2xx to an INVITE or UPDATE what comes of the timer that
// it asks for, or that we want (RFC 4028 9).
func (d *Dialog) grantTimer(req *sipmsg.Message, res *sip.Response) {
	interval, refresher := sessionExpires(req)
	if interval == 0 {
		interval = d.config().SessionExpires
	}
	if interval <= 0 {
		return
	}
	supports := supportsTimer(req)
	switch {
	case !supports:
		refresher = "uas"
	case refresher == "":
		refresher = "uac"
	}
	interval = max(interval, minSEOf(req), d.config().minSE())
	res.AppendHeader(sip.NewHeader("Session-Expires", sipmsg.FormatSeconds(interval)+";refresher="+refresher))
	if supports { // a MUST for "uac", a SHOULD for "uas"
		res.AppendHeader(sip.NewHeader("Require", "timer"))
	}
}

// agreeTimerLocked starts what a 2xx says of the timer, or stops it when that
// says nothing (RFC 4028 7.2, 9). peer is the peer's message, request or 2xx.
func (d *Dialog) agreeTimerLocked(res *sip.Response, answeredByUs bool, peer message) {
	d.stopSessionLocked()
	d.noteLeastLocked(peer)
	interval, refresher := sessionExpires(res)
	if firstHeader(peer, "Allow") != nil {
		d.timer.allowsUpdate = lists(peer, "Allow", "UPDATE")
	}
	d.timer.interval = interval
	if interval == 0 || d.state == DialogStateTerminated {
		return
	}
	d.timer.ours = (refresher == "uas") == answeredByUs
	// RFC 4028 10: the BYE comes a little before the end.
	life := interval - min(32*time.Second, interval/3)
	d.timer.ends = time.Now().Add(life)
	d.timer.expiry = d.onTime(life, (*Dialog).sessionExpired)
	if d.timer.ours {
		d.timer.refresh = d.onTime(interval/2, (*Dialog).refreshSession)
	}
}

// stopSessionLocked ends the agreement.
func (d *Dialog) stopSessionLocked() {
	stopTimer(d.timer.expiry)
	stopTimer(d.timer.refresh)
	d.timer.expiry, d.timer.refresh, d.timer.interval = nil, nil, 0
}

// sessionExpired ends a call whose refresh did not come.
func (d *Dialog) sessionExpired() {
	d.mutex.Lock()
	// A timer that fired just before it was stopped finds a later end.
	due := d.timer.interval > 0 && d.state == DialogStateEstablished && !time.Now().Before(d.timer.ends)
	release := func() {}
	if due {
		release = d.hangupLocked(because(sip.StatusRequestTimeout, "session expired", Cause{By: PartyTimeout, Method: "BYE", Err: ErrTimeout}))
	}
	d.mutex.Unlock()
	release()
}

// refreshSession refreshes, on a goroutine of its own: by UPDATE where the peer
// takes it, else by a re-INVITE with the last session (RFC 4028 7.4).
func (d *Dialog) refreshSession() {
	d.mutex.RLock()
	due := d.timer.interval > 0 && d.state == DialogStateEstablished && d.ending == nil
	byUpdate, ends := d.timer.allowsUpdate, d.timer.ends
	d.mutex.RUnlock()
	if !due {
		return
	}
	d.background(func() {
		ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
		defer cancel()
		var err error
		if byUpdate {
			_, err = d.Update(ctx, nil)
		} else {
			_, err = d.renegotiate(ctx, InviteOpts{}, (*session).refreshed)
		}
		if err != nil {
			d.log().Debug("session could not be refreshed", "error", fmt.Sprint(err))
			d.refreshAgain(ends)
		}
	})
}

// refreshAgain tries once more, after an eighth of the interval, unless the session
// that was to end then has been refreshed meanwhile. The callee does so earlier, as
// after any 491 (RFC 3261 14.1): two refreshes that have crossed do not cross again.
func (d *Dialog) refreshAgain(ends time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.timer.interval == 0 || !d.timer.ends.Equal(ends) || d.state != DialogStateEstablished {
		return
	}
	wait := d.timer.interval / 8
	if !d.isUAC {
		wait /= 2
	}
	d.timer.refresh = d.onTime(max(wait, time.Second), (*Dialog).refreshSession)
}
