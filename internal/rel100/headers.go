// Package rel100 keeps the order of reliable provisional responses (RFC 3262) in both
// roles. [Server] numbers the responses of a UAS and matches the PRACKs. [Client] decides
// which responses a UAC accepts, and queues its PRACKs. The package is pure: it has no
// clock, no timer and no message.
package rel100

import (
	"strconv"
	"strings"
)

// Tag is the option tag (RFC 3262 8.1).
const Tag = "100rel"

// MaxQueued bounds the reliable provisional responses of one INVITE that wait for the
// PRACK to an earlier one, both ours and the peer's.
const MaxQueued = 16

// RAck names the response that a PRACK acknowledges (RFC 3262 7.2).
type RAck struct {
	RSeq, CSeq uint32
	Method     string
}

// ParseRAck reads a RAck header; ok is false when it cannot be read.
func ParseRAck(value string) (r RAck, ok bool) {
	fields := strings.Fields(value)
	if len(fields) != 3 {
		return RAck{}, false
	}
	rseq, errRSeq := strconv.ParseUint(fields[0], 10, 32)
	cseq, errCSeq := strconv.ParseUint(fields[1], 10, 32)
	if errRSeq != nil || errCSeq != nil {
		return RAck{}, false
	}
	return RAck{uint32(rseq), uint32(cseq), fields[2]}, true
}

// String returns the header's value.
func (r RAck) String() string {
	return FormatRSeq(r.RSeq) + " " + strconv.FormatUint(uint64(r.CSeq), 10) + " " + r.Method
}

// ParseRSeq reads an RSeq header. It returns zero, which is not a valid RSeq, if the
// header cannot be read (RFC 3262 7.1).
func ParseRSeq(value string) uint32 {
	rseq, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(rseq)
}

// FormatRSeq writes an RSeq header.
func FormatRSeq(rseq uint32) string { return strconv.FormatUint(uint64(rseq), 10) }
