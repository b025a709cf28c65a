package ladder_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/ladder"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alice = netip.MustParseAddrPort("10.0.0.1:5060")
	proxy = netip.MustParseAddrPort("10.0.0.2:5060")
	bob   = netip.MustParseAddrPort("10.0.0.3:5060")
)

func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

// message returns a SIP message; a body makes it one with SDP.
func message(start, cseq, body string) []byte {
	text := start + "\r\nCall-ID: x\r\nCSeq: " + cseq + "\r\n"
	if body != "" {
		text += "Content-Type: application/sdp\r\n"
	}
	return []byte(text + "\r\n" + body)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if filepath.Ext(name) == "" {
		name += ".txt"
	}
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestCallThroughAProxy(t *testing.T) {
	l := ladder.New(
		ladder.Participant{Name: "alice", Addr: alice},
		ladder.Participant{Name: "proxy", Addr: proxy},
		ladder.Participant{Name: "bob", Addr: netip.AddrPortFrom(bob.Addr(), 0)},
	)
	invite := message("INVITE sip:bob@x SIP/2.0", "1 INVITE", "v=0\r\nm=audio 4000 RTP/AVP 0\r\n")
	l.Note(at(0), "alice", "calling")
	l.Message(at(0), alice, proxy, invite)
	l.Message(at(500), alice, proxy, invite)
	l.Message(at(1500), alice, proxy, invite)
	l.Message(at(1501), proxy, alice, message("SIP/2.0 100 Trying", "1 INVITE", ""))
	l.Message(at(1502), proxy, bob, invite)
	l.Message(at(1510), bob, proxy, message("SIP/2.0 180 Ringing", "1 INVITE", ""))
	l.Message(at(1511), proxy, alice, message("SIP/2.0 180 Ringing", "1 INVITE", ""))
	l.Message(at(4000), bob, proxy, message("SIP/2.0 200 OK", "1 INVITE", "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"))
	l.Message(at(4001), proxy, alice, message("SIP/2.0 200 OK", "1 INVITE", "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"))
	l.Message(at(4002), alice, netip.MustParseAddrPort("10.0.0.3:40000"), message("ACK sip:bob@y SIP/2.0", "1 ACK", ""))
	l.Note(at(4002), "alice", "confirmed")
	l.Note(at(4003), "bob", "confirmed: a remark at the last column may be as long as it likes")
	l.Message(at(65000), bob, alice, message("BYE sip:alice@x SIP/2.0", "1 BYE", ""))
	l.Message(at(65001), alice, bob, message("SIP/2.0 200 OK", "1 BYE", ""))
	golden(t, "proxy", l.String())
}

// TestPicture draws a call with headings, in text and as a picture: notes at different
// participants share a row, and what XML forbids is escaped.
func TestPicture(t *testing.T) {
	l := ladder.New(ladder.Participant{Name: "alice", Addr: alice}, ladder.Participant{Name: "<bob>", Addr: bob})
	l.Heading(at(0), "alice & bob")
	l.Message(at(1), alice, bob, message("INVITE sip:bob@x SIP/2.0", "1 INVITE", "v=0\r\nm=audio 4000 RTP/AVP 0\r\n"))
	l.Message(at(2), bob, alice, message("SIP/2.0 200 OK", "1 INVITE", ""))
	l.Note(at(3), "alice", "Established")
	l.Note(at(3), "<bob>", "Established")
	l.Note(at(3), "<bob>", "a second row")
	golden(t, "headings", l.String())
	var svg strings.Builder
	n, err := l.WriteSVG(&svg)
	require.NoError(t, err)
	require.EqualValues(t, svg.Len(), n)
	golden(t, "picture.svg", svg.String())
	require.NoError(t, xml.Unmarshal([]byte(svg.String()), &struct{}{}))
}

func TestOddTraffic(t *testing.T) {
	l := ladder.New(ladder.Participant{Name: "a very long name for a participant", Addr: alice})
	mapped := netip.MustParseAddrPort("[::ffff:10.0.0.1]:5060")
	stranger := netip.MustParseAddrPort("[fd00::1]:5070")
	l.Message(at(30), stranger, mapped, []byte("\x00\x01STUN"))
	l.Message(at(10), mapped, stranger, []byte("\r\n\r\n"))
	l.Message(at(20), alice, stranger, []byte("\r\n\r\n"))
	l.Message(at(40), alice, alice, message("OPTIONS sip:me SIP/2.0", "7 OPTIONS", ""))
	l.Message(at(50), stranger, alice, message("SIP/2.0 404 \x1b[31mNot\tFound "+strings.Repeat("x", 100), "7 OPTIONS", ""))
	l.Message(at(60), stranger, alice, []byte("OPTIONS sip:me SIP/2.0"))
	l.Note(at(70), "nobody", "late")
	golden(t, "odd", l.String())
}

func TestDirectionOfEachStream(t *testing.T) {
	for sdp, want := range map[string]string{
		"v=0": "SDP sendrecv",
		"v=0\r\na=inactive\r\nm=audio 1 RTP/AVP 0":                                              "SDP inactive",
		"v=0\r\nm=audio 1 RTP/AVP 0\r\na=sendonly\r\nm=video 2 RTP/AVP 9":                       "SDP sendonly+sendrecv",
		"v=0\na=sendonly\nm=audio 1 RTP/AVP 0\nm=video 0 RTP/AVP 9\na=inactive":                 "SDP sendonly+off",
		"v=0\r\nm=audio 1 RTP/AVP 0\r\na=recvonly\r\nm=audio 3 RTP/AVP 0\r\na=recvonly":         "SDP recvonly",
		"v=0\r\nm=audio 1 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=recvonlyish\r\na=sendonly\r\n": "SDP sendonly",
	} {
		l := ladder.New()
		l.Message(epoch, alice, bob, message("UPDATE sip:bob@x SIP/2.0", "3 UPDATE", sdp))
		require.Contains(t, l.String(), "- UPDATE 3, "+want+" -", sdp)
	}
}

func TestNotifyTellsTheStatusItReports(t *testing.T) {
	l := ladder.New()
	for body, want := range map[string]string{
		"SIP/2.0 180 Ringing\r\n": "- NOTIFY 2, 180 Ringing -",
		"SIP/2.0 200 OK":          "- NOTIFY 2, 200 OK -",
		"":                        "- NOTIFY 2 -",
	} {
		l.Message(epoch, alice, bob, []byte("NOTIFY sip:bob@x SIP/2.0\r\nCSeq: 2 NOTIFY\r\n"+
			"Content-Type: message/sipfrag;version=2.0\r\n\r\n"+body))
		require.Contains(t, l.String(), want)
	}
}

func TestReliableResponsesAndSessionTimersAreNamed(t *testing.T) {
	l := ladder.New()
	for message, want := range map[string]string{
		"SIP/2.0 183 Session Progress\r\nCSeq: 1 INVITE\r\nRSeq: 988":           "- 183 Session Progress (INVITE 1), RSeq 988 -",
		"PRACK sip:bob@x SIP/2.0\r\nCSeq: 2 PRACK\r\nRAck: 988 1 INVITE":        "- PRACK 2, RAck 988 1 INVITE -",
		"SIP/2.0 200 OK\r\nCSeq: 3 UPDATE\r\nsession-expires: 90;refresher=uac": "- 200 OK (UPDATE 3), Session-Expires 90 -",
		"UPDATE sip:bob@x SIP/2.0\r\nCSeq: 4 UPDATE\r\nSession-Expires:":        "- UPDATE 4 -",
	} {
		l.Message(epoch, alice, bob, []byte(message+"\r\n\r\n"))
		require.Contains(t, l.String(), want)
	}
}

func TestEmptyLadderDrawsNothing(t *testing.T) {
	var out strings.Builder
	n, err := ladder.New(ladder.Participant{Name: "alice", Addr: alice}).WriteTo(&out)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = ladder.New().WriteSVG(&out)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Empty(t, out.String())
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 3, errors.New("disk full") }

func TestErrorOfTheWriterIsReturned(t *testing.T) {
	l := ladder.New()
	l.Note(epoch, "alice", "x")
	n, err := l.WriteTo(failing{})
	require.EqualError(t, err, "disk full")
	require.EqualValues(t, 3, n)
	n, err = l.WriteSVG(failing{})
	require.EqualError(t, err, "disk full")
	require.EqualValues(t, 3, n)
}

func TestLadderMayBeUsedFromManyGoroutines(t *testing.T) {
	l := ladder.New()
	var done sync.WaitGroup
	for g := range 4 {
		done.Add(1)
		go func() {
			defer done.Done()
			for i := range 50 {
				l.Message(at(i), alice, bob, message("INFO sip:x SIP/2.0", fmt.Sprintf("%d INFO", i), ""))
				l.Note(at(i), fmt.Sprint("party ", g), "x")
				if i%10 == 0 {
					_ = l.String()
				}
			}
		}()
	}
	done.Wait()
	require.Equal(t, 2+4*50*2, strings.Count(l.String(), "\n"))
	require.Equal(t, 3*50, strings.Count(l.String(), "repeat"))
}
