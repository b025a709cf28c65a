package dialog

import (
	"context"
	"fmt"
	"slices"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/invite"
	"sipdialog.example/dialog/internal/retry"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The early dialogs of one INVITE of ours (RFC 3261 12.1.2, 13.2.2.1). A proxy may fork
// the INVITE: each To tag in a 101 to 199 makes an early dialog, with its own target, route
// set, CSeq numbers, reliable provisional responses and session: its dialogState. For the
// application all are one call. The call sends in the current early dialog: the oldest one
// that has not ended, and after the first 2xx the one that has answered.

// reservedSeqs are the CSeq numbers left for the BYE that releases a fork: a gap in the
// CSeq does no harm (RFC 3261 12.2.2).
const reservedSeqs = 16

// tagEarlyDialogTerminated is the option tag that asks for a 199 (RFC 6228 4).
const tagEarlyDialogTerminated = "199"

// earlyDialog is the early dialog that one To tag makes of our INVITE, or of the peer's.
type earlyDialog struct {
	// Set at construction.

	i     *inviteClient // nil for the peer's
	state *dialogState
	// gone is closed when no message belongs to it any more: it has ended, or another
	// early dialog has become the call.
	gone chan struct{}

	// The dialog's mutex guards the fields below. body is that of the latest response,
	// reasons are those of the end.
	invite.Early
	body    *SimpleBody
	reasons []Reason

	reliableClient
}

// forkEffect is what follows for one early dialog.
type forkEffect = invite.Effect[*earlyDialog]

// isGone reports whether the early dialog has ended; false for nil. It needs no lock.
func (e *earlyDialog) isGone() bool {
	if e == nil {
		return false
	}
	select {
	case <-e.gone:
		return true
	default:
		return false
	}
}

// mayRepeatLocked returns an error when the early dialog has ended: requests in it are
// not sent again.
func (e *earlyDialog) mayRepeatLocked() error {
	if e.isGone() {
		return ErrCanceled
	}
	return nil
}

// addForkLocked makes the early dialog of a new To tag. Its state begins as that of the
// INVITE, before its first response.
func (i *inviteClient) addForkLocked(tag string) *earlyDialog {
	if i.origin == nil {
		i.origin = i.d.currentLocked()
	}
	state := *i.origin
	state.State = i.origin.Fork(tag, i.seq)
	e := &earlyDialog{i: i, gone: make(chan struct{}), state: &state, Early: invite.Early{Tag: tag}}
	e.reliableClient = reliableClient{d: i.d, early: e, carrier: i, offered: !isNilBody(i.offer), propose: i.propose}
	i.forks.Add(e)
	return e
}

// invitedLocked returns the identity to which the INVITE was addressed.
func (i *inviteClient) invitedLocked() peerIdentity {
	if i.origin != nil {
		return i.origin.peerIdentity
	}
	return i.d.currentLocked().peerIdentity
}

// answeredByLocked returns the early dialog that a 2xx confirms.
func (i *inviteClient) answeredByLocked(res *sipmsg.Message) *earlyDialog {
	tag := sipheader.ToTag(res)
	e := i.forks.Find(tag)
	if e == nil {
		e = i.addForkLocked(tag)
	}
	e.learnFromLocked(res, e.HearSuccess(res.Status))
	return e
}

// learnFromLocked records a response of the early dialog.
func (e *earlyDialog) learnFromLocked(res *sipmsg.Message, lesson invite.Lesson) {
	switch lesson {
	case invite.LearnAll:
		e.i.learnLocked(e.state, res)
	case invite.LearnTarget:
		e.state.refreshTargetLocked(res)
	default:
		e.state.learnIdentityLocked(res)
	}
	if body := bodyOf(res); body != nil {
		e.keepBodyLocked(body)
	}
}

// learnLocked sets target, route set, identity and flow of a dialog from a response.
func (i *inviteClient) learnLocked(s *dialogState, res *sipmsg.Message) {
	s.learnLocked(res)
	s.learnIdentityLocked(res)
	if i.tx != nil && i.tx.Flow() != nil {
		s.flow = i.tx.Heard()
		s.nat = i.d.config().NAT.hides(s.Target(), s.flow)
		i.d.keepLocked()
	}
}

// performLocked carries out what follows for early dialogs. Both mutexes are held where one
// may be selected. It returns the UPDATEs in those that have ended, for refuseUpdates.
func (d *Dialog) performLocked(effects []forkEffect) (open []*updateServer) {
	for _, effect := range effects {
		switch e := effect.Early; effect.Kind {
		case invite.Select:
			d.selectForkLocked(e)
		case invite.End:
			d.tellForkLocked(e, nil)
			open = e.openLocked(open)
		case invite.Close:
			close(e.gone)
			e.closeAnswersLocked()
		}
	}
	return open
}

// selectForkLocked makes an early dialog that of the call: the dialog is found under its new
// key from here on. Both mutexes are held.
func (d *Dialog) selectForkLocked(e *earlyDialog) {
	old := d.keyLocked()
	d.setCurrentLocked(e.state)
	d.rekeyLocked(old)
	d.tellIdentityLocked()
}

// openLocked appends the peer's UPDATE that is not decided in the early dialog, if any.
func (e *earlyDialog) openLocked(open []*updateServer) []*updateServer {
	if in := e.state.updateIn; in != nil {
		open = append(open, in)
	}
	return open
}

// refuseUpdates refuses UPDATEs in early dialogs that have ended. Without locks.
func (d *Dialog) refuseUpdates(open []*updateServer) {
	for _, in := range open {
		d.refuseUpdate(in, &Refusal{Status: sip.StatusCallTransactionDoesNotExists})
	}
}

// openUpdatesLocked returns the UPDATEs of the peer that are not decided in all early dialogs.
func (d *Dialog) openUpdatesLocked() (open []*updateServer) {
	early := d.calleeForksLocked()
	if d.invite != nil {
		early = d.invite.forks.All()
	}
	for _, e := range early {
		open = e.openLocked(open)
	}
	return open
}

// closeForksLocked closes all early dialogs of an INVITE that has failed, or of a call that
// has ended; the result is for refuseUpdates.
func (i *inviteClient) closeForksLocked() (open []*updateServer) {
	return i.d.performLocked(i.forks.CloseAll(nil))
}

// failedLocked ends the early dialog in which a request failed, or the call (RFC 5057 5.1,
// 5.2). Both mutexes are held; the result is called without.
func (e *earlyDialog) failedLocked(cause Cause) (release func()) {
	effects, endsCall := e.i.forks.Failed(e, nil)
	if endsCall {
		return e.d.hangupLocked(&ending{cause: cause})
	}
	open := e.d.performLocked(effects)
	return func() { e.d.refuseUpdates(open) }
}

// currentForkLocked returns the early dialog in which our requests are sent, nil outside
// any. A request that is sent again stays in it.
func (d *Dialog) currentForkLocked() *earlyDialog {
	if d.invite == nil || d.phase != phaseInviting {
		return nil
	}
	return d.invite.forks.Current()
}

// forkOf returns the early dialog of a request of the peer, nil for the answered
// call. ok is false when there is none.
func (d *Dialog) forkOf(req *sipmsg.Message) (e *earlyDialog, ok bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	i, tag := d.invite, sipheader.FromTag(req)
	if i == nil || i.forks.Won() || d.phase != phaseInviting {
		if tag != d.currentLocked().RemoteTag() {
			return nil, false
		}
		return d.calleeForkOfLocked(req)
	}
	e, belongs := i.forks.Request(tag, req.Method == sip.BYE)
	if belongs == invite.Begins {
		e = i.addForkLocked(tag)
		e.state.Refresh(sipheader.Contacts(req))
	}
	return e, belongs != invite.Nowhere
}

// hungUp handles a BYE in an early dialog, and reports false if that early dialog has
// become the call meanwhile. A callee may not send such a BYE (RFC 3261 15), but some do.
// It ends only its own early dialog: another branch may still answer, and the final
// response to the INVITE, or the ringing limit, ends the call. A 199 for the last early
// dialog is handled in the same way (RFC 6228 4).
func (e *earlyDialog) hungUp(bye *sipmsg.Message) bool {
	if e.i == nil {
		return e.d.endCalleeFork(e, reasonsOf(bye))
	}
	return e.leave(reasonsOf(bye))
}

// leave ends an early dialog of our INVITE, and reports false if it has become the call
// meanwhile.
func (e *earlyDialog) leave(reasons []Reason) bool {
	both := e.d.lockBoth()
	if e.i.forks.Won() || e.isGone() {
		gone := e.isGone()
		both.unlock()
		return gone
	}
	e.reasons = reasons
	open := e.d.performLocked(e.i.forks.Close(e, nil))
	both.unlock()
	e.d.refuseUpdates(open)
	return true
}

// fork returns the call of a further fork, which is acknowledged and released, and
// reports whether it is new. It returns nil without a stack, and for one fork too many.
func (i *inviteClient) fork(res *sipmsg.Message) (fork *Dialog, isNew bool) {
	d := i.d
	if d.stack == nil {
		return nil, false
	}
	tag := sipheader.ToTag(res)
	d.mutex.Lock()
	fork, found, isFull := i.forks.Released(tag)
	if isNew = !found && !isFull; isNew {
		fork = i.newForkLocked(tag, res)
	}
	d.mutex.Unlock()
	if fork == nil {
		d.stack.counters.answers.Add(1)
		d.log().Debug("2xx dropped: too many forks", "tag", tag)
	}
	if !isNew {
		return fork, false
	}
	both := fork.lockBoth()
	defer both.unlock()
	fork.stack.registry.Release(fork.keyLocked(), fork)
	return fork, true
}

// releasedLocked returns the state of the call of a further fork. If there is an early
// dialog, requests may have been sent in it, and a NOTIFY may still be sent: its CSeq
// numbers come after those of the BYE and its repetitions with credentials.
func (i *inviteClient) releasedLocked(fork *Dialog, tag string) *dialogState {
	now := i.d.currentLocked()
	s := &dialogState{
		d: fork, State: now.Fork(tag, i.seq), peerIdentity: i.invitedLocked(),
		detour: now.detour, flow: now.flow, flowNamed: now.flowNamed,
	}
	if e := i.forks.Find(tag); e != nil {
		s.State, s.peerIdentity = e.state.Split(reservedSeqs), e.state.peerIdentity
	}
	return s
}

// newForkLocked makes the call of a further fork from its 2xx. The call is complete before
// a repetition of the 2xx, which may be read by another goroutine, finds it.
func (i *inviteClient) newForkLocked(tag string, res *sipmsg.Message) *Dialog {
	d := i.d
	end := &ending{cause: Cause{By: PartyLocal, Method: "BYE", Reason: "fork declined"}}
	if i.forks.Won() { // RFC 3326 3.1
		end = because(sip.StatusOK, "Call completed elsewhere", Cause{By: PartyLocal, Method: "BYE"})
	}
	fork := &Dialog{
		stack: d.stack, isUAC: true, callID: d.callID, localTag: d.localTag,
		state: DialogStateTerminated, phase: phaseAwaitingACK,
		ending: end, local: d.local,
	}
	fork.setCurrentLocked(i.releasedLocked(fork, tag))
	fork.invite = &inviteClient{
		ackSender: ackSender{d: fork, seq: i.seq, credentials: i.credentials},
		tx:        i.tx, offer: i.offer, forks: invite.WonBy[*earlyDialog, *Dialog](tag),
	}
	fork.invite.learnLocked(fork.currentLocked(), res)
	i.forks.Release(tag, fork)
	return fork
}

// ForkInfo is one early dialog of a call at one moment.
type ForkInfo struct {
	// ID is the name of [WithFork], for an incoming call; empty for the early dialog of the
	// automatic 180.
	ID string
	// RemoteTag is the peer's tag. RemoteTarget is the target of requests to it.
	RemoteTag    string
	RemoteTarget sip.Uri
	// Status is the status of its latest response.
	Status int
	// Body is the latest body in a response, unchanged; nil if there was none. SDP in
	// it is an answer, or an offer, only if the response was reliable: see OnBody.
	Body Body
	// Ended is true once it has ended: by a BYE or a 199 (RFC 6228), by a PRACK that
	// failed, or by the 2xx of another one. An early dialog that ended by a 199 may
	// still answer with a 2xx.
	Ended bool
	// Reasons are the Reason headers of the BYE or the 199 (RFC 3326); nil if none.
	// In a 199 they give the refusal of the branch (RFC 6228 5).
	Reasons []Reason
	message *sipmsg.Message
}

// Response returns the response that has changed the early dialog, for a callback of
// OnFork: [Dialog.Response] may be a later one. It is nil where no response has, or for the
// result of Forks.
func (f *ForkInfo) Response() *sip.Response {
	if f.message == nil {
		return nil
	}
	res, _ := ownMessage(f.message).(*sip.Response)
	return res
}

// Forks returns the early dialogs of an outgoing call that is not answered, in the
// order of their first responses: one for each To tag, since a proxy may fork the
// INVITE (RFC 3261 13.2.2.1). It is nil before the first and after the answer. At most
// 64 are kept. It never blocks.
func (d *Dialog) Forks() []ForkInfo {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.invite == nil || d.invite.forks.Won() {
		return nil
	}
	var list []ForkInfo
	for _, e := range d.invite.forks.All() {
		if e.Status() != 0 {
			list = append(list, e.infoLocked())
		}
	}
	return list
}

// OnFork registers a callback for the changes of the early dialogs of an outgoing call:
// each 101 to 199, each end, and the 2xx. It is called one at a time with the callbacks
// of OnStateChange and OnBody, in their order, with no lock held. Like bodies, changes
// beyond the bound of the queue, and those that Limits.CallBytes has no room for, are
// dropped. Earlier changes are not repeated: register in InviteOpts.Setup, or call Forks.
// A nil callback is ignored. OnFork never blocks.
//
// Of an incoming call it tells of each early dialog that ends while others go on, by the
// caller's BYE (RFC 3261 15) or because no PRACK has come; Status is zero.
func (d *Dialog) OnFork(callback func(ForkInfo)) {
	if callback == nil {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	c.fork = append(c.fork, callback)
}

func (e *earlyDialog) infoLocked() ForkInfo {
	target := e.state.Target()
	return ForkInfo{
		RemoteTag: e.Tag, RemoteTarget: *target.Clone(),
		Status: e.Status(), Body: keptOrNil(e.body), Ended: e.Ended(), Reasons: slices.Clone(e.reasons),
	}
}

// tellForkLocked queues the calls of OnFork's callbacks. res is the response that has
// changed the early dialog; nil for none.
func (d *Dialog) tellForkLocked(e *earlyDialog, res *sipmsg.Message) {
	callbacks := d.callbacksLocked().fork
	if len(callbacks) == 0 || e.Status() == 0 || d.state == DialogStateTerminated {
		return
	}
	info := e.infoLocked()
	info.message = res
	d.deliverForkLocked(callbacks, info)
}

func (d *Dialog) deliverForkLocked(callbacks []func(ForkInfo), info ForkInfo) {
	size := sizeOfBody(info.Body)
	if info.message != nil {
		size += info.message.Weight()
	}
	if !offerCallsLocked(d, size, callbacks, info) {
		d.stack.counters.forks.Add(1)
	}
}

// ByeFork ends one early dialog of an outgoing call that is not answered, by BYE (RFC 3261
// 15), while the others go on; tag is its ForkInfo.RemoteTag. It waits for the response. A 2xx
// that crosses the BYE is acknowledged and released. The INVITE goes on, also if there is no
// other early dialog: [Dialog.Bye] ends the call.
//
// Errors: ErrInvalidArgument (no such early dialog), ErrTerminated (it has ended), *StateError
// (not an outgoing call that rings), *ResponseError, ErrTimeout, ErrTransport, that of ctx.
func (d *Dialog) ByeFork(ctx context.Context, tag string, opts ByeOpts) (err error) {
	defer naming("ByeFork", &err)
	if ctx == nil {
		return errNilContext("ByeFork")
	}
	if err := firstError(checkReasons(opts.Reason, opts.Reasons), checkHeaders(opts.Headers, nil, checkHeader)); err != nil {
		return err
	}
	w, err := d.sendForkBye(ctx, tag, opts)
	if err != nil {
		return err
	}
	res, err := w.Wait(ctx)
	if err == nil && res.Status >= 300 {
		err = newResponseError(sip.BYE, res)
	}
	return err
}

func (d *Dialog) sendForkBye(ctx context.Context, tag string, opts ByeOpts) (*retry.Waiter, error) {
	if err := d.lockToSendIf(ctx, "BYE", func() error { return d.mayByeForkLocked(tag) }); err != nil {
		return nil, err
	}
	defer d.sendSlot.Release()
	e := d.invite.forks.Find(tag)
	req, err := e.state.nextRequestLocked(sip.BYE)
	if err != nil {
		d.mutex.Unlock()
		return nil, err
	}
	for _, h := range reasonHeaders(opts.Reason, opts.Reasons) {
		req.AddHeader(h)
	}
	addHeaders(req, opts.Headers)
	w := retry.NewWaiter(callError)
	err = e.state.unlockAndSend(ctx, req, e, e.mayRepeatLocked, func(x *retry.Request) { x.OnResponse, x.OnDone = w.Response, w.Done })
	if err != nil {
		return nil, err
	}
	e.leave(nil)
	return w, nil
}

func (d *Dialog) mayByeForkLocked(tag string) error {
	if tag == "" || d.invite == nil || d.invite.forks.Won() || d.phase != phaseInviting || d.ending != nil {
		return &StateError{Op: "ByeFork", State: d.state, Need: "an early dialog of an outgoing call"}
	}
	_, err := d.namedForkLocked(tag)
	return err
}

// namedForkLocked returns an early dialog that has not ended: by its name of WithFork for an
// incoming call, by the peer's tag for an outgoing one; nil for the call, once it is answered,
// and without a name the one in which the call sends.
func (d *Dialog) namedForkLocked(name string) (e *earlyDialog, err error) {
	known := false
	switch {
	case name == "":
		return d.currentForkLocked(), nil
	case d.isUAC && d.phase == phaseInviting:
		e = d.invite.forks.Find(name)
		known = e != nil && (e.Lives() || e.Ended())
	case d.isUAC:
		known = name == d.currentLocked().RemoteTag()
	default:
		if p := d.incoming.provisionals; p != nil {
			e = p.forks.Find(name)
		}
		known = e != nil
	}
	switch {
	case !known:
		return nil, invalid("no early dialog %q", name)
	case e != nil && e.Ended():
		return nil, fmt.Errorf("%w: early dialog %q", ErrTerminated, name)
	}
	return e, nil
}

// chooseLocked queues a 2xx for Choose, if there is one and the call goes on.
func (i *inviteClient) chooseLocked(res *sipmsg.Message) (choosing invite.Choosing, ok bool) {
	if i.choose == nil {
		return 0, false
	}
	return i.choices.Queue(sipheader.ToTag(res), res, i.givenUpLocked())
}

// givenUpLocked reports whether the call will end: a 2xx then makes the call only for its
// BYE (RFC 3261 9.1, 15).
func (i *inviteClient) givenUpLocked() bool {
	return i.d.ending != nil || i.d.state == DialogStateTerminated
}

// askChoose calls Choose for the first 2xx in the queue, on its own goroutine. The
// peer repeats its 2xx for 64*T1: a decision that takes longer than 48*T1 counts as
// false.
func (i *inviteClient) askChoose() {
	d := i.d
	both := d.lockBoth()
	id, res, ok := i.choices.Next()
	switch {
	case !ok:
		both.unlock()
		return
	case i.givenUpLocked():
		both.unlock()
		i.chosen(id, true)
		return
	}
	choose, info := i.choose, i.answeredByLocked(res).infoLocked()
	i.choiceLimit = d.after(48*d.config().timers().T1, func() { i.chosen(id, false) })
	both.unlock()
	if !d.stack.calls.Go(func() {
		yes := false // also of a function that does not return
		d.stack.guard(d.log, "InviteOpts.Choose", func() { yes = choose(info) }, func() { i.chosen(id, yes) })
	}) {
		i.chosen(id, false)
	}
}

// chosen executes the decision of Choose, the timer, or the end of the call.
func (i *inviteClient) chosen(id uint32, yes bool) {
	i.d.mutex.Lock()
	res, ok := i.choices.Decide(id)
	if !ok {
		i.d.mutex.Unlock()
		return
	}
	stopTimer(i.choiceLimit)
	yes = (yes || i.givenUpLocked()) && !i.forks.Find(sipheader.ToTag(res)).isGone() // it may have hung up
	i.d.mutex.Unlock()
	if yes {
		i.accept(res)
	} else {
		i.releaseUnchosen(res)
	}
	i.nextChoice(yes)
}

// nextChoice continues with the next 2xx in the queue, or, after one was accepted, releases
// all others.
func (i *inviteClient) nextChoice(taken bool) {
	i.d.mutex.Lock()
	others, isOver := i.choices.Decided(taken)
	i.d.mutex.Unlock()
	for _, other := range others {
		i.releaseFork(other)
	}
	if isOver {
		i.ended(nil)
		return
	}
	i.askChoose()
}

// releaseUnchosen releases a fork that Choose has refused, by ACK and BYE (RFC 3261
// 13.2.2.4).
func (i *inviteClient) releaseUnchosen(res *sipmsg.Message) {
	d := i.d
	both := d.lockBoth()
	var open []*updateServer
	if e := i.forks.Find(sipheader.ToTag(res)); e != nil && !e.isGone() {
		e.reasons = nil
		open = d.performLocked(i.forks.Close(e, nil))
	}
	i.noForkCause = &Cause{By: PartyLocal, Method: "BYE", Reason: "no fork was chosen"}
	both.unlock()
	d.refuseUpdates(open)
	i.releaseFork(res)
}
