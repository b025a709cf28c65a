package dialog

import (
	"bytes"
	"time"

	"sipdialog.example/dialog/internal/callrecord"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/snapshot"
)

// Snapshot is what an established call consists of, see [snapshot.Snapshot].
type Snapshot = snapshot.Snapshot

// SnapshotVersion is the version of the snapshots that this package writes.
const SnapshotVersion = snapshot.Version

// keptCall is what a call has for its snapshots, and the Store, alone. The dialog's mutex
// guards it.
type keptCall struct {
	// appData is not written to, and unknown are the fields of a snapshot that this package
	// does not know.
	appData []byte
	unknown snapshot.Unknown
	// writer writes the call to the Store; nil without one, and before the call is answered.
	// offered is the highest CSeq number of the latest record.
	writer  *storewriter.Writer
	offered uint32
	// isKept is true once the Store has the call, session is our session description in it,
	// and offeredSession that in the latest record.
	isKept                  bool
	session, offeredSession Body
	// movedAway is true once another process has the call, or may take it.
	movedAway bool
	// ackAnswers is true if our latest ACK had our session in it.
	ackAnswers bool
	// leaving is true while the call is being handed over.
	leaving bool
}

// SetAppData sets what the application has to know of the call once it is restored, at
// most 16 KiB; it is in each snapshot from now on. data is copied. It never blocks.
//
// Errors: ErrInvalidArgument (too much), *StateError (the call has ended).
func (d *Dialog) SetAppData(data []byte) (err error) {
	defer naming("SetAppData", &err)
	if len(data) > callrecord.MaxAppData {
		return invalid("%d bytes of data, more than %d", len(data), callrecord.MaxAppData)
	}
	own := bytes.Clone(data)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.state == DialogStateTerminated {
		return &StateError{Op: "SetAppData", State: d.state, Need: "a call in progress"}
	}
	if d.saved == nil {
		d.saved = &keptCall{}
	}
	d.saved.appData = own
	d.changedIfKeptLocked()
	return nil
}

// AppData returns a copy of what SetAppData has set, here or in the process that had the
// call before; nil for nothing.
func (d *Dialog) AppData() []byte {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.saved == nil {
		return nil
	}
	return bytes.Clone(d.saved.appData)
}

// Snapshot returns what an established call consists of now. An offer that is open is not
// in it: the session is as it was before. The call may go on: its CSeq numbers are good for
// 100 requests more, retries included, so take another snapshot before that, and after each
// change of the session. It never blocks, and shares nothing with the call.
//
// Errors: *StateError (the call is not established, or is being ended).
func (d *Dialog) Snapshot() (s *Snapshot, err error) {
	defer naming("Snapshot", &err)
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.state != DialogStateEstablished || d.ending != nil || d.peerHungUp {
		return nil, &StateError{Op: "Snapshot", State: d.state, Need: "Established state and no hang-up begun"}
	}
	return d.snapshotLocked(time.Now()).Clone(), nil
}

// snapshotLocked is Snapshot in any state. Its data, which nobody writes to, is the call's
// own.
func (d *Dialog) snapshotLocked(now time.Time) *Snapshot {
	established := d.stack.birth().Add(d.entered[DialogStateEstablished])
	if d.entered[DialogStateEstablished] == 0 { // our ACK is about to leave
		established = now
	}
	s := &Snapshot{
		Version: SnapshotVersion, CallID: d.callID, IsUAC: d.isUAC, IsReferral: d.referral,
		Established: callrecord.WallClock(now, established), Secure: d.secure,
	}
	s.LocalName, s.LocalURI = callrecord.Texts(d.local)
	if d.contact != nil {
		s.Contact = d.contact.Value()
	}
	if d.saved != nil {
		s.AppData, s.Fence, s.AckAnswers = d.saved.appData, d.saved.writer.Fence(), d.saved.ackAnswers
		s.Keep(d.saved.unknown)
	}
	s.AwaitsACK = d.phase == phaseAwaitingACK && !d.isUAC
	state := d.currentLocked()
	callrecord.SetState(s, state.View(), state.remote)
	s.PeerPackages = state.peerPackages
	s.FlowInbound, s.FlowNAT, s.FlowNamed = state.inboundConn, state.nat, state.flowNamed
	if state.flow != nil {
		callrecord.SetFlow(s, state.flow.Restored())
	}
	callrecord.SetSession(s, state.negotiation.View())
	callrecord.SetTimer(s, d.timer.View(), now)
	s.PeerUpdates = d.timer.allowsUpdate
	return s
}
