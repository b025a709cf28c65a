package dialog

import (
	"context"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dtmf"
	"sipdialog.example/dialog/internal/sipmsg"
)

// DTMF is a key that was pressed, as an INFO reports it.
type DTMF struct {
	// Digit is '0' to '9', '*', '#', or 'A' to 'D'.
	Digit rune
	// Duration is how long it was held; zero when the INFO does not say.
	Duration time.Duration
}

// DTMFOpts are the options of SendDTMF.
type DTMFOpts struct {
	// Duration is how long the key is held, in whole milliseconds; zero is
	// 160 ms. Plain does not tell it.
	Duration time.Duration
	// Plain sends application/dtmf, which has the digit only, rather than
	// application/dtmf-relay.
	Plain bool
}

const defaultDTMFDuration = 160 * time.Millisecond

// SendDTMF reports a key to the peer by an INFO of the forms that gateways know:
// application/dtmf-relay (Signal=5, Duration=160), or application/dtmf. It needs an
// early dialog or an established call and waits for the response, until ctx ends;
// digits sent one after the other arrive in order. An INFO without a response ends the
// call, as that of SendInfo does. This is legacy usage of INFO (RFC 6086 2): no Info
// Package.
//
// Errors: ErrInvalidArgument (no digit, a negative Duration), *ResponseError, and those
// of Do.
func (d *Dialog) SendDTMF(ctx context.Context, digit rune, opts DTMFOpts) (err error) {
	defer naming("SendDTMF", &err)
	if ctx == nil {
		return errNilContext("SendDTMF")
	}
	key, ok := dtmf.Digit(digit)
	if !ok || opts.Duration < 0 {
		return invalid("key %q for %v", digit, opts.Duration)
	}
	if opts.Plain {
		return d.SendInfo(ctx, NewBody(dtmf.TypePlain, []byte(string(key))))
	}
	held := orDefault(opts.Duration, defaultDTMFDuration)
	return d.SendInfo(ctx, NewBody(dtmf.TypeRelay, dtmf.Relay(dtmf.Key{Digit: key, Duration: held})))
}

// OnDTMF registers a callback for the keys in INFOs of the peer's, in both forms of
// SendDTMF. It is called in their order, one at a time with the callbacks of OnBody and
// OnStateChange, with no lock held; the INFO has been answered 200. An INFO of these
// types that cannot be read gets 400. Neither goes to OnRequest's handler. It replaces
// the callback set before; nil leaves the INFOs to that handler.
func (d *Dialog) OnDTMF(callback func(DTMF)) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.registerLocked().dtmf = callback
}

// handledDTMF takes an INFO that reports a key, if a callback is registered.
func (d *Dialog) handledDTMF(tx serverTx, req *sipmsg.Message) bool {
	read := dtmfReader(req)
	d.mutex.RLock()
	callback := d.callbacksLocked().dtmf
	d.mutex.RUnlock()
	if read == nil || callback == nil {
		return false
	}
	key, ok := read(string(req.Body()))
	answered := make(chan struct{})
	defer close(answered)
	switch {
	case !ok:
		d.stack.respond(tx, tx.NewResponse(sip.StatusBadRequest, "DTMF cannot be read"))
	case d.tellKey(callback, DTMF(key), answered):
		d.stack.answerWith(tx, sip.StatusOK)
	default:
		d.stack.answerWith(tx, sip.StatusServiceUnavailable)
	}
	return true
}

// tellKey queues the callback, unless the queue is full. It runs once the INFO has
// been answered.
func (d *Dialog) tellKey(callback func(DTMF), key DTMF, answered <-chan struct{}) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.mailbox.Offer(func() {
		<-answered
		callback(key)
	})
}

// dtmfReader returns the function that reads the body of an INFO; nil when it reports
// no key, or belongs to a package.
func dtmfReader(req *sipmsg.Message) func(body string) (dtmf.Key, bool) {
	if hasHeader(req, "Info-Package") {
		return nil
	}
	return dtmf.Reader(mediaType(headerValue(req, "Content-Type")))
}
