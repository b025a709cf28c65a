package callrecord

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/snapshot"
)

// text is a session.
type text struct {
	contentType string
	data        []byte
}

func (t text) ContentType() string { return t.contentType }
func (t text) Data() []byte        { return t.data }

func newText(contentType string, data []byte) offeranswer.Body { return text{contentType, data} }

func sample() *snapshot.Snapshot {
	return &snapshot.Snapshot{
		Version: snapshot.Version, CallID: "call", LocalTag: "ours", RemoteTag: "theirs", SeqTop: 7,
		LocalURI: "sip:us@a", RemoteURI: "sip:them@b", RemoteTarget: "sip:them@10.0.0.1",
		Session: []byte("v=0\r\n"), TimerInterval: 90, TimerEnds: time.Unix(1060, 0).UnixMilli(),
	}
}

// What is no call is refused, whatever part of it is wrong.
func TestSnapshotsThatAreNoCall(t *testing.T) {
	now := time.Unix(1000, 0)
	for want, change := range map[string]func(*snapshot.Snapshot){
		"snapshot of version 0":    func(s *snapshot.Snapshot) { s.Version = 0 },
		"16385 bytes":              func(s *snapshot.Snapshot) { s.AppData = make([]byte, MaxAppData+1) },
		"local":                    func(s *snapshot.Snapshot) { s.LocalURI = "us" },
		"remote \"":                func(s *snapshot.Snapshot) { s.RemoteURI = "" },
		"Contact":                  func(s *snapshot.Snapshot) { s.Contact = "<sip:a>\r\nX: y" },
		"Call-ID":                  func(s *snapshot.Snapshot) { s.CallID = "" },
		"no local tag":             func(s *snapshot.Snapshot) { s.LocalTag = "" },
		"CSeq":                     func(s *snapshot.Snapshot) { s.SeqTop = 1 << 31 },
		"remote target":            func(s *snapshot.Snapshot) { s.RemoteTarget = "" },
		"session interval":         func(s *snapshot.Snapshot) { s.TimerInterval = -1 },
		"transport":                func(s *snapshot.Snapshot) { s.FlowTransport = "SCTP" },
		"session of 1048577 bytes": func(s *snapshot.Snapshot) { s.SessionLast = bytes.Repeat([]byte("x"), 1<<20+1) },
	} {
		s := sample()
		change(s)
		_, err := Read(s, now, newText)
		require.ErrorContains(t, err, want)
		require.False(t, strings.Contains(err.Error(), "\n"))
	}
	c, err := Read(sample(), now, newText)
	require.NoError(t, err)
	require.Equal(t, text{"application/sdp", []byte("v=0\r\n")}, c.Session.Local)
	require.Nil(t, c.Session.Wanted)
	require.Equal(t, time.Minute, c.Timer.Expires.Sub(now))
	require.Equal(t, uint32(7), c.State.LocalSeq)
}

// The parts of a call come back as they were written.
func TestPartsComeBack(t *testing.T) {
	now := time.Unix(1000, 0)
	c, err := Read(sample(), now, newText)
	require.NoError(t, err)
	again := &snapshot.Snapshot{Version: snapshot.Version, CallID: "call"}
	again.LocalName, again.LocalURI = Texts(c.Local)
	SetState(again, c.State, c.Remote)
	SetSession(again, c.Session)
	SetTimer(again, c.Timer, now)
	SetFlow(again, Flow(c.Snapshot))
	again.SeqTop -= SeqBlock
	require.Equal(t, string(sample().Text()), string(again.Text()))
	SetEnds(again, now, now.Add(time.Second))
	require.Equal(t, now.Add(time.Second).UnixMilli(), again.TimerEnds)
	again.TimerInterval, again.TimerEnds = 0, 0
	SetEnds(again, now, now)
	require.Zero(t, again.TimerEnds, "there is no timer")
}
