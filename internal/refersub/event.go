package refersub

import (
	"strings"

	"sipdialog.example/dialog/internal/sipmsg"
)

// IsRefer reports whether the value of an Event header is refer.
func IsRefer(event string) bool { return strings.EqualFold(sipmsg.Bare(event), "refer") }

// EventID returns the id parameter of an Event header; empty without one.
func EventID(event string) string {
	_, params := sipmsg.CutParams(event)
	return params.Text("id")
}

// Event is the Event header of the REFER with that CSeq, such as "2 REFER" (RFC 3515
// 2.4.6).
func Event(cseq string) string {
	number, _, _ := strings.Cut(cseq, " ")
	return "refer;id=" + number
}

// CSeqOf is the CSeq of the REFER that an id names.
func CSeqOf(id string) string { return id + " REFER" }

// IsFalse reports whether the value of a Refer-Sub is false: there is no subscription
// (RFC 4488 4).
func IsFalse(referSub string) bool { return strings.EqualFold(sipmsg.Bare(referSub), "false") }
