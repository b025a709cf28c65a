package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/redirect"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// The requests of ours: whether one may leave, and when. internal/retry sends them, and
// sends them again.

// stackOwner owns the requests outside calls: see [retry.Owner].
type stackOwner struct {
	stack *Stack
	// heard, unless nil, is called with the flow of a response.
	heard func(flow *transport.Flow)
}

func (o *stackOwner) Go(f func()) bool    { return o.stack.tasks.Go(f) }
func (o *stackOwner) GoAsk(f func()) bool { return o.stack.calls.Go(f) }

func (o *stackOwner) Begin(_ context.Context, sent *draft.Request) (uint32, error) {
	return sent.CSeq() + 1, nil
}
func (o *stackOwner) End() {}

func (o *stackOwner) Left(sip.Uri, *transport.Flow) {}

func (o *stackOwner) Heard(_ *sipmsg.Message, flow *transport.Flow) { o.heard(flow) }

func (o *stackOwner) Unsent(opt txn.RequestOptions, err error) error {
	return lostFlow(opt, callError(err))
}

func (o *stackOwner) Lost(opt txn.RequestOptions, err error) error { return lostFlow(opt, err) }

// callOwner owns the requests of a call.
type callOwner struct {
	stackOwner
	dialog *Dialog
	// early is the early dialog that a request is sent in, if it is. mayRepeat, unless nil,
	// may forbid that it is sent again; it is called with the mutex held.
	early     *earlyDialog
	mayRepeat func() error
}

// Begin acquires the send slot, which End releases.
func (o *callOwner) Begin(ctx context.Context, sent *draft.Request) (seq uint32, err error) {
	d := o.dialog
	d.sendSlot.WaitOrJoin(ctx, d.sendSlot.Enqueue())
	d.awaitSeqs()
	if seq, err = d.nextSeq(sent.Method, o.early, o.mayRepeat); err != nil {
		d.sendSlot.Release()
	}
	return seq, err
}

func (o *callOwner) End() { o.dialog.sendSlot.Release() }

func (o *callOwner) Left(nextHop sip.Uri, flow *transport.Flow) {
	o.dialog.noteDetour(o.early, nextHop, flow)
}

func (o *callOwner) Heard(res *sipmsg.Message, flow *transport.Flow) {
	o.dialog.heardBy(o.early, res, flow)
}

// unlockAndSend sends a request that was built under the mutex, which it unlocks: in
// an early dialog, unless e is nil. set sets what is called with the outcome.
func (s *dialogState) unlockAndSend(ctx context.Context, req *draft.Request, e *earlyDialog, mayRepeat func() error, set func(x *retry.Request)) error {
	opt := s.optionsLocked()
	s.d.mutex.Unlock()
	x, err := s.d.newRequest(e, mayRepeat)
	if err != nil {
		return err
	}
	x.To(opt)
	set(x)
	return x.Send(ctx, req)
}

// newRequest returns a request of this dialog, of an early dialog unless e is nil.
// mayRepeat, unless nil, may forbid that it is sent again; it is called with the mutex held.
func (d *Dialog) newRequest(e *earlyDialog, mayRepeat func() error) (*retry.Request, error) {
	layer, err := d.transactionLayer()
	if err != nil {
		return nil, err
	}
	x := &struct {
		retry.Request
		owner callOwner
	}{
		Request: retry.Request{
			Layer: layer, Base: d.baseContext(), Timeout: d.config().txTimeout(), Attempt: d.stack.attempt(&d.credentials),
		},
		owner: callOwner{stackOwner: stackOwner{stack: d.stack}, dialog: d, early: e, mayRepeat: mayRepeat},
	}
	x.Owner = &x.owner
	return &x.Request, nil
}

func (d *Dialog) nextSeq(method sip.RequestMethod, e *earlyDialog, mayRepeat func() error) (seq uint32, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if mayRepeat != nil {
		if err := mayRepeat(); err != nil {
			return 0, err
		}
	}
	if e.isGone() {
		return 0, ErrTerminated // it would overtake the BYE that releases the fork
	}
	s := d.stateOfLocked(e)
	seq, ok := s.NextSeq(method)
	if !ok {
		return 0, errtext.Explained(ErrTimeout, errStoreSilent)
	}
	s.drewLocked()
	return seq, nil
}

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
	if d.confirm(ctx) == storewriter.Moved {
		return ErrMoved
	}
	if err := d.sendSlot.Acquire(ctx); err != nil {
		return err
	}
	d.awaitSeqs()
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
		return &StateError{Op: op, State: d.state, Need: "Established state without a pending hang-up"}
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

// redirects are the targets of an INVITE that begins a call (RFC 3261 8.1.3.4), and the
// route set to each of them. The dialog's mutex guards them.
type redirects struct {
	*redirect.Targets
	route []sip.Uri
}

// newRedirects returns nil where none is to be followed.
func newRedirects(limit int, target sip.Uri, route []sip.Uri) *redirects {
	if limit <= 0 {
		return nil
	}
	return &redirects{redirect.New(limit, target), route}
}

// nextTarget returns a function that sends the INVITE to the next target, when one has
// failed by a response or without one; nil when there is no other.
func (i *inviteClient) nextTarget(res *sipmsg.Message) func(req *draft.Request) txn.RequestOptions {
	i.d.mutex.Lock()
	defer i.d.mutex.Unlock()
	r := i.redirects
	if i.mayRepeatLocked() != nil || r == nil || !r.MayGoOn() {
		return nil
	}
	if res != nil {
		r.Learn(res.Status, contactsOf(res))
	}
	target, found := r.Next()
	if !found {
		return nil
	}
	return func(req *draft.Request) txn.RequestOptions { return i.retarget(req, target, r.route) }
}

func contactsOf(res *sipmsg.Message) (list []redirect.Contact) {
	for _, contact := range sipheader.AddressesOf(res, "Contact") {
		list = append(list, redirect.Contact{URI: contact.URI, Params: contact.Params})
	}
	return list
}

// retarget addresses an INVITE to the next target. Early dialogs and routes of the
// target before are forgotten. To, From and Call-ID stay.
func (i *inviteClient) retarget(req *draft.Request, target sip.Uri, route []sip.Uri) txn.RequestOptions {
	d := i.d
	both := d.lockBoth()
	open := i.leaveLocked(target, route)
	opt := d.currentLocked().aimLocked(req)
	both.unlock()
	d.refuseUpdates(open)
	return opt
}

// leaveLocked makes another target the dialog's, and ends the early dialogs of the one
// before. Both mutexes are held; the result is for refuseUpdates.
func (i *inviteClient) leaveLocked(target sip.Uri, route []sip.Uri) (open []*updateServer) {
	d := i.d
	open = i.closeForksLocked()
	i.forks.Restart()
	old := d.keyLocked()
	next := &dialogState{d: d, State: d.currentLocked().Elsewhere(target, route), peerIdentity: i.invitedLocked()}
	next.negotiation.SendOffer(i, i.offer, offeranswer.ByApplication)
	d.setCurrentLocked(next)
	i.origin = nil
	d.rekeyLocked(old)
	return open
}

// aimLocked addresses an INVITE to the dialog's target.
func (s *dialogState) aimLocked(req *draft.Request) txn.RequestOptions {
	uri, routes := s.Path()
	req.SetURI(&uri)
	req.Remove("Route")
	for i := range routes {
		req.AddRoute(&routes[i])
	}
	return s.optionsLocked()
}
