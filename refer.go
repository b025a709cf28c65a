package dialog

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
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
	if other, ok := replaceDialog.(*Dialog); replaceDialog == nil || (ok && other == nil) {
		return fmt.Errorf("%w: no dialog to replace", ErrInvalidArgument)
	}
	key := replaceDialog.Key()
	if key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "" {
		return fmt.Errorf("%w: the dialog to replace has no peer yet", ErrInvalidArgument)
	}
	// RFC 3891 3: the tags as the side sees them that will be asked; our peer
	// there has our remote tag as its own.
	info := &ReplacesInfo{CallID: key.CallID, FromTag: key.LocalTag, ToTag: key.RemoteTag}
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
	req.AppendHeader(sip.NewHeader("Supported", supportedOptions))
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
	headers := req.GetHeaders("Refer-To")
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
				d.stack.logPanic("OnIncomingRefer", value, debug.Stack())
			}
		}()
		callback(d, referTo, replaces)
		returned = true
	})
}
