package dialog

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"sipdialog.example/dialog/internal/flatjson"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/storewriter"
	"sipdialog.example/dialog/internal/wellformed"
)

// SnapshotVersion is the version of the snapshots that this package writes. A field that
// is added does not raise it, since it is kept by those who do not know it.
const SnapshotVersion = 1

// maxAppData bounds the application's data in a snapshot.
const maxAppData = 16 << 10

// Snapshot is what an established call consists of: enough for another process to go on
// with it, see [Stack.Restore]. It is written as JSON (json.Marshal), with short names, and
// is some 600 bytes long, 1 KB at the most for an ordinary call without AppData. Fields
// that a later version has added are kept, and written back.
//
// It has no passwords, but the addresses of both ends and our session description: with
// SDES (RFC 4568) that has the keys of the media. docs/cluster.md says what it has not.
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
		return nil, &StateError{Op: "Snapshot", State: d.state, Need: "Established state and no hang-up begun"}
	}
	snapshot = d.snapshotLocked(time.Now())
	snapshot.own()
	return snapshot, nil
}

// own makes the snapshot share nothing with its call.
func (s *Snapshot) own() {
	for _, data := range []*[]byte{&s.Session, &s.SessionWanted, &s.SessionSpare, &s.SessionLast, &s.AppData} {
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
		Established: wallClock(now, established), Secure: d.secure,
	}
	s.LocalName, s.LocalURI = textsOf(d.local)
	if d.contact != nil {
		s.Contact = d.contact.Value()
	}
	if d.saved != nil {
		s.AppData, s.unknown, s.Fence = d.saved.appData, d.saved.unknown, d.saved.writer.Fence()
	}
	s.AwaitsACK = d.phase == phaseAwaitingACK && !d.isUAC
	state := d.currentLocked()
	s.takeState(state)
	s.takeFlow(state)
	s.takeSession(state)
	s.takeTimer(&d.timer, now)
	return s
}

// wallClock is a time as another process can read it, in milliseconds since 1970. What
// counts is how far it is from now: the wall clock may have been set since it was noted.
func wallClock(now, at time.Time) int64 { return now.UnixMilli() + at.Sub(now).Milliseconds() }

// clockTime is a time of wallClock, by our clock.
func clockTime(now time.Time, wall int64) time.Time {
	away := min(max(wall-now.UnixMilli(), -maxAway), maxAway)
	return now.Add(time.Duration(away) * time.Millisecond)
}

// maxAway bounds how far from now a time of a snapshot is, in milliseconds: ten years.
const maxAway = 10 * 365 * 24 * 3600 * 1000

// textsOf are name and URI of a party as they are stored.
func textsOf(p sipheader.Party) (name, uri string) {
	a := p.NameAddr()
	return a.Display, a.URI.String()
}

// seqBlock is how many CSeq numbers a record of the call reserves: enough for a Store that
// does not answer for long. The call is saved again when seqRenew of them are used.
const seqBlock, seqRenew = 10_000, 50

// maxSeq is the highest CSeq number (RFC 3261 8.1.1.5).
const maxSeq = 1<<31 - 1

func (s *Snapshot) takeState(now *dialogState) {
	view := now.View()
	s.LocalTag, s.RemoteTag = view.LocalTag, view.RemoteTag
	s.SeqTop = min(view.LocalSeq, maxSeq-seqBlock) + seqBlock
	s.RemoteSeq, s.RemoteSeqKnown = view.RemoteSeq, view.RemoteSeqKnown
	s.RemoteTarget = view.Target.String()
	for _, route := range view.RouteSet {
		s.RouteSet = append(s.RouteSet, route.String())
	}
	s.RemoteName, s.RemoteURI = textsOf(now.remote)
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
		s.TimerEnds = wallClock(now, v.Expires)
	}
	s.PeerUpdates = timer.allowsUpdate
}

// quoted is a name-addr of a name as it stands between quotes.
func quoted(name, uri string) string { return `"` + name + `" <` + uri + ">" }

// readParty reads a party as textsOf returns it.
func readParty(what, name, uri string) (sipheader.Party, error) {
	display, read, err := sipmsg.ToParty(quoted(name, uri))
	if err != nil || display != name || read.Wildcard || !wellformed.IsVisible(uri) || !wellformed.IsOneLine(name) {
		return sipheader.Party{}, invalid("%s %q <%s> is no address", what, name, uri)
	}
	return sipheader.NameAddr{Display: display, URI: read}.Party(), nil
}
