package testkit

import (
	"fmt"
	"strconv"

	"github.com/emiago/sipgo/sip"
)

// OfferSDP is alice's session, as an offer.
const OfferSDP = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=sendrecv\r\n"

// AnswerSDP is bob's, as an answer to it.
const AnswerSDP = "v=0\r\no=bob 7 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\na=sendrecv\r\n"

// BranchOf returns the branch of the top Via.
func BranchOf(msg sip.Message) string { return param(msg.Via().Params, "branch") }

// FromTag returns the tag of From.
func FromTag(msg sip.Message) string { return param(msg.From().Params, "tag") }

// ToTag returns the tag of To; "" outside a dialog.
func ToTag(msg sip.Message) string { return param(msg.To().Params, "tag") }

func param(params sip.HeaderParams, name string) string {
	value, _ := params.Get(name)
	return value
}

// Value returns the first line of a header; "" if there is none.
func Value(msg sip.Message, name string) string {
	if h := msg.GetHeaders(name); len(h) > 0 {
		return h[0].Value()
	}
	return ""
}

// RSeq returns a response's RSeq; zero if there is none.
func RSeq(res sip.Message) uint32 {
	n, _ := strconv.ParseUint(Value(res, "RSeq"), 10, 32)
	return uint32(n)
}

// Describe returns a short name of a message, like "INVITE" or "200 INVITE".
func Describe(msg sip.Message) string {
	switch m := msg.(type) {
	case *sip.Request:
		return string(m.Method)
	case *sip.Response:
		if m.CSeq() == nil {
			return fmt.Sprint(m.StatusCode) // the answer to what had none
		}
		return fmt.Sprintf("%d %s", m.StatusCode, m.CSeq().MethodName)
	}
	return ""
}
