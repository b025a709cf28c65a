// Package callrecord writes and reads the parts of which a call consists for another
// process: its times, parties, tags, targets, flow and session timer. What is read is
// checked, since it becomes part of messages. Its functions return what is wrong.
package callrecord

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/wellformed"
)

// WallClock is a time as another process can read it, in milliseconds since 1970. What
// counts is how far it is from now: the wall clock may have been set since it was noted.
func WallClock(now, at time.Time) int64 { return now.UnixMilli() + at.Sub(now).Milliseconds() }

// ClockTime is a time of WallClock, by our clock.
func ClockTime(now time.Time, wall int64) time.Time {
	away := min(max(wall-now.UnixMilli(), -maxAway), maxAway)
	return now.Add(time.Duration(away) * time.Millisecond)
}

// maxAway bounds how far from now a time is, in milliseconds: ten years.
const maxAway = 10 * 365 * 24 * 3600 * 1000

const (
	// SeqBlock is how many CSeq numbers a record of the call reserves: enough for a Store that
	// does not answer for long. The call is saved again when SeqRenew of them are used.
	SeqBlock, SeqRenew = 10_000, 50
	// maxSeq is the highest CSeq number (RFC 3261 8.1.1.5).
	maxSeq = 1<<31 - 1
	// maxTakers bounds how many processes may take a call before one saves it: numbers
	// end.
	maxTakers = 10_000
)

// SeqTop is the end of the block of CSeq numbers that begins with seq.
func SeqTop(seq uint32) uint32 { return min(seq, maxSeq-SeqBlock) + SeqBlock }

// SkippedSeqs is how many CSeq numbers belong to others: to the fences between that of the
// process that has saved the call and ours. Each has a block of its own.
func SkippedSeqs(fence, saved uint64) uint32 {
	if saved == 0 || fence <= saved {
		return 0
	}
	return SeqBlock * uint32(min(fence-saved-1, maxTakers))
}

// Texts are name and URI of a party as they are stored.
func Texts(p sipheader.Party) (name, uri string) {
	a := p.NameAddr()
	return a.Display, a.URI.String()
}

// Party reads a party as Texts returns it.
func Party(what, name, uri string) (sipheader.Party, error) {
	display, read, err := sipmsg.ToParty(`"` + name + `" <` + uri + ">")
	if err != nil || display != name || read.Wildcard || !wellformed.IsVisible(uri) || !wellformed.IsOneLine(name) {
		return sipheader.Party{}, fmt.Errorf("%s %q <%s> is not an address", what, name, uri)
	}
	return sipheader.NameAddr{Display: display, URI: read}.Party(), nil
}

// CheckKey refuses a Call-ID or tag that would not be read as what it is. A peer of RFC
// 2543 has no tag.
func CheckKey(callID, localTag, remoteTag string) error {
	if callID == "" || !wellformed.IsVisible(strings.Map(withoutBrackets, callID)) {
		return fmt.Errorf("Call-ID %q", callID)
	}
	for _, tag := range []string{localTag, remoteTag} {
		if tag == "" {
			continue
		}
		_, _, params, err := sipmsg.ToAddress("<sip:host>;tag=" + tag)
		if read, _ := sipuri.Param(params, "tag"); err != nil || len(params) != 1 || read != tag || !wellformed.IsVisible(tag) {
			return fmt.Errorf("tag %q", tag)
		}
	}
	if localTag == "" {
		return errors.New("no local tag")
	}
	return nil
}

// withoutBrackets drops angle brackets, which a Call-ID may have (RFC 3261 25.1, word).
func withoutBrackets(r rune) rune {
	if r == '<' || r == '>' {
		return -1
	}
	return r
}

// maxRoutes bounds a route.
const maxRoutes = 256

// State reads target and route of a state of RFC 3261 12 that has everything else.
func State(v dialogstate.View, target string, routes []string) (_ dialogstate.View, err error) {
	if v.LocalSeq > maxSeq {
		return v, fmt.Errorf("CSeq %d", v.LocalSeq)
	}
	if len(routes) > maxRoutes {
		return v, fmt.Errorf("%d routes", len(routes))
	}
	if v.Target, err = readTarget("remote target", target); err != nil {
		return v, err
	}
	for _, text := range routes {
		route, err := readTarget("route", text)
		if err != nil {
			return v, err
		}
		v.RouteSet = append(v.RouteSet, route)
	}
	return v, nil
}

func readTarget(what, text string) (sip.Uri, error) {
	uri, err := sipmsg.ToURI(text)
	if err != nil || !sipuri.IsTarget(uri) || !wellformed.IsVisible(text) {
		return sip.Uri{}, fmt.Errorf("%s %q", what, text)
	}
	return uri, nil
}

// Contact reads the application's Contact; nil for an empty value.
func Contact(value string) (sip.Header, error) {
	if value == "" {
		return nil, nil
	}
	list := sipmsg.Typed("Contact", value)
	contact, ok := list[0].(*sip.ContactHeader)
	if !wellformed.IsOneLine(value) || len(list) != 1 || !ok || !sipuri.IsTarget(contact.Address) {
		return nil, fmt.Errorf("Contact %q", value)
	}
	return contact, nil
}

// CheckFlow refuses a malformed flow. An empty transport means that the call has no flow.
func CheckFlow(transport string, remote netip.AddrPort, server string) error {
	switch strings.ToUpper(transport) {
	case "":
		return nil
	case "UDP", "TCP", "TLS", "WS", "WSS":
	default:
		return fmt.Errorf("transport %q", transport)
	}
	if !remote.IsValid() || remote.Port() == 0 {
		return fmt.Errorf("address of the peer %v", remote)
	}
	return wellformed.Text("name of the server", server)
}

// Unmapped is an address whose IPv4 address is one.
func Unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// maxSession bounds a session description.
const maxSession = 1 << 20

// CheckSession refuses session descriptions that are too long, and a content type that is
// none.
func CheckSession(contentType string, sessions ...[]byte) error {
	for _, session := range sessions {
		if len(session) > maxSession {
			return fmt.Errorf("session of %d bytes", len(session))
		}
	}
	return wellformed.Text("content type", contentType)
}

// maxInterval bounds a session interval, in seconds (RFC 3261 20.19).
const maxInterval = 1<<32 - 1

// Timer reads a session timer of times in seconds; ends is a time of WallClock.
func Timer(now time.Time, interval, minSE, ends int64, refreshes bool) (v sessiontimer.View, err error) {
	if interval < 0 || interval > maxInterval || minSE < 0 || minSE > maxInterval {
		return v, fmt.Errorf("session interval of %d s, Min-SE of %d", interval, minSE)
	}
	v = sessiontimer.View{
		Interval: time.Duration(interval) * time.Second, MinSE: time.Duration(minSE) * time.Second, Refreshes: refreshes,
	}
	if interval > 0 {
		v.Expires = ClockTime(now, ends)
	}
	return v, nil
}
