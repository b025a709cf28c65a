package dialog

import (
	"context"
	"fmt"

	"github.com/emiago/sipgo/sip"
)

// answer is the outcome of a call of ours: what WaitAnswer waits for.
type answer struct {
	decided bool
	err     error
	// ready is closed when decided becomes true; made on demand.
	ready chan struct{}
}

// inviteClient is the INVITE of ours that begins a call. Its fields are
// guarded by the dialog's mutex.
type inviteClient struct {
	acknowledger
	// tx is nil until the INVITE has been written.
	tx clientTx
	// offer is the body that was sent, if any.
	offer Body
	// won is true once a 2xx has been taken; winner is its To tag.
	won    bool
	winner string
	// forks are the calls of further forks, by To tag, as long as their 2xx
	// may be repeated: each is released once only.
	forks map[string]*Dialog
	// redirects are the targets that 3xx answers have named.
	redirects redirects
}

// decided returns what is closed once the call's outcome stands.
func (d *Dialog) decided() <-chan struct{} {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.answered.ready == nil {
		d.answered.ready = make(chan struct{})
		if d.answered.decided {
			close(d.answered.ready)
		}
	}
	if d.state == DialogStateEstablished {
		d.decideLocked(nil)
	}
	return d.answered.ready
}

// decideLocked sets the outcome, once.
func (d *Dialog) decideLocked(err error) {
	if d.answered.decided {
		return
	}
	d.answered.decided, d.answered.err = true, err
	if d.answered.ready != nil {
		close(d.answered.ready)
	}
}

func (d *Dialog) outcome() error {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.answered.err
}

// sendInvite writes the INVITE of a new call. A failure ends the dialog.
func (d *Dialog) sendInvite(ctx context.Context, opts InviteOpts) error {
	delivered, err := d.placeInvite(ctx, opts)
	d.settle(ctx, delivered)
	return err
}

func (d *Dialog) placeInvite(ctx context.Context, opts InviteOpts) (<-chan struct{}, error) {
	if err := d.turn.take(ctx); err != nil {
		d.finish(causeOf(sip.INVITE, err))
		return nil, err
	}
	defer d.turn.release()

	d.mutex.Lock()
	if e := d.ending; e != nil || d.state == DialogStateTerminated {
		// Setup, or Shutdown, came before the INVITE.
		cause := d.cause
		if e != nil {
			cause = e.cause
		}
		d.mutex.Unlock()
		return nil, cause.answerError()
	}
	req := d.newInviteLocked(opts)
	opts.nameCalls(req)
	if opts.Anonymous {
		req.AppendHeader(sip.NewHeader("Privacy", "id"))
	}
	i := &inviteClient{acknowledger: acknowledger{d: d}, offer: opts.Body}
	i.redirects = newRedirects(opts.FollowRedirects, d.remoteTarget, d.routeSet)
	d.invite = i
	d.phase = phaseInviting
	delivered, _ := d.setStateLocked(DialogStateTrying)
	d.limitLocked()
	opt := d.optionsLocked()
	d.mutex.Unlock()

	x, err := d.exchange(opt, i.mayRepeatLocked)
	if err == nil {
		x.prepared, x.sent = i.prepared, i.written
		x.response, x.done = func(res *sip.Response) { _ = d.processResponse(res) }, i.ended
		x.elsewhere = i.elsewhere
		err = x.send(ctx, req)
	}
	if err != nil {
		d.finish(causeOf(sip.INVITE, err))
	}
	return delivered, err
}

// mayRepeatLocked keeps a call that was given up from being placed once more.
func (i *inviteClient) mayRepeatLocked() error {
	if i.d.ending != nil || i.d.phase != phaseInviting {
		return ErrCanceled
	}
	return nil
}

// newInviteLocked builds an INVITE, the first or a later one (RFC 3261 13.2.1).
func (d *Dialog) newInviteLocked(opts InviteOpts) *sip.Request {
	req := d.nextRequestLocked(sip.INVITE)
	req.AppendHeader(sip.NewHeader("Allow", d.config().allowed()))
	req.AppendHeader(sip.NewHeader("Supported", d.config().supported()))
	if d.remoteTag == "" {
		d.config().requireReliable(req)
	}
	d.askTimerLocked(req)
	d.askPackages(req)
	appendHeaders(req, opts.Headers)
	setBody(req, opts.Body)
	return req
}

// limitLocked starts the ringing limit.
func (d *Dialog) limitLocked() {
	if limit := d.config().ringingLimit(); limit > 0 {
		d.limit = d.after(limit, func() {
			d.giveUp(&ending{cause: Cause{By: PartyTimeout, Method: "INVITE", Err: ErrTimeout}})
		})
	}
}

// written keeps the transaction. A call that was given up while the INVITE was
// being written is cancelled now.
func (i *inviteClient) written(tx clientTx) {
	i.d.mutex.Lock()
	i.tx = tx
	cancel := func() {}
	if i.d.ending != nil {
		cancel = i.cancelLocked()
	}
	i.d.mutex.Unlock()
	cancel()
}

// cancelLocked returns what cancels the INVITE, to be called without locks.
func (i *inviteClient) cancelLocked() func() {
	tx := i.tx
	if tx == nil {
		return func() {}
	}
	extra := i.d.ending.reasons
	return func() { tx.Cancel(extra...) }
}

// processResponse takes a response to the INVITE that began the call: what it
// says of the peer, the state, the ACK, and the call's outcome (RFC 3261 13.2.2).
func (d *Dialog) processResponse(res *sip.Response) error {
	if res == nil {
		return fmt.Errorf("%w: no response", ErrMalformed)
	}
	d.reportReferred(res)
	i := d.invitation()
	i.keep(res)
	switch {
	case res.StatusCode == sip.StatusTrying:
	case res.IsProvisional():
		i.provisional(res)
	case res.IsSuccess():
		i.success(res)
	default:
		i.refused(res)
	}
	return nil
}

// keep notes a response for Dialog.Response: the latest, up to the first 2xx.
func (i *inviteClient) keep(res *sip.Response) {
	if res.StatusCode == sip.StatusTrying {
		return
	}
	i.d.mutex.Lock()
	defer i.d.mutex.Unlock()
	if !i.won && i.d.state != DialogStateTerminated {
		i.d.answeredBy = arrivalOf(res)
	}
}

func (d *Dialog) invitation() *inviteClient {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.invite == nil {
		d.invite = &inviteClient{acknowledger: acknowledger{d: d}}
	}
	return d.invite
}

// provisional takes a 101 to 199 (RFC 3261 13.2.2.1): the first with a To tag
// makes an early dialog.
func (i *inviteClient) provisional(res *sip.Response) {
	d := i.d
	unlock := d.lockBoth()
	defer unlock()
	if i.won || d.state == DialogStateTerminated {
		return
	}
	if d.remoteTag == "" && toTag(res) != "" {
		d.learnLocked(res)
	}
	d.setStateLocked(DialogStateRinging)
	d.keepBodyLocked(bodyOf(res))
}

// success takes a 2xx (RFC 3261 13.2.2.4): the first makes the call, the same
// again gets the same ACK again, and one of another fork is released.
func (i *inviteClient) success(res *sip.Response) {
	switch i.classify(res) {
	case firstAnswer:
		// Established is entered once the ACK has left, so that nothing a
		// callback sends can overtake it.
		i.d.turn.join()
		i.answer(i.offer, res, i.established)
	case sameAnswer:
		i.acknowledgeAgain()
	case otherFork:
		i.releaseFork(res)
	}
}

type answerKind int

const (
	firstAnswer answerKind = iota
	sameAnswer
	otherFork
)

// classify tells which 2xx this is, and takes the first: the dialog is the
// answering fork's from here on.
func (i *inviteClient) classify(res *sip.Response) answerKind {
	d := i.d
	unlock := d.lockBoth()
	defer unlock()
	tag := toTag(res)
	if i.won {
		if tag == i.winner {
			return sameAnswer
		}
		return otherFork
	}
	i.won, i.winner = true, tag
	d.learnLocked(res)
	if i.tx != nil && i.tx.Flow() != nil {
		d.flow = i.tx.Flow()
		d.behindNAT = d.config().NAT.hides(d.remoteTarget, d.flow.RemoteAddr().Addr())
	}
	if d.phase == phaseInviting {
		d.phase = phaseAnswering
	}
	d.keepBodyLocked(bodyOf(res))
	d.session.answered(i.offer)
	d.agreeTimerLocked(res, false, res)
	return firstAnswer
}

// established is what follows the ACK: the call stands, or it was given up
// before, and the BYE follows (RFC 3261 9.1, 15).
func (i *inviteClient) established() {
	d := i.d
	d.mutex.Lock()
	release := func() {}
	switch {
	case d.phase == phaseReleased:
	case d.ending != nil:
		d.phase = phaseBye
		release = func() { d.spawnBye() }
	default:
		d.phase = phaseSteady
		d.stopRingingLocked()
		d.setStateLocked(DialogStateEstablished)
		d.decideLocked(nil)
	}
	d.mutex.Unlock()
	d.turn.release()
	release()
}

// refused takes a final answer of 300 or more: the call is over.
func (i *inviteClient) refused(res *sip.Response) {
	i.d.mutex.RLock()
	won := i.won
	i.d.mutex.RUnlock()
	if won {
		return // another fork's, late
	}
	i.d.finish(Cause{
		By: PartyRemote, Method: "INVITE", Status: res.StatusCode, Reason: res.Reason, Reasons: ReasonsOf(res),
		Err: newResponseError(sip.INVITE, res),
	})
}

// ended follows the last response to the INVITE.
func (i *inviteClient) ended(err error) {
	i.d.mutex.Lock()
	won := i.won
	i.ack, i.forks, i.body = nil, nil, nil
	if won {
		// Nothing can be cancelled any more: what is left of the INVITE would
		// be as long as the call.
		i.tx, i.offer, i.redirects = nil, nil, redirects{}
	}
	i.d.mutex.Unlock()
	if !won {
		i.d.finish(causeOf(sip.INVITE, err))
	}
}

// releaseFork ends the dialog that a further fork's 2xx makes: ACK, then BYE
// (RFC 3261 13.2.2.4). It is a call of its own that nobody sees. The same 2xx
// again finds it, and gets its ACK again.
func (i *inviteClient) releaseFork(res *sip.Response) {
	fork, isNew := i.fork(res)
	switch {
	case fork == nil:
	case isNew:
		fork.turn.join()
		fork.invite.acknowledge(nil)
		fork.invite.established()
	default:
		fork.invite.acknowledgeAgain()
	}
}
