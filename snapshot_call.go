package dialog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"sipdialog.example/dialog/internal/callrecord"
	"sipdialog.example/dialog/internal/flatjson"
	"sipdialog.example/dialog/internal/storewriter"
)

// SnapshotVersion is the version of the snapshots that this package writes. A field that
// is added does not raise it, since it is kept by those who do not know it.
const SnapshotVersion = 1

// maxAppData bounds the application's data in a snapshot.
const maxAppData = 16 << 10

// Snapshot is what an established call consists of: enough for another process to go on
// with it, see [Stack.Restore]. It is written as JSON (json.Marshal), with short names, and
// is some 650 bytes long, 1 KB at the most for an ordinary call without AppData. Fields
// that a later version has added are kept, and written back.
//
// It has no passwords, but the addresses and the session descriptions of both ends: with
// SDES (RFC 4568) those have the keys of the media. docs/cluster.md says what it has not.
type Snapshot struct {
	// Version is SnapshotVersion, or that of another package that has written it.
	Version int
	// CallID, LocalTag and RemoteTag name the call (RFC 3261 12).
	CallID, LocalTag, RemoteTag string
	// IsUAC is true for a call of ours, IsReferral for one that follows a REFER.
	IsUAC, IsReferral bool
	// Established is when the call was established, in milliseconds since 1970.
	Established int64
	// LocalName and LocalURI are our side, RemoteName and RemoteURI the peer's: the names
	// as they stand between quotes.
	LocalName, LocalURI, RemoteName, RemoteURI string
	// Contact is the value of our Contact if the application has chosen it. Secure is true
	// if the INVITE was for a SIPS URI.
	Contact string
	Secure  bool
	// SeqTop is a CSeq number that no request of ours has gone beyond: who restores the call
	// begins above it. RemoteSeq is the number of the peer's latest request, if
	// RemoteSeqKnown.
	SeqTop, RemoteSeq uint32
	RemoteSeqKnown    bool
	// RemoteTarget is the target of our requests, RouteSet their route.
	RemoteTarget string
	RouteSet     []string
	// FlowTransport, FlowLocal and FlowRemote are the flow to the peer; FlowServer is the
	// name in its certificate. FlowInbound, FlowNAT and FlowNamed say that the peer has
	// opened it, that nothing else leads to the peer, and that the application has named it;
	// FlowDialled that it is a connection which we have opened.
	FlowTransport                                string
	FlowLocal, FlowRemote                        netip.AddrPort
	FlowServer                                   string
	FlowInbound, FlowNAT, FlowNamed, FlowDialled bool
	// Session is our session description as the peer knows it, SessionWanted what the
	// application wants, SessionSpare streams of that which are in no slot, and SessionLast
	// what we sent last: the last three are empty where they are the same, or there is none.
	// SessionType is the type of Session unless that is application/sdp; SessionVersion the
	// highest in an o= line of ours unless SessionLast has it. SessionAgreed is true once an
	// offer was answered.
	Session, SessionWanted, SessionSpare, SessionLast []byte
	SessionType                                       string
	SessionVersion                                    uint64
	SessionAgreed                                     bool
	// SessionRemote is the SDP of the peer that goes with Session; SessionTheirs is true if
	// the peer has made the offer of the two.
	SessionRemote []byte
	SessionTheirs bool
	// TimerInterval is the session interval (RFC 4028) in seconds, zero without a session
	// timer; TimerOurs is true if we refresh; TimerEnds is when the session expires, in
	// milliseconds since 1970; TimerMinSE is the largest Min-SE of the call, in seconds.
	TimerInterval, TimerEnds, TimerMinSE int64
	TimerOurs                            bool
	// PeerUpdates is true if the peer takes UPDATE. PeerPackages are the Info Packages
	// that it takes (RFC 6086); nil if it has not said.
	PeerUpdates  bool
	PeerPackages []string
	// AwaitsACK is true if the peer had not acknowledged our 200 to its INVITE.
	AwaitsACK bool
	// AckAnswers is true if our ACK to the peer's latest 200 had our session in it, as the
	// answer to an offer.
	AckAnswers bool
	// Fence is that of the process in the Store which has written the snapshot; zero without
	// a Store.
	Fence uint64
	// AppData is the application's own: see [Dialog.SetAppData].
	AppData []byte

	// unknown are the fields of a later version, as they were written.
	unknown flatjson.Unknown
}

// keptCall is what a call has for its snapshots, and the Store, alone. The dialog's mutex
// guards it.
type keptCall struct {
	// appData is not written to, and unknown are the fields of a snapshot that this package
	// does not know.
	appData []byte
	unknown flatjson.Unknown
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
	if len(data) > maxAppData {
		return invalid("%d bytes of data, more than %d", len(data), maxAppData)
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
func (d *Dialog) Snapshot() (snapshot *Snapshot, err error) {
	defer naming("Snapshot", &err)
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	if d.state != DialogStateEstablished || d.ending != nil || d.peerHungUp {
		return nil, &StateError{Op: "Snapshot", State: d.state, Need: "Established state without a pending hang-up"}
	}
	snapshot = d.snapshotLocked(time.Now())
	snapshot.own()
	return snapshot, nil
}

// own makes the snapshot share nothing with its call.
func (s *Snapshot) own() {
	for _, data := range []*[]byte{&s.Session, &s.SessionWanted, &s.SessionSpare, &s.SessionLast, &s.SessionRemote, &s.AppData} {
		*data = bytes.Clone(*data)
	}
	s.PeerPackages = slices.Clone(s.PeerPackages)
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
		s.AppData, s.unknown, s.Fence = d.saved.appData, d.saved.unknown, d.saved.writer.Fence()
		s.AckAnswers = d.saved.ackAnswers
	}
	s.AwaitsACK = d.phase == phaseAwaitingACK && !d.isUAC
	state := d.currentLocked()
	s.takeState(state)
	s.takeFlow(state)
	s.takeSession(state)
	s.takeTimer(&d.timer, now)
	return s
}

func (s *Snapshot) takeState(now *dialogState) {
	view := now.View()
	s.LocalTag, s.RemoteTag = view.LocalTag, view.RemoteTag
	s.SeqTop = callrecord.SeqTop(view.LocalSeq)
	s.RemoteSeq, s.RemoteSeqKnown = view.RemoteSeq, view.RemoteSeqKnown
	s.RemoteTarget = view.Target.String()
	for _, route := range view.RouteSet {
		s.RouteSet = append(s.RouteSet, route.String())
	}
	s.RemoteName, s.RemoteURI = callrecord.Texts(now.remote)
	s.PeerPackages = now.peerPackages
}

func (s *Snapshot) takeFlow(now *dialogState) {
	s.FlowInbound, s.FlowNAT, s.FlowNamed = now.inboundConn, now.nat, now.flowNamed
	if now.flow == nil {
		return
	}
	r := now.flow.Restored()
	s.FlowTransport, s.FlowLocal, s.FlowRemote = r.Transport, r.Local, r.Remote
	s.FlowServer, s.FlowDialled = r.ServerName, r.Dialled
}

func (s *Snapshot) takeSession(now *dialogState) {
	v := now.negotiation.View()
	s.Session, s.SessionWanted, s.SessionSpare, s.SessionLast = dataOf(v.Local), dataOf(v.Wanted), dataOf(v.Spare), dataOf(v.Last)
	s.SessionVersion, s.SessionAgreed = v.Version, v.Agreed
	s.SessionRemote, s.SessionTheirs = dataOf(v.Remote), v.ByPeer
	if v.Local != nil && v.Local.ContentType() != typeSDP {
		s.SessionType = v.Local.ContentType()
	}
}

func dataOf(body Body) []byte {
	if body == nil {
		return nil
	}
	return body.Data()
}

func (s *Snapshot) takeTimer(timer *sessionTimer, now time.Time) {
	v := timer.View()
	s.TimerInterval, s.TimerOurs, s.TimerMinSE = int64(v.Interval/time.Second), v.Refreshes, int64(v.MinSE/time.Second)
	if !v.Expires.IsZero() {
		s.TimerEnds = callrecord.WallClock(now, v.Expires)
	}
	s.PeerUpdates = timer.allowsUpdate
}

// Snapshots as JSON: see internal/flatjson.

// snapshotFields are the fields, sorted by their names. It is not written to.
var snapshotFields = []flatjson.Field[Snapshot]{
	flatjson.Bytes("a", func(s *Snapshot) *[]byte { return &s.AppData }),
	flatjson.Flag("aa", func(s *Snapshot) *bool { return &s.AckAnswers }),
	flatjson.Text("c", func(s *Snapshot) *string { return &s.Contact }),
	flatjson.Number("e", func(s *Snapshot) *int64 { return &s.Established }),
	flatjson.Number("f", func(s *Snapshot) *uint64 { return &s.Fence }),
	flatjson.Flag("fd", func(s *Snapshot) *bool { return &s.FlowDialled }),
	flatjson.Flag("fi", func(s *Snapshot) *bool { return &s.FlowInbound }),
	flatjson.Address("fl", func(s *Snapshot) *netip.AddrPort { return &s.FlowLocal }),
	flatjson.Flag("fn", func(s *Snapshot) *bool { return &s.FlowNAT }),
	flatjson.Flag("fo", func(s *Snapshot) *bool { return &s.FlowNamed }),
	flatjson.Address("fr", func(s *Snapshot) *netip.AddrPort { return &s.FlowRemote }),
	flatjson.Text("fs", func(s *Snapshot) *string { return &s.FlowServer }),
	flatjson.Text("ft", func(s *Snapshot) *string { return &s.FlowTransport }),
	flatjson.Text("i", func(s *Snapshot) *string { return &s.CallID }),
	flatjson.Text("ln", func(s *Snapshot) *string { return &s.LocalName }),
	flatjson.Number("ls", func(s *Snapshot) *uint32 { return &s.SeqTop }),
	flatjson.Text("lt", func(s *Snapshot) *string { return &s.LocalTag }),
	flatjson.Text("lu", func(s *Snapshot) *string { return &s.LocalURI }),
	flatjson.List("p", func(s *Snapshot) *[]string { return &s.PeerPackages }),
	flatjson.Flag("pu", func(s *Snapshot) *bool { return &s.PeerUpdates }),
	flatjson.Flag("rf", func(s *Snapshot) *bool { return &s.IsReferral }),
	flatjson.Flag("rk", func(s *Snapshot) *bool { return &s.RemoteSeqKnown }),
	flatjson.Text("rn", func(s *Snapshot) *string { return &s.RemoteName }),
	flatjson.List("rr", func(s *Snapshot) *[]string { return &s.RouteSet }),
	flatjson.Number("rs", func(s *Snapshot) *uint32 { return &s.RemoteSeq }),
	flatjson.Text("rt", func(s *Snapshot) *string { return &s.RemoteTag }),
	flatjson.Text("ru", func(s *Snapshot) *string { return &s.RemoteURI }),
	flatjson.Bytes("s", func(s *Snapshot) *[]byte { return &s.Session }),
	flatjson.Flag("sa", func(s *Snapshot) *bool { return &s.SessionAgreed }),
	flatjson.Bytes("sl", func(s *Snapshot) *[]byte { return &s.SessionLast }),
	flatjson.Flag("so", func(s *Snapshot) *bool { return &s.SessionTheirs }),
	flatjson.Bytes("sr", func(s *Snapshot) *[]byte { return &s.SessionRemote }),
	flatjson.Bytes("ss", func(s *Snapshot) *[]byte { return &s.SessionSpare }),
	flatjson.Text("st", func(s *Snapshot) *string { return &s.SessionType }),
	flatjson.Number("sv", func(s *Snapshot) *uint64 { return &s.SessionVersion }),
	flatjson.Bytes("sw", func(s *Snapshot) *[]byte { return &s.SessionWanted }),
	flatjson.Flag("sx", func(s *Snapshot) *bool { return &s.Secure }),
	flatjson.Text("t", func(s *Snapshot) *string { return &s.RemoteTarget }),
	flatjson.Number("te", func(s *Snapshot) *int64 { return &s.TimerEnds }),
	flatjson.Number("ti", func(s *Snapshot) *int64 { return &s.TimerInterval }),
	flatjson.Number("tm", func(s *Snapshot) *int64 { return &s.TimerMinSE }),
	flatjson.Flag("to", func(s *Snapshot) *bool { return &s.TimerOurs }),
	flatjson.Flag("u", func(s *Snapshot) *bool { return &s.IsUAC }),
	flatjson.Flag("ua", func(s *Snapshot) *bool { return &s.AwaitsACK }),
	flatjson.Number("v", func(s *Snapshot) *int { return &s.Version }),
}

// MarshalJSON writes the snapshot, with the fields that it was read with and this package
// does not know. It does not fail.
func (s Snapshot) MarshalJSON() ([]byte, error) { return s.text(), nil }

func (s *Snapshot) text() []byte {
	if s.isLater() {
		return flatjson.Write[Snapshot](s, nil, s.unknown)
	}
	return flatjson.Write(s, snapshotFields, s.unknown)
}

// isLater reports whether the snapshot was read from one of a later version, of which
// nothing is known: all of its fields are as they were written.
func (s *Snapshot) isLater() bool { return s.Version > SnapshotVersion && s.unknown != nil }

// UnmarshalJSON reads what MarshalJSON has written. Of a later version it reads nothing but
// that.
//
// Errors: ErrInvalidArgument (it is no snapshot).
func (s *Snapshot) UnmarshalJSON(text []byte) error {
	object, err := flatjson.Parse(text)
	if err != nil {
		return invalid("snapshot: %v", err)
	}
	*s = Snapshot{}
	if raw, ok := object["v"]; ok {
		if err := json.Unmarshal(raw, &s.Version); err != nil {
			return invalid("snapshot: version %s", raw)
		}
	}
	if s.Version <= SnapshotVersion {
		if err := flatjson.Read(s, snapshotFields, object); err != nil {
			return invalid("snapshot: %v", err)
		}
	}
	if s.unknown, err = object.Kept(); err != nil {
		return invalid("snapshot: %v", err)
	}
	return nil
}
