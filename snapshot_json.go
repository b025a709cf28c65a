package dialog

import (
	"encoding/json"
	"net/netip"

	"sipdialog.example/dialog/internal/flatjson"
)

// Snapshots as JSON: see internal/flatjson.

// snapshotFields are the fields, sorted by their names. It is not written to.
var snapshotFields = []flatjson.Field[Snapshot]{
	flatjson.Bytes("a", func(s *Snapshot) *[]byte { return &s.AppData }),
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
