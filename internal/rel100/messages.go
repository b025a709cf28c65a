package rel100

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

// Requires reports whether a message requires 100rel (RFC 3262 3, 4).
func Requires(msg sipheader.Message) bool { return sipheader.Lists(msg, "Require", Tag) }

// Allows reports whether an INVITE allows reliable provisional responses (RFC 3262 3).
func Allows(invite sipheader.Message) bool {
	return Requires(invite) || sipheader.Lists(invite, "Supported", Tag)
}

// RSeqOf returns the RSeq of a reliable provisional response. It returns zero for another
// response, and for one without a readable RSeq, which cannot be acknowledged (RFC 3262 4,
// 7.1).
func RSeqOf(res *sipmsg.Message) uint32 {
	if res.Status <= sip.StatusTrying || !res.IsProvisional() || !sipheader.IsAlone(res, "RSeq") || !Requires(res) {
		return 0
	}
	return ParseRSeq(sipheader.Value(res, "RSeq"))
}

// RAckOf reads the RAck header of a PRACK; ok is false when there is none, or more than
// one, or it cannot be read.
func RAckOf(prack sipheader.Message) (ack RAck, ok bool) {
	if !sipheader.IsAlone(prack, "RAck") {
		return RAck{}, false
	}
	return ParseRAck(sipheader.Value(prack, "RAck"))
}

// Unmark removes RSeq, and 100rel from Require, and reports whether that was there.
func Unmark(res *sip.Response) bool {
	sipheader.Remove(res, "RSeq")
	tags := sipheader.Listed(res, "Require")
	if !sipheader.ContainsFold(tags, Tag) {
		return false
	}
	sipheader.Remove(res, "Require")
	for _, tag := range tags {
		if !strings.EqualFold(tag, Tag) {
			res.AppendHeader(sip.NewHeader("Require", tag))
		}
	}
	return true
}
