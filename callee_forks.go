package dialog

import (
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/invite"
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
// has ended makes the method fail with ErrTerminated. If that of the automatic 180 has
// ended, a response without WithFork belongs to the oldest one that has not.
//
// OnFork tells of the ends that the caller has caused, [Dialog.UpdateFork] offers in an early
// dialog.
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
	// writing counts the reliable responses that are being written for the first time, and
	// the responses to their PRACKs. changed wakes Accept, so that it checks again.
	writing int
	changed latch.Latch
	// forks are the early dialogs of WithFork, by its name.
	forks invite.Callee[*earlyDialog]
}

// provisionalsLocked returns what the provisional responses share, and makes it.
func (d *Dialog) provisionalsLocked() *provisionals {
	if d.incoming.provisionals == nil {
		d.incoming.provisionals = new(provisionals)
	}
	return d.incoming.provisionals
}

// calleeForksLocked are the early dialogs of WithFork.
func (d *Dialog) calleeForksLocked() []*earlyDialog {
	if d.incoming.provisionals == nil {
		return nil
	}
	return d.incoming.provisionals.forks.All(nil)
}

// inFork returns the early dialog that a response names, and gives the response its tag;
// nil without a name. It makes the early dialog if necessary.
func (d *Dialog) inFork(tx serverTx, res *sip.Response) (*earlyDialog, error) {
	e, err := d.forkNamed(tx, takeForkMark(res))
	if e == nil || err != nil {
		return nil, err
	}
	if to := res.To(); to != nil {
		to.Params.Remove("tag")
		to.Params.Add("tag", e.state.LocalTag())
	}
	return e, nil
}

// forkNamed returns the early dialog of that name, and makes it if necessary. Without a name it
// is the one in which the call sends; nil for that of the automatic 180.
func (d *Dialog) forkNamed(tx serverTx, id string) (*earlyDialog, error) {
	if id == "" {
		d.mutex.RLock()
		defer d.mutex.RUnlock()
		return d.currentCalleeForkLocked(), nil
	}
	both := d.lockBoth()
	defer both.unlock()
	return d.calleeForkLocked(tx, id)
}

// currentCalleeForkLocked returns the early dialog of WithFork in which the call sends, or
// nil.
func (d *Dialog) currentCalleeForkLocked() *earlyDialog {
	if p := d.incoming.provisionals; p != nil {
		return p.forks.Tagged(d.currentLocked().LocalTag())
	}
	return nil
}

// calleeForkLocked returns the early dialog of that name. Both mutexes are held.
func (d *Dialog) calleeForkLocked(tx serverTx, id string) (*earlyDialog, error) {
	p := d.provisionalsLocked()
	e := p.forks.Find(id)
	switch {
	case e.isGone():
		return nil, fmt.Errorf("%w: early dialog %q", ErrTerminated, id)
	case e != nil:
		return e, nil
	case d.incoming.tx != tx:
		return nil, ErrAnswered
	case p.forks.IsFull():
		return nil, fmt.Errorf("%w: %d early dialogs", ErrPending, invite.MaxForks)
	}
	e = d.newCalleeForkLocked(tx)
	p.forks.Add(id, e)
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
	return newOurFork(state)
}

// newOurFork returns an early dialog of the peer's INVITE, which is complete.
func newOurFork(state *dialogState) *earlyDialog {
	e := &earlyDialog{state: state, Early: invite.Live(state.LocalTag()), gone: make(chan struct{})}
	e.reliableClient = reliableClient{d: state.d, early: e}
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
	if p := d.incoming.provisionals; p != nil {
		if e = p.forks.Tagged(tag); e != nil && e.state != d.currentLocked() {
			return e, !e.isGone()
		}
	}
	return nil, d.isUAC || tag == d.currentLocked().LocalTag()
}

// endCalleeFork ends an early dialog of an incoming call, the one in which the call sends for
// nil, and reports false for the last one: the call must end. The oldest other one takes its
// place.
func (d *Dialog) endCalleeFork(e *earlyDialog, reasons []Reason) bool {
	both := d.lockBoth()
	open, ok := d.endCalleeForkLocked(e, reasons)
	both.unlock()
	d.refuseUpdates(open)
	return ok
}

// endCalleeForkLocked is endCalleeFork with both mutexes held; open is for refuseUpdates.
func (d *Dialog) endCalleeForkLocked(e *earlyDialog, reasons []Reason) (open []*updateServer, ok bool) {
	if d.incoming.tx == nil {
		return nil, e.isGone()
	}
	sends := d.stateOfLocked(e) == d.currentLocked()
	besides := !sends && d.rangFirst && d.currentCalleeForkLocked() == nil
	if sends {
		e = d.currentAsForkLocked()
	}
	effects, ok := d.provisionalsLocked().forks.CloseUnlessLast(e, sends, besides, nil)
	if len(effects) > 0 {
		open = d.performLocked(effects)
		d.tellCalleeForkLocked(e, reasons)
	}
	return open, ok
}

// calleeForkFailedLocked ends the early dialog of an incoming call in which a request of ours has
// failed, and with the last one the call.
func (d *Dialog) calleeForkFailedLocked(e *earlyDialog, cause Cause) (release func()) {
	open, ok := d.endCalleeForkLocked(e, nil)
	if !ok {
		return d.hangupLocked(&ending{cause: cause})
	}
	return func() { d.refuseUpdates(open) }
}

// tellCalleeForkLocked tells OnFork's callbacks that an early dialog of an incoming call has
// ended.
func (d *Dialog) tellCalleeForkLocked(e *earlyDialog, reasons []Reason) {
	callbacks := d.callbacksLocked().fork
	if len(callbacks) == 0 || d.state == DialogStateTerminated {
		return
	}
	e.reasons = reasons
	info := e.infoLocked()
	info.ID = d.incoming.provisionals.forks.Name(e)
	d.deliverForkLocked(callbacks, info)
}

// closeAnswersLocked ends the waits for the peer's acknowledgement and answer in an early
// dialog that is closed.
func (e *earlyDialog) closeAnswersLocked() {
	e.state.reliable.stop()
	e.state.awaitedLocked().closeLocked(nil, ErrTerminated)
	if p := e.d.incoming.provisionals; p != nil {
		p.changed.Wake()
	}
}

// chooseForkLocked makes an early dialog the call, that of the automatic 180 for nil, and
// ends all others. Both mutexes are held unless e is nil; the result is for refuseUpdates.
func (d *Dialog) chooseForkLocked(e *earlyDialog) (open []*updateServer) {
	if e != nil && e.state != d.currentLocked() {
		open = d.performLocked(d.provisionalsLocked().forks.Close(d.currentAsForkLocked(), nil))
		d.selectForkLocked(e)
	}
	if p := d.incoming.provisionals; p != nil {
		open = append(open, d.performLocked(p.forks.Choose(e, nil))...)
	}
	return open
}

// currentAsForkLocked returns the early dialog in which an incoming call sends, also that of
// the automatic 180, to be ended.
func (d *Dialog) currentAsForkLocked() *earlyDialog {
	if e := d.currentCalleeForkLocked(); e != nil {
		return e
	}
	s := d.currentLocked()
	first := newOurFork(s)
	if s.updateIn != nil {
		s.updateIn.fork = first
	}
	if s.updateOut != nil {
		s.updateOut.fork = first
	}
	return first
}

// terminateFork ends an early dialog of WithFork with a 199, which is sent if the caller
// supports it, unreliably (RFC 6228 5).
func (d *Dialog) terminateFork(tx serverTx, res *sip.Response, e *earlyDialog) error {
	both := d.lockBoth()
	forks := &d.provisionalsLocked().forks
	effects, ok := forks.CloseUnlessLast(e, e.state == d.currentLocked(), false, nil)
	if !ok {
		effects = forks.Close(e, nil)
	}
	open := d.performLocked(effects)
	both.unlock()
	d.refuseUpdates(open)
	rel100.Unmark(res)
	if !sipheader.Lists(tx.Message(), "Supported", tagEarlyDialogTerminated) || rel100.Requires(tx.Message()) {
		return nil
	}
	return answerError(tx.Respond(res))
}
