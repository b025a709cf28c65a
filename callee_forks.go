package dialog

import (
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/latch"
	"sipdialog.example/dialog/internal/rel100"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// A back-to-back user agent passes on the early dialogs of its other call: it answers one
// INVITE with provisional responses that have several To tags (RFC 3261 12.1.1). Each is an
// earlyDialog with a state of its own, as those of an INVITE of ours are.

// WithFork makes Provisional send the response in one of several early dialogs of an
// incoming call, and Accept make that one the call. id is the application's name for it:
// any text, such as the tag of a fork of another call. The first Provisional with an id
// makes the early dialog, with a To tag, route set, session and reliable responses of its
// own (RFC 3261 12.1.1, RFC 3262 3); at most 64 are made. Without WithFork a response
// belongs to the early dialog of the automatic 180: StackConfig.NoAutoRinging leaves that
// out.
//
// PRACK and UPDATE belong to the early dialog whose tag they have, as OfferRequest.Key
// says. An early dialog ends by a 199, which is sent if the caller supports it (RFC 6228),
// by the caller's BYE (RFC 3261 15), if its reliable response is not acknowledged for
// 64*T1 while there is another, and when the call is answered or refused. The call ends
// with the last one that ends by BYE or without PRACK. An option for an early dialog that
// has ended makes the method fail with ErrTerminated.
func WithFork(id string) ResponseOpt {
	return func(resp *sip.Response) {
		if id == "" {
			refuseOption(resp, invalid("an early dialog without a name"))
			return
		}
		resp.AppendHeader(forkMark{sip.NewHeader(forkMarkName, "marked"), id})
	}
}

// forkMark stands in a response until Provisional or Accept reads it.
type forkMark struct {
	sip.Header
	id string
}

const forkMarkName = "Dialog-Fork-Mark"

// takeForkMark removes the mark of WithFork, and returns its name; empty for none.
func takeForkMark(res *sip.Response) (id string) {
	for _, h := range res.Headers() {
		if mark, ok := h.(forkMark); ok {
			id = mark.id
		}
	}
	if id != "" {
		sipheader.Remove(res, forkMarkName)
	}
	return id
}

// provisionals is what the provisional responses to the peer's INVITE share, and the answers
// to offers of ours in any responses.
type provisionals struct {
	awaited map[*dialogState]*peerAnswer
	// writing counts the reliable responses that are being written for the first time,
	// changed wakes Accept, so that it checks again.
	writing int
	changed latch.Latch
	// forks are the early dialogs of WithFork, by its name.
	forks []calleeFork
}

type calleeFork struct {
	id string
	*earlyDialog
}

// provisionalsLocked returns what the provisional responses share, and makes it.
func (d *Dialog) provisionalsLocked() *provisionals {
	if d.incoming.provisionals == nil {
		d.incoming.provisionals = new(provisionals)
	}
	return d.incoming.provisionals
}

// calleeForksLocked are the early dialogs of WithFork.
func (d *Dialog) calleeForksLocked() []calleeFork {
	if d.incoming.provisionals == nil {
		return nil
	}
	return d.incoming.provisionals.forks
}

// inFork returns the early dialog that a response names, and gives the response its tag;
// nil without a name. It makes the early dialog if necessary.
func (d *Dialog) inFork(tx serverTx, res *sip.Response) (*earlyDialog, error) {
	id := takeForkMark(res)
	if id == "" {
		return nil, nil
	}
	both := d.lockBoth()
	defer both.unlock()
	e, err := d.calleeForkLocked(tx, id)
	if err != nil {
		return nil, err
	}
	if to := res.To(); to != nil {
		to.Params.Remove("tag")
		to.Params.Add("tag", e.state.LocalTag())
	}
	return e, nil
}

// calleeForkLocked returns the early dialog of that name. Both mutexes are held.
func (d *Dialog) calleeForkLocked(tx serverTx, id string) (*earlyDialog, error) {
	p := d.provisionalsLocked()
	for _, f := range p.forks {
		switch {
		case f.id != id:
		case f.isGone():
			return nil, fmt.Errorf("%w: early dialog %q", ErrTerminated, id)
		default:
			return f.earlyDialog, nil
		}
	}
	switch {
	case d.incoming.tx != tx:
		return nil, ErrAnswered
	case len(p.forks) >= maxForks:
		return nil, fmt.Errorf("%w: %d early dialogs", ErrPending, maxForks)
	}
	e := d.newCalleeForkLocked(tx)
	p.forks = append(p.forks, calleeFork{id, e})
	key := DialogKey{CallID: d.callID, LocalTag: e.state.LocalTag(), RemoteTag: e.state.RemoteTag()}
	d.stack.registry.AddAlias(key, d)
	return e, nil
}

func (d *Dialog) newCalleeForkLocked(tx serverTx) *earlyDialog {
	now := d.currentLocked()
	state := d.invitedStateLocked(tx.Message(), TagGen())
	state.flow, state.nat, state.inboundConn, state.flowNamed = now.flow, now.nat, now.inboundConn, now.flowNamed
	state.peerPackages = now.peerPackages
	_, offer := d.stack.bodiesOf(tx.Message())
	state.negotiation.ReceiveOffer(tx, offer)
	e := &earlyDialog{state: state, learnt: true, gone: make(chan struct{})}
	e.reliableClient = reliableClient{d: d, early: e}
	return e
}

// invitedStateLocked is the state of the dialog that the peer's INVITE makes with a To tag
// of ours (RFC 3261 12.1.1).
func (d *Dialog) invitedStateLocked(invite *sipmsg.Message, tag string) *dialogState {
	said := dialogstate.Message{
		Tag: sipheader.FromTag(invite), CSeq: sipheader.CSeq(invite), Targets: sipheader.Targets(invite), Routes: sipheader.RecordRoutes(invite),
	}
	return &dialogState{
		d: d, State: dialogstate.FromRequest(tag, said),
		peerIdentity: peerIdentity{sipheader.PartyOf(invite, "From"), d.config().assertedIn(invite)},
	}
}

// calleeForkOfLocked returns the early dialog of a request of the peer's to an incoming
// call, nil for the current one; ok is false if there is none.
func (d *Dialog) calleeForkOfLocked(req *sipmsg.Message) (e *earlyDialog, ok bool) {
	tag := sipheader.ToTag(req)
	for _, f := range d.calleeForksLocked() {
		if f.state.LocalTag() == tag && f.state != d.currentLocked() {
			return f.earlyDialog, !f.isGone()
		}
	}
	return nil, d.isUAC || tag == d.currentLocked().LocalTag()
}

// liveForksLocked counts the early dialogs of an incoming call that have not ended: that of
// the automatic 180, if a response was sent in it, and those of WithFork.
func (d *Dialog) liveForksLocked() (n int) {
	for _, f := range d.calleeForksLocked() {
		if !f.isGone() {
			n++
		}
	}
	return n
}

// endCalleeFork ends an early dialog of an incoming call, and reports false for the last
// one: the call must end.
func (d *Dialog) endCalleeFork(e *earlyDialog) bool {
	d.mutex.Lock()
	if d.liveForksLocked() < 2 && !e.isGone() {
		d.mutex.Unlock()
		return false
	}
	release := e.dropCalleeLocked()
	d.mutex.Unlock()
	release()
	return true
}

// dropCalleeLocked ends an early dialog of WithFork. The result answers the UPDATE that is
// open in it, and is called without locks.
func (e *earlyDialog) dropCalleeLocked() (release func()) {
	if e.isGone() {
		return func() {}
	}
	close(e.gone)
	e.ended = true
	e.state.reliable.stop()
	e.state.awaitedLocked().closeLocked(nil, ErrTerminated)
	e.d.provisionalsLocked().changed.Wake()
	return e.refuseOpenLocked()
}

// chooseForkLocked makes an early dialog the call, that of the automatic 180 for nil, and
// ends all others. Both mutexes are held unless e is nil; the result is called without.
func (d *Dialog) chooseForkLocked(e *earlyDialog) (release func()) {
	release = func() {}
	if e != nil {
		release = d.leaveFirstLocked()
		old := d.keyLocked()
		d.setCurrentLocked(e.state)
		d.rekeyLocked(old)
	}
	for _, f := range d.calleeForksLocked() {
		if f.earlyDialog != e {
			release = both(release, f.dropCalleeLocked())
		}
	}
	return release
}

// leaveFirstLocked ends the early dialog of the automatic 180.
func (d *Dialog) leaveFirstLocked() (release func()) {
	s := d.currentLocked()
	first := &earlyDialog{state: s, gone: make(chan struct{})}
	first.reliableClient = reliableClient{d: d, early: first}
	if s.updateIn != nil {
		s.updateIn.fork = first
	}
	return first.dropCalleeLocked()
}

// refuseOpenForksLocked returns a function that refuses the UPDATEs that are open in the
// early dialogs of WithFork.
func (d *Dialog) refuseOpenForksLocked() (release func()) {
	release = func() {}
	for _, f := range d.calleeForksLocked() {
		release = both(release, f.refuseOpenLocked())
	}
	return release
}

// terminateFork ends an early dialog of WithFork with a 199, which is sent if the caller
// supports it, unreliably (RFC 6228 5).
func (d *Dialog) terminateFork(tx serverTx, res *sip.Response, e *earlyDialog) error {
	d.mutex.Lock()
	release := e.dropCalleeLocked()
	d.mutex.Unlock()
	release()
	rel100.Unmark(res)
	if !sipheader.Lists(tx.Message(), "Supported", tagEarlyDialogTerminated) || rel100.Requires(tx.Message()) {
		return nil
	}
	return answerError(tx.Respond(res))
}
