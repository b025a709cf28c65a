package callrecord

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/snapshot"
)

// SetState writes the state of RFC 3261 12, and the peer.
func SetState(s *snapshot.Snapshot, v dialogstate.View, remote sipheader.Party) {
	s.LocalTag, s.RemoteTag = v.LocalTag, v.RemoteTag
	s.SeqTop = SeqTop(v.LocalSeq)
	s.RemoteSeq, s.RemoteSeqKnown = v.RemoteSeq, v.RemoteSeqKnown
	s.RemoteTarget = v.Target.String()
	for _, route := range v.RouteSet {
		s.RouteSet = append(s.RouteSet, route.String())
	}
	s.RemoteName, s.RemoteURI = Texts(remote)
}

// SetFlow writes the flow to the peer.
func SetFlow(s *snapshot.Snapshot, r transport.Restored) {
	s.FlowTransport, s.FlowLocal, s.FlowRemote = r.Transport, r.Local, r.Remote
	s.FlowServer, s.FlowDialled = r.ServerName, r.Dialled
}

// Flow is the flow of a snapshot that was read.
func Flow(s *snapshot.Snapshot) transport.Restored {
	return transport.Restored{
		Transport: s.FlowTransport, Local: Unmapped(s.FlowLocal), Remote: Unmapped(s.FlowRemote),
		ServerName: s.FlowServer, Dialled: s.FlowDialled,
	}
}

// typeSDP is the type of a session that has no other.
const typeSDP = "application/sdp"

// SetSession writes the session.
func SetSession(s *snapshot.Snapshot, v offeranswer.View) {
	s.Session, s.SessionWanted, s.SessionSpare, s.SessionLast = dataOf(v.Local), dataOf(v.Wanted), dataOf(v.Spare), dataOf(v.Last)
	s.SessionVersion, s.SessionAgreed = v.Version, v.Agreed
	s.SessionRemote, s.SessionTheirs = dataOf(v.Remote), v.ByPeer
	if v.Local != nil && v.Local.ContentType() != typeSDP {
		s.SessionType = v.Local.ContentType()
	}
}

func dataOf(body offeranswer.Body) []byte {
	if body == nil {
		return nil
	}
	return body.Data()
}

// SetTimer writes the session timer.
func SetTimer(s *snapshot.Snapshot, v sessiontimer.View, now time.Time) {
	s.TimerInterval, s.TimerOurs, s.TimerMinSE = int64(v.Interval/time.Second), v.Refreshes, int64(v.MinSE/time.Second)
	if !v.Expires.IsZero() {
		s.TimerEnds = WallClock(now, v.Expires)
	}
}

// SetEnds sets the end of a session that has a timer.
func SetEnds(s *snapshot.Snapshot, now, ends time.Time) {
	if s.TimerInterval > 0 {
		s.TimerEnds = WallClock(now, ends)
	}
}

// MaxAppData bounds the data of the application's.
const MaxAppData = 16 << 10

// Call is a snapshot that was read and checked.
type Call struct {
	*snapshot.Snapshot
	State         dialogstate.View
	Local, Remote sipheader.Party
	Contact       sip.Header
	Session       offeranswer.View
	Timer         sessiontimer.View
}

// Read reads a snapshot, and refuses what would be no call, or would break a message. newBody
// makes a session of copied bytes.
func Read(s *snapshot.Snapshot, now time.Time, newBody func(contentType string, data []byte) offeranswer.Body) (c *Call, err error) {
	switch {
	case s.Version < 1:
		return nil, fmt.Errorf("snapshot of version %d", s.Version)
	case len(s.AppData) > MaxAppData:
		return nil, fmt.Errorf("%d bytes of data of the application's", len(s.AppData))
	}
	c = &Call{Snapshot: s, Session: session(s, newBody)}
	var errs [7]error
	c.Local, errs[0] = Party("local", s.LocalName, s.LocalURI)
	c.Remote, errs[1] = Party("remote", s.RemoteName, s.RemoteURI)
	c.Contact, errs[2] = Contact(s.Contact)
	errs[3] = CheckKey(s.CallID, s.LocalTag, s.RemoteTag)
	c.State, errs[4] = State(dialogstate.View{
		LocalTag: s.LocalTag, RemoteTag: s.RemoteTag, LocalSeq: s.SeqTop,
		RemoteSeq: s.RemoteSeq, RemoteSeqKnown: s.RemoteSeqKnown,
	}, s.RemoteTarget, s.RouteSet)
	c.Timer, errs[5] = Timer(now, s.TimerInterval, s.TimerMinSE, s.TimerEnds, s.TimerOurs)
	errs[6] = errors.Join(CheckFlow(s.FlowTransport, s.FlowRemote, s.FlowServer),
		CheckSession(s.SessionType, s.Session, s.SessionWanted, s.SessionSpare, s.SessionLast, s.SessionRemote))
	return c, cmp.Or(errs[:]...)
}

func session(s *snapshot.Snapshot, newBody func(string, []byte) offeranswer.Body) offeranswer.View {
	body := func(contentType string, data []byte) offeranswer.Body {
		if len(data) == 0 {
			return nil
		}
		return newBody(cmp.Or(contentType, typeSDP), slices.Clone(data))
	}
	return offeranswer.View{
		Local: body(s.SessionType, s.Session), Wanted: body("", s.SessionWanted),
		Spare: body("", s.SessionSpare), Last: body("", s.SessionLast),
		Version: s.SessionVersion, Agreed: s.SessionAgreed,
		Remote: body("", s.SessionRemote), ByPeer: s.SessionTheirs,
	}
}
