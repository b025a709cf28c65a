package dialog

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/callrecord"
	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/transport"
)

// Restore goes on with a call that another process had, or this one before it was started
// anew: the result is Established, and can do what the call could. The stack should be
// reached where that one was, by a shared name or at the same address. The snapshot is not
// changed.
//
// The other process must have let go of the call: two that have it confuse the peer. No
// state is told: callbacks are registered on the result, and what arrives before is treated
// as without them. [Dialog.Request] and [Dialog.Response] return nil; subscriptions of
// REFERs, and what was asserted of the peer's identity, are not restored. A connection is
// opened anew when something is sent, where the route or the peer's Contact leads; behind
// a NAT, and over WebSocket, the peer has to come back first. A session timer goes on; a
// session that has expired is refreshed at once, once.
//
// With a StackConfig.Store the call is then kept there, with the fence after that of the
// snapshot; if another process has taken it meanwhile, it ends with PartyMoved.
//
// It does not wait for the network.
//
// Errors: ErrInvalidArgument (no snapshot of a call), ErrVersion (of a later version),
// ErrExists (the call is here), ErrEnded (it has ended here lately), ErrMaxDialogs,
// ErrNotStarted, ErrShutdown, ctx's.
func (s *Stack) Restore(ctx context.Context, snapshot *Snapshot) (d *Dialog, err error) {
	defer naming("Restore", &err)
	if ctx == nil {
		return nil, errNilContext("Restore")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if snapshot == nil {
		return nil, invalid("nil snapshot")
	}
	d, err = s.restore(snapshot, ownership{fence: snapshot.Fence + 1})
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.changedIfKeptLocked()
	return d, nil
}

// ownership is the right to a call that is in the Store: the fence, and when the Store has
// said so. overdue is true if the call was taken because it was due, heard if a request of
// the peer was the reason. due is when its record was: another process takes it then, too,
// unless it is saved.
type ownership struct {
	fence          uint64
	confirmed      time.Time
	overdue, heard bool
	due            time.Time
}

func (s *Stack) restore(snapshot *Snapshot, by ownership) (*Dialog, error) {
	now := time.Now()
	call, err := readSnapshot(snapshot, now)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	d := s.newRestored(call, now)
	d.own(by, call.Fence)
	if err := s.registerRestored(d); err != nil {
		d.writerLocked().Release() // nobody else has the dialog
		d.holds.End()
		return nil, err
	}
	s.counters.restored.Add(1)
	d.logBegun("call restored", "with")
	d.resumeTimer(call.Timer, now, by.overdue)
	if call.AwaitsACK && !by.heard && now.Before(callrecord.ClockTime(now, call.Established).Add(64*s.config.timers().T1)) {
		d.onTime(rand.N(overdueSpread), (*Dialog).probe)
	}
	return d, nil
}

// probe asks the peer whether it has a call that another process has answered: its ACK went
// there, or the 200 was lost. A peer that does not know the call, or does not answer, ends
// it. The ACK is not waited for.
func (d *Dialog) probe() {
	d.mutex.RLock()
	byUpdate := d.timer.allowsUpdate
	d.mutex.RUnlock()
	ctx, cancel := context.WithTimeout(d.baseContext(), d.config().txTimeout())
	defer cancel()
	if byUpdate {
		_, _ = d.Update(ctx, nil) // its failure has its usual effect
		return
	}
	res, err := d.Do(ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{}))
	unknown := err == nil && (res.StatusCode == sip.StatusRequestTimeout || res.StatusCode == sip.StatusCallTransactionDoesNotExists)
	if unknown || errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		d.hangup(because(sip.StatusRequestTimeout, "no ACK", Cause{By: PartyTimeout, Method: "ACK", Err: ErrTimeout}))
	}
}

// own makes a call that is being restored this process's in the Store. Each fence since that
// of the snapshot has a block of CSeq numbers of its own: of several processes that take a
// call, one after the other, none uses a number of another, though none has saved it.
func (d *Dialog) own(by ownership, saved uint64) {
	if d.stack.writers == nil {
		return
	}
	if d.saved == nil {
		d.saved = &keptCall{}
	}
	d.saved.writer = d.stack.writers.TakenCall(storewriter.Key(NewStoreKey(d.callID, d.localTag)), (*writtenCall)(d), by.fence, by.confirmed)
	if by.confirmed.IsZero() { // nobody has set numbers aside: they are saved first
		d.currentLocked().Skip(0, dialogstate.ByeReserve)
		return
	}
	d.currentLocked().Skip(callrecord.SkippedSeqs(by.fence, saved), callrecord.SeqBlock)
}

// readSnapshot reads a snapshot, see callrecord.Read.
func readSnapshot(s *Snapshot, now time.Time) (*callrecord.Call, error) {
	if s.Version > SnapshotVersion {
		return nil, ErrVersion
	}
	call, err := callrecord.Read(s, now, func(contentType string, data []byte) offeranswer.Body {
		return &SimpleBody{contentType: contentType, data: data}
	})
	return call, malformed(err)
}

// newRestored makes the dialog of a snapshot.
func (s *Stack) newRestored(call *callrecord.Call, now time.Time) *Dialog {
	d := &Dialog{
		stack: s, isUAC: call.IsUAC, referral: call.IsReferral, callID: call.CallID, localTag: call.LocalTag,
		state: DialogStateEstablished, phase: phaseConfirmed,
		local: call.Local, contact: call.Contact, secure: call.Secure,
	}
	d.entered[DialogStateEstablished] = callrecord.ClockTime(now, call.Established).Sub(s.birth())
	if len(call.AppData) > 0 || !call.Unknown().IsEmpty() || call.AckAnswers {
		d.saved = &keptCall{appData: slices.Clone(call.AppData), unknown: call.Unknown(), ackAnswers: call.AckAnswers}
	}
	state := &dialogState{
		State: dialogstate.Restore(call.State), d: d, peerIdentity: peerIdentity{remote: call.Remote},
		flow: s.restoredFlow(call.Snapshot), nat: call.FlowNAT, inboundConn: call.FlowInbound, flowNamed: call.FlowNamed,
		negotiation: offeranswer.Restore(call.Session), peerPackages: slices.Clone(call.PeerPackages),
	}
	d.timer.Timer, d.timer.allowsUpdate = sessiontimer.Restore(call.Timer, now), call.PeerUpdates
	d.current.Store(state)
	state.publishLocked() // nobody else has the dialog yet
	s.adopt(d)
	state.countRemoteLocked(nil)
	return d
}

// restoredFlow returns the flow of a snapshot; nil where there is none, or where this
// stack has no socket for it.
func (s *Stack) restoredFlow(call *Snapshot) *transport.Flow {
	sockets := s.socketsNow()
	if call.FlowTransport == "" || sockets == nil {
		return nil
	}
	flow, err := sockets.Restore(callrecord.Flow(call))
	if err != nil {
		return nil
	}
	return flow
}

// registerRestored files a call that was restored, within MaxDialogs, and holds its flow.
func (s *Stack) registerRestored(d *Dialog) error {
	both := d.lockBoth()
	defer both.unlock()
	if err := s.readyLocked(); err != nil {
		return err
	}
	if err := registered(s.registry.Restore(d.keyLocked(), d)); err != nil {
		return err
	}
	if s := d.currentLocked(); s.flow != nil && s.flow.Err() == nil {
		d.keepLocked()
	}
	return nil
}

// overdueSpread is the time over which refreshes that are overdue are spread: many calls
// may be restored at once.
const overdueSpread = 2 * time.Second

// resumeTimer arms the session timer of a call that was restored. With overdue the session
// is refreshed at once, which also proves that the peer has the call.
func (d *Dialog) resumeTimer(v sessiontimer.View, now time.Time, overdue bool) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !d.timer.Active() || d.state == DialogStateTerminated || d.timer.expiry != nil {
		return // it has ended, or was refreshed, meanwhile
	}
	d.timer.expiry = d.onTime(d.timer.ExpiresAt().Sub(now), (*Dialog).sessionExpired)
	wait, refreshes := v.Resume(now)
	// A call that was handed over is due, but its session may be far from its end.
	overdue = overdue && !d.timer.DueAt().After(now.Add(v.Interval/8))
	if !refreshes && !overdue {
		return
	}
	if wait == 0 || overdue {
		wait = rand.N(max(1, min(overdueSpread, d.timer.ExpiresAt().Sub(now)/4)))
	}
	d.timer.refresh = d.onTime(wait, (*Dialog).refreshSession)
}
