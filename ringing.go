package dialog

import (
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipmsg"
)

// ringing are the timers and the watch of a call that is not answered.
type ringing struct {
	// limit fires at the ringing limit, again when it is time to say again that the call
	// rings.
	limit, again *time.Timer
	// unwatch ends the watch over the connection of the peer's INVITE.
	unwatch func()
}

// ring sends the automatic 180 (RFC 3261 13.3.1.1), unless that is switched off, and
// repeats it every minute.
func (d *Dialog) ring(tx serverTx) {
	rings := d.mayRing(tx.Message())
	if rings {
		if err := d.sendRinging(tx); err != nil {
			d.log().Debug("180 could not be sent", "error", err)
		}
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.phase != phaseIncoming || d.incoming.tx == nil {
		return
	}
	d.setStateLocked(DialogStateRinging)
	d.limitLocked()
	if rings {
		d.ringAgainLocked()
	}
}

// sendRinging sends the automatic 180, reliably where the caller requires it.
func (d *Dialog) sendRinging(tx serverTx) error {
	if d.sendsReliably(tx.Message(), false) {
		return d.sendProvisional(tx, d.newProvisional(tx, sip.StatusRinging, ""))
	}
	return answerError(tx.Answer(sip.StatusRinging, "", d.provisionalFields(tx)...))
}

// mayRing reports whether the automatic 180 is wanted, and may be sent. A reliable one
// would need an offer of ours when the INVITE has none (RFC 3262 5).
func (d *Dialog) mayRing(invite *sipmsg.Message) bool {
	return !d.config().NoAutoRinging && (d.stack.hasOffer(invite) || !d.sendsReliably(invite, false))
}

// newProvisional builds a provisional response that makes an early dialog (RFC
// 3261 12.1.1).
func (d *Dialog) newProvisional(tx serverTx, code int, reason string) *sip.Response {
	res := tx.NewResponse(code, reason)
	for _, h := range d.provisionalHeaders(tx) {
		res.AppendHeader(h)
	}
	return res
}

// provisionalFields is provisionalHeaders as they are written, for a response that
// nobody changes.
func (d *Dialog) provisionalFields(tx serverTx) []sipmsg.Field {
	fields := append(make([]sipmsg.Field, 0, 3),
		sipmsg.Field{Name: "Contact", Value: d.contactValue(tx)},
		sipmsg.Field{Name: "Allow", Value: d.stack.allow(d.handlersNow()).Value()})
	if speaksOfPackages(tx.Message()) {
		fields = append(fields, sipmsg.Field{Name: "Recv-Info", Value: d.config().recvInfo().Value()})
	}
	return fields
}

func (d *Dialog) provisionalHeaders(tx serverTx) []sip.Header {
	headers := []sip.Header{d.contactTo(tx), d.stack.allow(d.handlersNow())}
	if speaksOfPackages(tx.Message()) {
		headers = append(headers, d.config().recvInfo())
	}
	return headers
}

// ringingRefresh is the interval after which a ringing INVITE gets another provisional
// response, so that no proxy cancels it (RFC 3261 13.3.1.1).
const ringingRefresh = time.Minute

// reliableRefresh is that interval where the response can be a reliable one (RFC 3262
// 3).
const reliableRefresh = 150 * time.Second

// ringAgainLocked arms the timer of ringAgain, once.
func (d *Dialog) ringAgainLocked() {
	if d.ringing.again == nil {
		d.ringing.again = d.onTime(ringingRefresh, (*Dialog).ringAgain)
	}
}

func (d *Dialog) ringAgain() {
	d.mutex.Lock()
	tx := d.incoming.tx
	if tx == nil || d.state != DialogStateRinging {
		d.mutex.Unlock()
		return
	}
	if d.incoming.reliable != nil && d.incoming.reliable.order.Started() {
		d.ringing.again.Reset(reliableRefresh)
		d.mutex.Unlock()
		d.refreshProvisional(tx)
		return
	}
	d.ringing.again.Reset(ringingRefresh)
	d.mutex.Unlock()
	if err := tx.Repeat(); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}

// refreshProvisional tells a caller who knows reliable responses that it still rings.
func (d *Dialog) refreshProvisional(tx serverTx) {
	d.mutex.RLock()
	r := d.incoming.reliable
	idle, code := r.order.IsIdle(), r.code
	d.mutex.RUnlock()
	if !idle {
		return // what is being repeated says it
	}
	res := d.newProvisional(tx, code, "")
	res.AppendHeader(sip.NewHeader("Require", rel100.Tag))
	if err := d.sendProvisional(tx, res); err != nil {
		d.log().Debug("provisional response could not be repeated", "error", err)
	}
}
