package dialog

import (
	"slices"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/deadline"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The early dialogs of one INVITE of ours (RFC 3261 12.1.2, 13.2.2.1). A proxy may fork
// the INVITE: each To tag in a 101 to 199 makes an early dialog, with its own target, route
// set, CSeq numbers, reliable provisional responses and session: its dialogState. For the
// application all are one call. The call sends in the current early dialog: the oldest one
// that has not ended, and after the first 2xx the one that has answered.

// maxForks bounds the early dialogs of a call, and the forks that are released after a
// 2xx. For a To tag beyond it only a 2xx is handled.
const maxForks = 64

// reservedSeqs are the CSeq numbers left for the BYE that releases a fork: a gap in the
// CSeq does no harm (RFC 3261 12.2.2).
const reservedSeqs = 16

// earlyDialog is the early dialog that one To tag makes of our INVITE.
type earlyDialog struct {
	// Set at construction.

	i     *inviteClient
	state *dialogState
	// gone is closed when no message belongs to it any more: it has ended, or another
	// early dialog has become the call.
	gone chan struct{}

	// The dialog's mutex guards the fields below.

	// learnt is true once a response has set target and route set.
	learnt bool
	// status and body are those of the latest response, reasons those of its end.
	status  int
	body    *SimpleBody
	reasons []Reason
	// ended is true after a BYE, a 199, a failed PRACK, and a 2xx of another early dialog.
	ended bool

	reliableClient
}

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

// forkLocked returns the early dialog of a To tag, or nil.
func (i *inviteClient) forkLocked(tag string) *earlyDialog {
	for _, e := range i.early {
		if e.tagLocked() == tag {
			return e
		}
	}
	return nil
}

func (e *earlyDialog) tagLocked() string { return e.state.RemoteTag() }

// addForkLocked makes the early dialog of a new To tag. Its state begins as that of the
// INVITE, before its first response.
func (i *inviteClient) addForkLocked(tag string) *earlyDialog {
	if i.origin == nil {
		i.origin = i.d.currentLocked()
	}
	state := *i.origin
	state.State = i.origin.Fork(tag, i.seq)
	e := &earlyDialog{i: i, gone: make(chan struct{}), state: &state}
	e.reliableClient = reliableClient{d: i.d, early: e, carrier: i, offered: !isNilBody(i.offer), propose: i.propose}
	i.early = append(i.early, e)
	return e
}

// invitedLocked returns the identity to which the INVITE was addressed.
func (i *inviteClient) invitedLocked() peerIdentity {
	if i.origin != nil {
		return i.origin.peerIdentity
	}
	return i.d.currentLocked().peerIdentity
}

// answeringLocked returns the early dialog of a response, and makes it if necessary. It
// returns nil for a response without a tag, and beyond maxForks.
func (i *inviteClient) answeringLocked(res *sipmsg.Message) *earlyDialog {
	tag := sipheader.ToTag(res)
	e := i.forkLocked(tag)
	switch {
	case e != nil || tag == "":
		return e
	case len(i.early) >= maxForks:
		return nil
	case res.Status == statusEarlyDialogTerminated && i.d.rseqOf(res) == 0:
		return nil // RFC 6228 4: discarded
	}
	return i.addForkLocked(tag)
}

// answeredByLocked returns the early dialog that a 2xx confirms: target and route set
// are those of the 2xx (RFC 3261 13.2.2.4).
func (i *inviteClient) answeredByLocked(res *sipmsg.Message) *earlyDialog {
	e := i.forkLocked(sipheader.ToTag(res))
	if e == nil {
		e = i.addForkLocked(sipheader.ToTag(res))
	}
	e.learnt = false
	e.heardLocked(res)
	return e
}

// makeCurrentLocked makes an early dialog the current one. Both mutexes are held:
// the dialog is found under its new key from here on.
func (i *inviteClient) makeCurrentLocked(e *earlyDialog) {
	d := i.d
	if i.current == e {
		return
	}
	old := d.keyLocked()
	i.current = e
	d.setCurrentLocked(e.state)
	d.rekeyLocked(old)
	d.tellIdentityLocked()
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

// heardLocked records a provisional response of the early dialog. A second one refreshes
// the target only if it is reliable (RFC 6141 4.3).
func (e *earlyDialog) heardLocked(res *sipmsg.Message) {
	switch {
	case !e.learnt:
		e.learnt = true
		e.i.learnLocked(e.state, res)
	case e.d.rseqOf(res) != 0:
		e.state.refreshTargetLocked(res)
	default:
		e.state.learnIdentityLocked(res)
	}
	e.status = res.Status
	if body := bodyOf(res); body != nil {
		e.keepBodyLocked(body)
	}
}

// endLocked ends an early dialog, while the INVITE continues. Both mutexes are held. The
// result answers the UPDATE that is open in it, and is called without locks.
func (e *earlyDialog) endLocked(reasons []Reason) (release func()) {
	i := e.i
	e.ended, e.reasons = true, reasons
	if i.current == e {
		if at := slices.IndexFunc(i.early, (*earlyDialog).livesLocked); at >= 0 {
			i.makeCurrentLocked(i.early[at])
		}
	}
	i.d.tellForkLocked(e, nil)
	return e.refuseOpenLocked()
}

// failedLocked ends the early dialog in which a request failed, and the call when no
// other early dialog is left, or when this one is the call (RFC 5057 5.1, 5.2). Both
// mutexes are held; the result is called without.
func (e *earlyDialog) failedLocked(cause Cause) (release func()) {
	i := e.i
	others := func(other *earlyDialog) bool { return other != e && other.livesLocked() }
	switch {
	case e.ended:
		return func() {}
	case !i.won && slices.ContainsFunc(i.early, others):
		release = e.endLocked(nil)
		close(e.gone)
		return release
	}
	return i.d.hangupLocked(&ending{cause: cause})
}

// livesLocked reports whether a response has made the early dialog, and it has not
// ended.
func (e *earlyDialog) livesLocked() bool { return e.learnt && !e.ended }

// refuseOpenLocked returns a function that refuses the peer's UPDATE that is not
// decided.
func (e *earlyDialog) refuseOpenLocked() (release func()) {
	open := e.state.updateIn
	if open == nil {
		return func() {}
	}
	return func() { e.d.refuseUpdate(open, &Refusal{Status: sip.StatusCallTransactionDoesNotExists}) }
}

// dropLocked ends all early dialogs but the winner, if there is one, after a 2xx or a
// refusal (RFC 3261 13.2.2.3). They are remembered, with their CSeq, as long as their 2xx
// may still come.
func (i *inviteClient) dropLocked(winner *earlyDialog) (release func()) {
	release = func() {}
	for _, e := range i.early {
		if e == winner || e.isGone() {
			continue
		}
		close(e.gone)
		release = both(release, e.refuseOpenLocked())
		if !e.ended {
			e.ended = true
			i.d.tellForkLocked(e, nil)
		}
	}
	return release
}

// forgetEarlyLocked forgets the early dialogs: requests in them get 481 from here on.
func (i *inviteClient) forgetEarlyLocked() {
	for _, e := range i.early {
		i.former = append(i.former, e.tagLocked())
	}
	i.early, i.current = nil, nil
}

// refuseOpenLocked returns a function that refuses the UPDATEs that are open in all
// early dialogs.
func (i *inviteClient) refuseOpenLocked() (release func()) {
	release = func() {}
	for _, e := range i.early {
		release = both(release, e.refuseOpenLocked())
	}
	return release
}

// currentForkLocked returns the early dialog in which our requests are sent, nil outside
// any. A request that is sent again stays in it.
func (d *Dialog) currentForkLocked() *earlyDialog {
	if d.invite == nil || d.phase != phaseInviting {
		return nil
	}
	return d.invite.current
}

// forkOf returns the early dialog of a request of the peer, nil for the answered
// call. ok is false when there is none. A request that overtakes the response that
// makes its early dialog makes the early dialog itself.
func (d *Dialog) forkOf(req *sipmsg.Message) (e *earlyDialog, ok bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	i, tag := d.invite, sipheader.FromTag(req)
	if i == nil || i.won || d.phase != phaseInviting {
		if tag != d.currentLocked().RemoteTag() {
			return nil, false
		}
		return d.calleeForkOfLocked(req)
	}
	e = i.forkLocked(tag)
	switch {
	case e == nil && (len(i.early) >= maxForks || slices.Contains(i.former, tag)):
		return nil, false
	case e == nil:
		e = i.addForkLocked(tag)
		e.state.Refresh(sipheader.Contacts(req))
	case e.isGone(), e.ended && req.Method != sip.BYE:
		return nil, false
	}
	return e, true
}

// hungUp handles a BYE in an early dialog, and reports false if that early dialog has
// become the call meanwhile. A callee may not send such a BYE (RFC 3261 15), but some do.
// It ends only its own early dialog: another branch may still answer, and the final
// response to the INVITE, or the ringing limit, ends the call. A 199 for the last early
// dialog is handled in the same way (RFC 6228 4).
func (e *earlyDialog) hungUp(bye *sipmsg.Message) bool {
	if e.i == nil {
		return e.d.endCalleeFork(e)
	}
	both := e.i.d.lockBoth()
	if e.i.won || e.isGone() {
		gone := e.isGone()
		both.unlock()
		return gone
	}
	release := e.endLocked(reasonsOf(bye))
	close(e.gone)
	both.unlock()
	release()
	return true
}

// fork returns the call of a further fork, which is acknowledged and released, and
// reports whether it is new. It returns nil without a stack, and beyond maxForks. A 2xx
// beyond maxForks gets no ACK, so that its peer ends the call (RFC 3261 13.3.1.4): no proxy
// makes so many forks, and each call would be kept for 64*T1.
func (i *inviteClient) fork(res *sipmsg.Message) (fork *Dialog, isNew bool) {
	d := i.d
	if d.stack == nil {
		return nil, false
	}
	tag := sipheader.ToTag(res)
	d.mutex.Lock()
	fork = i.forks[tag]
	tooMany := fork == nil && len(i.forks) >= maxForks
	if fork == nil && !tooMany {
		fork, isNew = i.newForkLocked(tag, res), true
	}
	d.mutex.Unlock()
	if tooMany {
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
	if e := i.forkLocked(tag); e != nil {
		s.State, s.peerIdentity = e.state.Split(reservedSeqs), e.state.peerIdentity
	}
	return s
}

// newForkLocked makes the call of a further fork from its 2xx. The call is complete before
// a repetition of the 2xx, which may be read by another goroutine, finds it.
func (i *inviteClient) newForkLocked(tag string, res *sipmsg.Message) *Dialog {
	d := i.d
	end := &ending{cause: Cause{By: PartyLocal, Method: "BYE", Reason: "fork declined"}}
	if i.won { // RFC 3326 3.1
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
		tx:        i.tx, offer: i.offer, won: true, winner: tag,
	}
	fork.invite.learnLocked(fork.currentLocked(), res)
	if i.forks == nil {
		i.forks = make(map[string]*Dialog)
	}
	i.forks[tag] = fork
	return fork
}

// statusEarlyDialogTerminated says that an early dialog has ended (RFC 6228).
const statusEarlyDialogTerminated = 199

// tagEarlyDialogTerminated is the option tag that asks for it (RFC 6228 4).
const tagEarlyDialogTerminated = "199"

// ForkInfo is one early dialog of an outgoing call at one moment.
type ForkInfo struct {
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
	if d.invite == nil || d.invite.won {
		return nil
	}
	var list []ForkInfo
	for _, e := range d.invite.early {
		if e.status != 0 {
			list = append(list, e.infoLocked())
		}
	}
	return list
}

// OnFork registers a callback for the changes of the early dialogs of an outgoing call:
// each 101 to 199, each end, and the 2xx. It is called one at a time with the callbacks
// of OnStateChange and OnBody, in their order, with no lock held. Like bodies, changes
// beyond the bound of the queue are dropped. Earlier changes are not repeated: register
// in InviteOpts.Setup, or call Forks. A nil callback is ignored. OnFork never blocks.
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
		RemoteTag: e.tagLocked(), RemoteTarget: *target.Clone(),
		Status: e.status, Body: keptOrNil(e.body), Ended: e.ended, Reasons: slices.Clone(e.reasons),
	}
}

// tellForkLocked queues the calls of OnFork's callbacks. res is the response that has
// changed the early dialog; nil for none.
func (d *Dialog) tellForkLocked(e *earlyDialog, res *sipmsg.Message) {
	callbacks := d.callbacksLocked().fork
	if len(callbacks) == 0 || e.status == 0 || d.state == DialogStateTerminated {
		return
	}
	info := e.infoLocked()
	info.message = res
	calls := make([]func(), len(callbacks))
	for i, callback := range callbacks {
		calls[i] = func() { callback(info) }
	}
	if !d.mailbox.Offer(calls...) && d.stack != nil {
		d.stack.counters.forks.Add(1)
	}
}

// forkSelection is a 2xx that InviteOpts.Choose decides.
type forkSelection struct {
	res *sipmsg.Message
	// asked is true once Choose is called, decided once Choose, the timer or the end of
	// the call has decided.
	asked, decided bool
	timer          *deadline.Func
}

// awaitsSelectionLocked queues a 2xx for Choose, if there is one.
func (i *inviteClient) awaitsSelectionLocked(res *sipmsg.Message) (kind successKind, waits bool) {
	if slices.ContainsFunc(i.selections, func(c *forkSelection) bool { return sipheader.ToTag(c.res) == sipheader.ToTag(res) }) {
		return awaitedSelection, true // repeated
	}
	if i.choose == nil || i.givenUpLocked() {
		return 0, false
	}
	if len(i.selections) >= maxForks {
		return otherFork, true
	}
	i.selections = append(i.selections, &forkSelection{res: res})
	if len(i.selections) > 1 {
		return awaitedSelection, true
	}
	return newSelection, true
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
	if len(i.selections) == 0 || i.selections[0].asked {
		both.unlock()
		return
	}
	c, choose := i.selections[0], i.choose
	if i.givenUpLocked() {
		both.unlock()
		i.selected(c, true)
		return
	}
	c.asked = true
	info := i.answeredByLocked(c.res).infoLocked()
	c.timer = d.after(48*d.config().timers().T1, func() { i.selected(c, false) })
	both.unlock()
	if !d.stack.calls.Go(func() {
		yes := false // also of a function that does not return
		d.stack.guard(d.log, "InviteOpts.Choose", func() { yes = choose(info) }, func() { i.selected(c, yes) })
	}) {
		i.selected(c, false)
	}
}

// selected executes the decision of Choose, the timer, or the end of the call. The 2xx
// stays in the queue until then, so that its repetition is recognised.
func (i *inviteClient) selected(c *forkSelection, yes bool) {
	d := i.d
	d.mutex.Lock()
	if c.decided || len(i.selections) == 0 || i.selections[0] != c {
		d.mutex.Unlock()
		return
	}
	stopTimer(c.timer)
	c.decided = true
	e := i.forkLocked(sipheader.ToTag(c.res))
	hungUp := e.isGone() // meanwhile
	yes = (yes || i.givenUpLocked()) && !hungUp
	d.mutex.Unlock()
	if yes {
		i.accept(c.res)
	} else {
		i.releaseUnselected(c.res)
	}
	i.nextSelection(yes)
}

// nextSelection continues with the next 2xx in the queue, or, after one was accepted,
// releases all others.
func (i *inviteClient) nextSelection(taken bool) {
	i.d.mutex.Lock()
	rest := i.selections[1:]
	i.selections = rest
	if taken {
		i.selections = nil
	}
	over := i.over && len(i.selections) == 0
	i.d.mutex.Unlock()
	if taken {
		for _, other := range rest {
			i.releaseFork(other.res)
		}
	}
	if over {
		i.ended(nil)
		return
	}
	i.askChoose()
}

// releaseUnselected releases a fork that Choose has refused, by ACK and BYE (RFC 3261
// 13.2.2.4).
func (i *inviteClient) releaseUnselected(res *sipmsg.Message) {
	d := i.d
	both := d.lockBoth()
	release := func() {}
	if e := i.forkLocked(sipheader.ToTag(res)); e != nil && !e.isGone() {
		release = e.endLocked(nil)
		close(e.gone)
	}
	i.noForkCause = &Cause{By: PartyLocal, Method: "BYE", Reason: "no fork was chosen"}
	both.unlock()
	release()
	i.releaseFork(res)
}
