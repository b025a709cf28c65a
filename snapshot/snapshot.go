// Package snapshot has the snapshots of calls, as Dialog.Snapshot of package dialog makes them and
// Stack.Restore reads them, and their text. Package dialog has the type under the same name.
package snapshot

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"

	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/flatjson"
)

// Version is the version of the snapshots that this package writes. A field that is added does
// not raise it, since it is kept by those who do not know it.
const Version = 1

// Snapshot is what an established call consists of: enough for another process to go on
// with it, see Stack.Restore of package dialog. It is written as JSON (json.Marshal), with short names, and
// is some 650 bytes long, 1 KB at the most for an ordinary call without AppData. Fields
// that a later version has added are kept, and written back.
//
// It has no passwords, but the addresses and the session descriptions of both ends: with
// SDES (RFC 4568) those have the keys of the media. docs/cluster.md says what it has not.
type Snapshot struct {
	// Version is Version, or that of another package that has written it.
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
	// AppData is the application's own: see Dialog.SetAppData.
	AppData []byte

	// unknown are the fields of a later version, as they were written.
	unknown flatjson.Unknown
}

// Clone returns a copy that shares nothing with the snapshot.
func (s *Snapshot) Clone() *Snapshot {
	own := *s
	for _, data := range []*[]byte{&own.Session, &own.SessionWanted, &own.SessionSpare, &own.SessionLast, &own.SessionRemote, &own.AppData} {
		*data = bytes.Clone(*data)
	}
	own.RouteSet, own.PeerPackages = slices.Clone(own.RouteSet), slices.Clone(own.PeerPackages)
	return &own
}

// Unknown is what a snapshot has of a later version.
type Unknown struct{ fields flatjson.Unknown }

// IsEmpty reports whether there is nothing.
func (u Unknown) IsEmpty() bool { return len(u.fields) == 0 }

// Unknown returns the fields that this package does not know.
func (s *Snapshot) Unknown() Unknown { return Unknown{s.unknown} }

// Keep has the snapshot written with those fields.
func (s *Snapshot) Keep(u Unknown) { s.unknown = u.fields }

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
func (s Snapshot) MarshalJSON() ([]byte, error) { return s.Text(), nil }

// Text is what MarshalJSON returns.
func (s *Snapshot) Text() []byte {
	if s.isLater() {
		return flatjson.Write[Snapshot](s, nil, s.unknown)
	}
	return flatjson.Write(s, snapshotFields, s.unknown)
}

// isLater reports whether the snapshot was read from one of a later version, of which
// nothing is known: all of its fields are as they were written.
func (s *Snapshot) isLater() bool { return s.Version > Version && s.unknown != nil }

// UnmarshalJSON reads what MarshalJSON has written. Of a later version it reads nothing but
// that.
//
// Errors: dialog.ErrInvalidArgument (it is no snapshot).
func (s *Snapshot) UnmarshalJSON(text []byte) error {
	object, err := flatjson.Parse(text)
	if err != nil {
		return errtext.Invalid("snapshot: %v", err)
	}
	*s = Snapshot{}
	if raw, ok := object["v"]; ok {
		if err := json.Unmarshal(raw, &s.Version); err != nil {
			return errtext.Invalid("snapshot: version %s", raw)
		}
	}
	if s.Version <= Version {
		if err := flatjson.Read(s, snapshotFields, object); err != nil {
			return errtext.Invalid("snapshot: %v", err)
		}
	}
	if s.unknown, err = object.Kept(); err != nil {
		return errtext.Invalid("snapshot: %v", err)
	}
	return nil
}
