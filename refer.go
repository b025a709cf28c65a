package dialog

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Refer asks the peer to call target (RFC 3515). It returns when the REFER has
// been written; wait for its answer with WaitRefer. The call must be
// established.
//
// Errors: ErrInvalidArgument, *StateError, ErrPending, ErrTransport, ctx's.
func (d *Dialog) Refer(ctx context.Context, target sip.Uri, opts ReferOpts) error {
	return d.SendRefer(ctx, target, &opts)
}

// ReferReplace asks the peer to call the far end of replaceDialog and to take
// that call over: an attended transfer (RFC 5589 7). replaceDialog must be a
// call of this package, established; for another implementation of IDialog use
// SendReferWithReplaces. Otherwise it is Refer.
func (d *Dialog) ReferReplace(ctx context.Context, replaceDialog IDialog, opts ReferOpts) error {
	other, ok := replaceDialog.(*Dialog)
	if !ok || other == nil {
		return fmt.Errorf("%w: the dialog to replace has no known target", ErrInvalidArgument)
	}
	other.mutex.RLock()
	target := *other.remoteTarget.Clone()
	other.mutex.RUnlock()
	return d.SendReferWithReplaces(ctx, target, other, &opts)
}

// SendReferWithReplaces is ReferReplace with the URI to call given. Only
// replaceDialog's Key is used.
func (d *Dialog) SendReferWithReplaces(ctx context.Context, targetURI sip.Uri, replaceDialog IDialog, opts *ReferOpts) error {
	info := ReplacesOf(replaceDialog)
	if info == nil {
		return fmt.Errorf("%w: no dialog to replace, or one without a peer yet", ErrInvalidArgument)
	}
	target := *targetURI.Clone()
	target.Headers.Remove("Replaces")
	target.Headers.Add("Replaces", escapeHeader(info.BuildReplacesHeader()))
	return d.SendRefer(ctx, target, opts)
}

// SendRefer is Refer; nil opts are the defaults.
func (d *Dialog) SendRefer(ctx context.Context, referTo sip.Uri, opts *ReferOpts) error {
	if ctx == nil {
		return errNilContext("Refer")
	}
	if referTo.Host == "" && referTo.Raw() == "" {
		return fmt.Errorf("%w: nobody to refer to", ErrInvalidArgument)
	}
	if err := d.lockInTurn(ctx, "Refer"); err != nil {
		return err
	}
	defer d.turn.release()
	req := d.nextRequestLocked(sip.REFER)
	d.decorateReferLocked(req, referTo, opts)
	r := d.newSentReferLocked(req, referTo)
	opt := d.optionsLocked()
	d.mutex.Unlock()

	x, err := d.exchange(opt, nil)
	if err == nil {
		x.prepared, x.response, x.done = r.prepared, r.referResponse, r.referDone
		err = x.send(ctx, req)
	}
	if err != nil {
		d.mutex.Lock()
		r.refusedLocked(err)
		d.dropReferLocked(r)
		d.mutex.Unlock()
		return fmt.Errorf("dialog: refer: %w", err)
	}
	return nil
}

// decorateReferLocked adds what a REFER has beyond other requests (RFC 3515
// 2.4.1, 3892 3, 4488 4).
func (d *Dialog) decorateReferLocked(req *sip.Request, referTo sip.Uri, opts *ReferOpts) {
	req.AppendHeader(sip.NewHeader("Refer-To", "<"+referTo.String()+">"))
	req.AppendHeader(sip.NewHeader("Supported", d.config().supported()))
	if opts == nil {
		opts = &ReferOpts{}
	}
	switch {
	case opts.NoReferSub:
		req.AppendHeader(sip.NewHeader("Refer-Sub", "false"))
	case opts.ReferSub != nil:
		req.AppendHeader(sip.NewHeader("Refer-Sub", oneLine(*opts.ReferSub)))
	}
	referredBy := true
	for name, value := range opts.Headers {
		if !strings.EqualFold(name, "Refer-To") && !strings.EqualFold(name, "r") && !strings.EqualFold(name, "Refer-Sub") {
			appendHeaders(req, []Header{{name, value}})
		}
		referredBy = referredBy && !strings.EqualFold(name, "Referred-By")
	}
	if referredBy {
		req.AppendHeader(sip.NewHeader("Referred-By", "<"+d.local.uri.String()+">"))
	}
}

func (d *Dialog) newSentReferLocked(req *sip.Request, referTo sip.Uri) *ReferSubscription {
	r := &ReferSubscription{
		ID: req.CSeq().Value(), dialog: d, referToURI: referTo, sent: true, answered: make(chan struct{}),
	}
	if d.sentRefers == nil {
		d.sentRefers = make(map[string]*ReferSubscription)
	}
	d.sentRefers[r.ID] = r
	if len(d.referQueue) >= maxReferQueue {
		d.referQueue = d.referQueue[1:]
	}
	d.referQueue = append(d.referQueue, r)
	return r
}

// prepared gives the subscription the CSeq of the REFER that leaves: the peer
// knows it by that. Nobody has seen another, since only a REFER that the peer
// has taken is handed out.
func (r *ReferSubscription) prepared(req *sip.Request) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if id := req.CSeq().Value(); id != r.ID && r.openLocked() {
		delete(r.dialog.sentRefers, r.ID)
		r.ID = id
		r.dialog.sentRefers[id] = r
	}
}

// maxReferQueue bounds the REFERs that nobody waits for; the oldest go first.
const maxReferQueue = 1000

// referResponse takes a response to a REFER of ours.
func (r *ReferSubscription) referResponse(res *sip.Response) {
	switch {
	case res.IsProvisional():
	case res.IsSuccess():
		r.accepted(res)
	default:
		r.dialog.mutex.Lock()
		r.refusedLocked(newResponseError(sip.REFER, res))
		r.dialog.mutex.Unlock()
		r.dialog.failed(sip.REFER, res.StatusCode, res.Reason)
	}
}

// accepted takes a 2xx: there is a subscription, unless the peer grants that
// there is none (RFC 4488 4).
func (r *ReferSubscription) accepted(res *sip.Response) {
	r.dialog.mutex.Lock()
	defer r.dialog.mutex.Unlock()
	if strings.EqualFold(headerValue(res, "Refer-Sub"), "false") {
		r.endLocked()
	} else if r.openLocked() {
		r.activateLocked(referLife)
	}
	r.answeredLocked(nil)
}

func (r *ReferSubscription) referDone(err error) {
	if err == nil {
		return
	}
	r.dialog.mutex.Lock()
	r.refusedLocked(callError(err))
	r.dialog.mutex.Unlock()
	r.dialog.unanswered(sip.REFER, err)
}

// WaitRefer waits for the answer to a REFER that was sent, each call for one,
// in the order of sending. A 2xx gives the subscription; it has ended already
// when the peer granted that there is none (Refer-Sub: false). When ctx ends
// first the REFER can be waited for again.
//
// Errors: ErrNoRefer (every REFER has been waited for), *ResponseError
// (refused), ErrTimeout, ErrTransport, ErrTerminated, ctx's.
func (d *Dialog) WaitRefer(ctx context.Context) (*ReferSubscription, error) {
	if ctx == nil {
		return nil, errNilContext("WaitRefer")
	}
	r := d.nextRefer()
	if r == nil {
		return nil, ErrNoRefer
	}
	select {
	case <-r.answered:
	case <-ctx.Done():
		d.mutex.Lock()
		r.waited = false
		d.mutex.Unlock()
		return nil, ctx.Err()
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.dropReferLocked(r)
	if r.err != nil {
		return nil, r.err
	}
	return r, nil
}

// nextRefer takes the first REFER that nobody waits for.
func (d *Dialog) nextRefer() *ReferSubscription {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, r := range d.referQueue {
		if !r.waited {
			r.waited = true
			return r
		}
	}
	return nil
}

func (d *Dialog) dropReferLocked(r *ReferSubscription) {
	for i, queued := range d.referQueue {
		if queued == r {
			d.referQueue = append(d.referQueue[:i], d.referQueue[i+1:]...)
			return
		}
	}
}

// handleRefer takes a REFER inside the call (RFC 3515 2.4.2): 202, then the
// subscription and the application.
func (d *Dialog) handleRefer(tx serverTx, req *sip.Request) {
	if d.State() != DialogStateEstablished {
		d.stack.answerWith(tx, sip.StatusRequestPending)
		return
	}
	referTo, replaces, err := referTarget(req)
	if err != nil {
		d.stack.answerWith(tx, sip.StatusBadRequest)
		return
	}
	if !d.hasRoomForRefer() {
		d.stack.busy(tx, &d.stack.counters.subscribed)
		return
	}
	res := tx.NewResponse(sip.StatusAccepted, "")
	d.mutex.RLock()
	res.AppendHeader(d.contactLocked(tx.Local()))
	d.mutex.RUnlock()
	if !wantsSubscription(req) {
		res.AppendHeader(sip.NewHeader("Refer-Sub", "false"))
	}
	if err := tx.Respond(res); err != nil {
		// Nothing was begun, so nothing is left behind.
		d.log().Warn("REFER could not be answered", "error", err)
		return
	}
	if err := d.HandleIncomingRefer(req, referTo, replaces); err != nil {
		d.log().Debug("REFER came to nothing", "error", err)
	}
}

func (d *Dialog) hasRoomForRefer() bool {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return len(d.referSubscriptions) < orDefault(d.config().Limits.SubscriptionsPerDialog, defaultSubscriptions)
}

// referTarget reads the one Refer-To that a REFER has (RFC 3515 2.1), and the
// Replaces header in it.
func referTarget(req *sip.Request) (sip.Uri, *ReplacesInfo, error) {
	headers := headersNamed(req, "Refer-To")
	if len(headers) != 1 {
		return sip.Uri{}, nil, fmt.Errorf("%w: %d Refer-To headers", ErrMalformed, len(headers))
	}
	var uri sip.Uri
	if h, ok := headers[0].(*sip.ReferToHeader); ok {
		uri = splitFlags(h.Address)
	} else if _, err := sip.ParseAddressValue(headers[0].Value(), &uri, &sip.HeaderParams{}); err != nil {
		return sip.Uri{}, nil, fmt.Errorf("%w: Refer-To: %w", ErrMalformed, err)
	}
	replaces, err := replacesIn(uri)
	return uri, replaces, err
}

// wantsSubscription is false for Refer-Sub: false (RFC 4488 4).
func wantsSubscription(req *sip.Request) bool {
	value, _, _ := strings.Cut(headerValue(req, "Refer-Sub"), ";")
	return !strings.EqualFold(strings.TrimSpace(value), "false")
}

// HandleIncomingRefer takes a REFER that has been answered 202: it makes the
// subscription, sends the first NOTIFY (RFC 3515 2.4.4), and runs
// OnIncomingRefer on a goroutine of its own. The stack calls it; a second call
// for the same CSeq does nothing while the first one's subscription lasts. It
// does not wait for the network.
//
// Errors: ErrInvalidArgument, ErrMalformed (no CSeq), *StateError.
func (d *Dialog) HandleIncomingRefer(req *sip.Request, referTo sip.Uri, replaces *ReplacesInfo) error {
	if req == nil {
		return fmt.Errorf("%w: no request", ErrInvalidArgument)
	}
	if req.CSeq() == nil {
		return fmt.Errorf("%w: REFER without CSeq", ErrMalformed)
	}
	r, isNew, err := d.takeRefer(req, referTo)
	if err != nil || !isNew {
		return err
	}
	if _, err := d.room(); err != nil {
		return nil // no network: there is nobody to tell
	}
	d.background(func() {
		r.begin()
		d.runReferCallback(referTo, replaces)
	})
	return nil
}

// takeRefer makes the subscription of a REFER, once. It returns nil for a
// REFER that wants none.
func (d *Dialog) takeRefer(req *sip.Request, referTo sip.Uri) (r *ReferSubscription, isNew bool, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	id := req.CSeq().Value()
	switch {
	case d.state == DialogStateTerminated:
		return nil, false, &StateError{Op: "HandleIncomingRefer", State: d.state, Need: "a call in progress"}
	case d.referSubscriptions[id] != nil:
		return nil, false, nil
	case !wantsSubscription(req):
		return nil, true, nil
	}
	r = &ReferSubscription{ID: id, dialog: d, referToURI: referTo, active: true, status: Progress{100, "Trying"}}
	if d.referSubscriptions == nil {
		d.referSubscriptions = make(map[string]*ReferSubscription)
	}
	d.referSubscriptions[id] = r
	return r, true, nil
}

// begin starts the subscription's time and sends the first NOTIFY, which goes
// before anything the application sends.
func (r *ReferSubscription) begin() {
	if r == nil {
		return
	}
	d := r.dialog
	d.mutex.Lock()
	if r.openLocked() {
		r.activateLocked(referLife)
	}
	d.mutex.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), d.config().timers().T2)
	defer cancel()
	if _, err := r.sendNotify(ctx, Progress{100, "Trying"}, ""); err != nil {
		d.log().Debug("NOTIFY could not be sent", "error", err)
	}
}

func (d *Dialog) runReferCallback(referTo sip.Uri, replaces *ReplacesInfo) {
	callback := d.stack.callbacksNow().OnIncomingRefer
	if callback == nil {
		return
	}
	d.stack.calls.Go(func() {
		returned := false
		defer func() {
			if value := recover(); !returned {
				d.stack.logPanic(d.log(), "OnIncomingRefer", value, debug.Stack())
			}
		}()
		callback(d, referTo, replaces)
		returned = true
	})
}
