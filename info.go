package dialog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/dtmf"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// InfoPackageOf returns the Info Package of an INFO (RFC 6086 4.2), without its
// parameters; empty if it has none. A handler of INFO (OnRequest) gets INFOs without a
// package, and those of StackConfig.InfoPackages.
func InfoPackageOf(req *sip.Request) string {
	if req == nil {
		return ""
	}
	return packageOf(req)
}

func packageOf(msg sipheader.Message) string {
	return sipmsg.Bare(sipheader.Value(msg, "Info-Package"))
}

// SendInfoPackage sends an INFO of an Info Package (RFC 6086 4.2.1) and waits for its
// response; see Do. A response of 300 or more is returned as a *ResponseError. After a 469
// the peer no longer accepts that package, and the call continues. An INFO without a
// response ends the call, as with SendInfo.
//
// Errors: ErrInfoPackage (the peer has not listed it: see Info.PeerInfoPackages), and
// those of Do.
func (d *Dialog) SendInfoPackage(ctx context.Context, name string, body Body, headers ...Header) (err error) {
	defer naming("SendInfoPackage", &err)
	if err := checkToken("Info Package", sipmsg.Bare(name)); err != nil {
		return err
	}
	own := []Header{{"Info-Package", name}}
	if !isNilBody(body) {
		own = append(own, Header{"Content-Disposition", "Info-Package"})
	}
	return d.SendInfo(ctx, body, append(own, headers...)...)
}

// mayInformLocked refuses an INFO of a package that the peer does not accept (RFC 6086
// 4.2.1).
func (d *Dialog) mayInformLocked(req *sip.Request) error {
	if req.Method != sip.INFO || !sipheader.Has(req, "Info-Package") {
		return nil
	}
	if name := InfoPackageOf(req); !slices.Contains(d.currentLocked().peerPackages, name) {
		return fmt.Errorf("%w: %q", ErrInfoPackage, name)
	}
	return nil
}

// takesPackage reports whether an INFO belongs to no package, or to one of ours.
func (d *Dialog) takesPackage(req *sipmsg.Message) bool {
	return !sipheader.Has(req, "Info-Package") ||
		slices.Contains(d.config().InfoPackages, packageOf(req))
}

// recvInfo is the Recv-Info header: the packages that we accept.
func (c *StackConfig) recvInfo() sip.Header {
	return sip.NewHeader("Recv-Info", strings.Join(c.InfoPackages, ", "))
}

// askPackages adds Recv-Info to an INVITE, if InfoPackages is set (RFC 6086 5.2.3).
func (d *Dialog) askPackages(req *draft.Request) {
	if d.config().InfoPackages != nil {
		req.AddHeader(d.config().recvInfo())
	}
}

// grantPackages adds Recv-Info to a response when the request has one, and only then
// (RFC 6086 5.2.3).
func (d *Dialog) grantPackages(req *sipmsg.Message, res *sip.Response) {
	if speaksOfPackages(req) {
		res.AppendHeader(d.config().recvInfo())
	}
}

func speaksOfPackages(req *sipmsg.Message) bool { return sipheader.Has(req, "Recv-Info") }

// maxPackages bounds the Info Packages of a peer that are kept.
const maxPackages = 100

// learnPackagesLocked sets the packages that the peer accepts, from a message that is
// accepted. A refused request changes nothing (RFC 6086 5.2.4), nor does one without
// Recv-Info.
func (s *dialogState) learnPackagesLocked(msg sipheader.Message) {
	if !sipheader.Has(msg, "Recv-Info") {
		return
	}
	list := sipheader.Listed(msg, "Recv-Info")
	s.peerPackages = make([]string, 0, min(len(list), maxPackages))
	for _, token := range list[:cap(s.peerPackages)] {
		s.peerPackages = append(s.peerPackages, sipmsg.Bare(token))
	}
}

// DTMF is a pressed key that an INFO reports.
type DTMF struct {
	// Digit is '0' to '9', '*', '#', or 'A' to 'D'.
	Digit rune
	// Duration is the time for which the key was held; zero if the INFO has none.
	Duration time.Duration
}

// DTMFOpts are the options of SendDTMF.
type DTMFOpts struct {
	// Duration is the time for which the key is held, in whole milliseconds; zero means
	// 160 ms. With Plain it is not sent.
	Duration time.Duration
	// Plain sends application/dtmf, which has only the digit, instead of
	// application/dtmf-relay.
	Plain bool
}

const defaultDTMFDuration = 160 * time.Millisecond

// SendDTMF reports a key to the peer by an INFO in the forms that gateways support:
// application/dtmf-relay (Signal=5, Duration=160), or application/dtmf. It needs an
// early dialog or an established call and waits for the response, until ctx ends.
// Digits that are sent one after the other arrive in order. An INFO without a response
// ends the call, as with SendInfo. This is legacy usage of INFO (RFC 6086 2), without an
// Info Package.
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

// OnDTMF registers a callback for the keys in INFOs of the peer, in both forms of
// SendDTMF. The callback runs in the order of the INFOs, one at a time with those of
// OnBody and OnStateChange, with no lock held, after the INFO has got 200. An INFO of
// these types that cannot be read gets 400. OnRequest's handler gets neither. OnDTMF
// replaces the earlier callback; nil leaves the INFOs to OnRequest's handler, or else to
// the stack's callback ([Stack.OnDTMF]).
func (d *Dialog) OnDTMF(callback func(DTMF)) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.registerLocked().dtmf = callback
}

// OnDTMF registers a callback for the keys in all calls that have neither a callback of
// their own nor a handler of INFO; see [Dialog.OnDTMF].
func (s *Stack) OnDTMF(callback func(call *Dialog, key DTMF)) {
	s.setDefaults(func(c *callDefaults) { c.dtmf = callback })
}

// dtmfCallback returns the function that takes the keys of this call; nil for none.
func (d *Dialog) dtmfCallback() func(DTMF) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	own, all := d.callbacksLocked(), d.stack.defaultsNow().dtmf
	if own.dtmf != nil || own.requests[sip.INFO] != nil || all == nil {
		return own.dtmf
	}
	return func(key DTMF) { all(d, key) }
}

// handledDTMF handles an INFO that reports a key, if a callback is registered.
func (d *Dialog) handledDTMF(tx serverTx, req *sipmsg.Message) bool {
	read := dtmfReader(req)
	if read == nil {
		return false
	}
	callback := d.dtmfCallback()
	if callback == nil {
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
	if sipheader.Has(req, "Info-Package") {
		return nil
	}
	return dtmf.Reader(sipmsg.Bare(sipheader.Value(req, "Content-Type")))
}
