// Package sessiontimer implements the session timer of RFC 4028 in both roles: the headers
// of a request, the grant in a 2xx, and the times of refresh and expiry. It is pure: it has
// no clock and no timer, and keeps no message.
package sessiontimer

import (
	"time"

	"sipdialog.example/dialog/internal/sipmsg"
)

// Smallest is the smallest Min-SE, and its default (RFC 4028 5).
const Smallest = 90 * time.Second

// Refresher is the side that refreshes, by its role in the transaction that negotiates
// the timer (RFC 4028 4).
type Refresher uint8

const (
	// Undecided leaves the choice to the UAS.
	Undecided Refresher = iota
	UAC
	UAS
)

// Expires is the value of a Session-Expires header (RFC 4028 4). If Interval is zero,
// there is no header.
type Expires struct {
	Interval  time.Duration
	Refresher Refresher
}

// ParseExpires reads a Session-Expires header. The Interval is zero if it cannot be
// read. The Refresher is Undecided if it is missing or unknown.
func ParseExpires(value string) Expires {
	if value == "" {
		return Expires{} // most messages have no such header
	}
	bare, params := sipmsg.CutParams(value)
	interval, _ := sipmsg.Seconds(bare)
	e := Expires{Interval: interval}
	switch refresher := params.Text("refresher"); {
	case sipmsg.EqualFold(refresher, "uac"):
		e.Refresher = UAC
	case sipmsg.EqualFold(refresher, "uas"):
		e.Refresher = UAS
	}
	return e
}

// String returns the header's value.
func (e Expires) String() string {
	value := sipmsg.FormatSeconds(e.Interval)
	switch e.Refresher {
	case UAC:
		return value + ";refresher=uac"
	case UAS:
		return value + ";refresher=uas"
	default:
		return value
	}
}

// Raised returns the Session-Expires of a request after a 422 with that Min-SE (RFC 4028
// 7.3, 7.4).
func (e Expires) Raised(minSE time.Duration) Expires {
	e.Interval = max(e.Interval, minSE)
	return e
}

// ParseMinSE reads a Min-SE header (RFC 4028 5). It returns zero if the header is missing
// or cannot be read.
func ParseMinSE(value string) time.Duration {
	minSE, _ := sipmsg.Seconds(sipmsg.Bare(value))
	return minSE
}
