// Package refersub is the subscription of a REFER (RFC 3515, RFC 6665): the contents and the
// order of its NOTIFYs, its duration, and the outcome that a NOTIFY reports. It has no lock,
// clock or network: time is an argument.
package refersub

import (
	"fmt"
	"strconv"
	"strings"

	"sipdialog.example/dialog/internal/sipmsg"
)

// TypeFrag is the content type of a NOTIFY (RFC 3515 2.4.4, RFC 3420).
const TypeFrag = "message/sipfrag;version=2.0"

// Progress is a status line of the transferred call (RFC 3515 2.4.5); zero before the
// first.
type Progress struct {
	Status int
	Reason string
}

// IsFinal reports whether a status is an outcome.
func (p Progress) IsFinal() bool { return p.Status >= 200 }

// Frag returns the body of a NOTIFY.
func (p Progress) Frag() []byte { return fmt.Appendf(nil, "SIP/2.0 %d %s\r\n", p.Status, p.Reason) }

// ParseFrag reads the status line at the beginning of the body of a NOTIFY (RFC 3515
// 2.4.5, RFC 3420).
func ParseFrag(body []byte) (Progress, bool) {
	line, _, _ := strings.Cut(string(body), "\n")
	version, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !strings.EqualFold(version, "SIP/2.0") || err != nil || status < 100 || status > 699 {
		return Progress{}, false
	}
	return Progress{status, strings.TrimSpace(reason)}, true
}

// IsFrag reports whether the body of a NOTIFY has the required type (RFC 3515 2.4.4), or
// is missing.
func IsFrag(contentType string, body []byte) bool {
	return len(body) == 0 || contentType == "" || strings.EqualFold(sipmsg.Bare(contentType), sipmsg.Bare(TypeFrag))
}
