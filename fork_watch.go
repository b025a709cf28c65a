package dialog

import (
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"
)

// statusEarlyDialogTerminated says that an early dialog has ended (RFC 6228).
const statusEarlyDialogTerminated = 199

// tagEarlyDialogTerminated is the option tag that asks for it (RFC 6228 4).
const tagEarlyDialogTerminated = "199"

// ForkInfo is one early dialog of an outgoing call at one moment.
type ForkInfo struct {
	// RemoteTag is the peer's tag. RemoteTarget is the target of requests to it.
	RemoteTag    string
	RemoteTarget sip.Uri
	// Status is that of its latest response.
	Status int
	// Body is the latest body in a response, unchanged; nil when there was none. SDP in
	// it is an answer, or an offer, only when the response was reliable: see OnBody.
	Body Body
	// Ended is true once it has ended: by a BYE or a 199 (RFC 6228), by a PRACK that
	// failed, or by the 2xx of another one. An early dialog that ended by a 199 may
	// still answer with a 2xx.
	Ended bool
	// Reasons are the Reason headers of the BYE or the 199 (RFC 3326), nil without any.
	// In a 199 they give the refusal of the branch (RFC 6228 5).
	Reasons []Reason
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
// in InviteOpts.Setup, or ask Forks. A nil callback is ignored. It never blocks.
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

// tellForkLocked queues the calls of OnFork's callbacks.
func (d *Dialog) tellForkLocked(e *earlyDialog) {
	callbacks := d.callbacksLocked().fork
	if len(callbacks) == 0 || e.status == 0 || d.state == DialogStateTerminated {
		return
	}
	info := e.infoLocked()
	calls := make([]func(), len(callbacks))
	for i, callback := range callbacks {
		calls[i] = func() { callback(info) }
	}
	if !d.mailbox.Offer(calls...) && d.stack != nil {
		d.stack.counters.forks.Add(1)
	}
}

// forkSelection is a 2xx about which InviteOpts.Choose is asked.
type forkSelection struct {
	res *sip.Response
	// asked is true once Choose is called, decided once Choose, the timer or the end of
	// the call has decided.
	asked, decided bool
	timer          *time.Timer
}

// awaitsSelectionLocked queues a 2xx for Choose, if there is one.
func (i *inviteClient) awaitsSelectionLocked(res *sip.Response) (kind successKind, waits bool) {
	if slices.ContainsFunc(i.selections, func(c *forkSelection) bool { return toTag(c.res) == toTag(res) }) {
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

// givenUpLocked reports whether the call will end: a 2xx then makes it for the BYE only
// (RFC 3261 9.1, 15).
func (i *inviteClient) givenUpLocked() bool {
	return i.d.ending != nil || i.d.state == DialogStateTerminated
}

// askChoose calls Choose for the first 2xx in the queue, on a goroutine of its own. The
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

// selected carries out the decision of Choose, the timer, or the end of the call. The
// 2xx stays in the queue until that is done, so that its repetition is recognised.
func (i *inviteClient) selected(c *forkSelection, yes bool) {
	d := i.d
	d.mutex.Lock()
	if c.decided || len(i.selections) == 0 || i.selections[0] != c {
		d.mutex.Unlock()
		return
	}
	stopTimer(c.timer)
	c.decided = true
	e := i.forkLocked(toTag(c.res))
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

// nextSelection goes on to the next 2xx in the queue, or, after one was taken, releases
// all others.
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

// releaseUnselected releases a fork that Choose has not taken, by ACK and BYE (RFC 3261
// 13.2.2.4).
func (i *inviteClient) releaseUnselected(res *sip.Response) {
	d := i.d
	both := d.lockBoth()
	release := func() {}
	if e := i.forkLocked(toTag(res)); e != nil && !e.isGone() {
		release = e.endLocked(nil)
		close(e.gone)
	}
	i.noForkCause = Cause{By: PartyLocal, Method: "BYE", Reason: "no fork was chosen"}
	both.unlock()
	release()
	i.releaseFork(res)
}
