package bridge

import (
	"bytes"
	"context"
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
)

// leg is one of the two calls.
type leg struct {
	call  *Call
	other *leg

	mu sync.Mutex // guards the fields below; no method of a dialog is called with it
	d  *dialog.Dialog
	// asked is the request for an offer that our re-INVITE of this call relays.
	asked *dialog.OfferRequest
	given chan dialog.Body
	// remote is the peer's latest session description, and local that of the other peer
	// that goes with it. sent is the first one that the peer got in this call.
	remote, local dialog.Body
	sent          []byte
}

// sends returns a session description as the peer gets it: under the o= line that it knows
// from this call, if that of the other has changed, because the other call has (RFC 3264 8,
// RFC 3725 4.4). The stack raises the version. What cannot be read passes untouched.
func (l *leg) sends(body dialog.Body) dialog.Body {
	if body == nil {
		return nil
	}
	text, ok := offeranswer.ReadableSDP(body)
	if !ok {
		return body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sent == nil:
		l.sent = text
	case !sdp.SameOrigin(text, l.sent):
		return offeranswer.WithOriginOf(body, l.sent)
	}
	return body
}

// keepOrigin keeps the o= line that the peer of an established call knows.
func (l *leg) keepOrigin() {
	if known := l.dialog().Session().Local; known != nil {
		l.sends(known)
	}
}

func (l *leg) firstSent() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

func (l *leg) dialog() *dialog.Dialog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.d
}

// attach makes d the second call.
func (c *Call) attach(d *dialog.Dialog) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.d = d
}

// register sets the functions of a call of which it has one each.
func (l *leg) register() {
	d, b := l.dialog(), l.call.bridge
	d.OnOfferRequest(l.decide)
	for _, method := range []string{"INFO", "MESSAGE", "OPTIONS"} {
		_ = d.OnRequest(method, l.relay) // these methods cannot be refused
	}
	if b.opts.Refer != nil {
		d.OnRefer(l.refer)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.legs[d] = l
}

// isInAnotherCall reports whether the call is part of another Call by now.
func (l *leg) isInAnotherCall() bool {
	d, b := l.dialog(), l.call.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.legs[d]
	return now != nil && now != l
}

// unregister forgets a call that has ended.
func (l *leg) unregister() {
	d, b := l.dialog(), l.call.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.legs[d] == l {
		delete(b.legs, d)
	}
}

// listen registers the bridge's functions with a call.
func (c *Call) listen(l *leg) {
	l.register()
	// Not by OnStateChange: a callback of the application's may block that.
	context.AfterFunc(l.dialog().Context(), l.ended)
}

// ended ends the other call, by BYE or CANCEL (RFC 3261 15, 9). A caller that has
// no final response gets one from Join. The goroutine waits for its peer, at most for TxTimeout.
func (l *leg) ended() {
	l.unregister()
	other := l.other.dialog()
	if other == nil || other.State() == dialog.DialogStateTerminated || l.call.connecting.Load() || l.call.parted.Load() {
		return
	}
	reasons := reasonsOf(l.dialog().Cause())
	l.call.bridge.background(func() { _ = other.ByeWith(context.Background(), dialog.ByeOpts{Reasons: reasons}) })
}

// reasonsOf returns the reasons of the peer, or else the one that RFC 3326 has for a call
// that failed.
func reasonsOf(cause dialog.Cause) []dialog.Reason {
	if len(cause.Reasons) > 0 {
		return cause.Reasons
	}
	switch {
	case cause.Status >= 300:
		return []dialog.Reason{{Protocol: "SIP", Cause: cause.Status, Text: cause.Reason}}
	case cause.By == dialog.PartyTimeout:
		return []dialog.Reason{{Protocol: "SIP", Cause: sip.StatusRequestTimeout, Text: "Request Timeout"}}
	}
	return nil
}

// relay passes a request inside one call to the other.
func (l *leg) relay(ctx context.Context, req *sip.Request) dialog.Answer {
	hops, ok := hopsOf(req)
	if !ok {
		return dialog.Answer{Status: statusTooManyHops}
	}
	other := l.other.dialog()
	if other == nil {
		return dialog.Answer{Status: sip.StatusTemporarilyUnavailable}
	}
	res, err := other.Do(ctx, l.copied(req, hops))
	if err != nil {
		r := refusalOf(err)
		return dialog.Answer{Status: r.Status, Reason: r.Reason, Headers: r.Headers}
	}
	status, reason := res.StatusCode, res.Reason
	if !mayPass(status) {
		status, reason = sip.StatusInternalServerError, ""
	}
	return dialog.Answer{Status: status, Reason: reason, Headers: l.call.bridge.passed(res), Body: bodyOf(res)}
}

// copied returns what passes of a request.
func (l *leg) copied(req *sip.Request, hops int) *sip.Request {
	next := sip.NewRequest(req.Method, sip.Uri{})
	forwards := sip.MaxForwardsHeader(hops)
	next.AppendHeader(&forwards)
	for _, h := range l.call.bridge.passed(req) {
		next.AppendHeader(sip.NewHeader(h.Name, h.Value))
	}
	for _, name := range []string{"Content-Type", "Info-Package"} {
		for _, value := range dialog.HeaderText(req, name) {
			next.AppendHeader(sip.NewHeader(name, value))
		}
	}
	next.SetBody(req.Body())
	return next
}

// agreed records the session descriptions that both peers of an exchange have accepted.
func (l *leg) agreed(remote, local dialog.Body) {
	l.mu.Lock()
	l.remote, l.local = remote, local
	l.mu.Unlock()
	l.other.mu.Lock()
	l.other.remote, l.other.local = local, remote
	l.other.mu.Unlock()
}

// unchanged returns our answer to an offer that changes nothing: a refresh, which the other
// call need not see (RFC 4028 7.4).
func (l *leg) unchanged(offer dialog.Body) (answer dialog.Body, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.remote == nil || l.local == nil || !bytes.Equal(l.remote.Data(), offer.Data()) {
		return nil, false
	}
	return l.local, true
}
