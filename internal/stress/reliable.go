package stress

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The scripted peer's part in reliable provisional responses (RFC 3262), and
// what has to hold of them.

// early continues after a provisional response to the peer's own call. Each repetition of a
// reliable one is another chance.
func (c *chaos) early(in dialogtest.Received, res *sip.Response) {
	n, call := testkit.RSeq(res), res.CallID().Value()
	if n == 0 || strings.HasSuffix(call, "3") || strings.HasSuffix(call, "7") {
		return // some are never acknowledged, however often they are repeated
	}
	prack := func(rack, body string, headers ...string) {
		c.request("PRACK", in, testkit.FromTag(res), testkit.ToTag(res), body, append(headers, "RAck: "+rack)...)
	}
	right := fmt.Sprintf("%d %d INVITE", n, res.CSeq().SeqNo)
	c.play("1xx ", []script{
		{"acknowledged", func() { prack(right, "") }},
		{"acknowledged", func() { prack(right, "") }},
		{"acknowledged with a session", func() { prack(right, testkit.OfferSDP) }},
		{"acknowledged with nonsense", func() { prack(right, "v=0\r\nnonsense", "Content-Type: application/sdp") }},
		{"acknowledged late", func() { c.pause(40 * time.Second); prack(right, "") }},
		{"acknowledged twice", func() { prack(right, ""); prack(right, "") }},
		{"acknowledged wrongly", func() { prack(fmt.Sprintf("%d %d INVITE", n+1, res.CSeq().SeqNo), "") }},
		{"acknowledged without a number", func() { prack("INVITE", "") }},
		{"acknowledged, and hung up", func() {
			prack(right, "")
			c.request("BYE", in, testkit.FromTag(res), testkit.ToTag(res), "")
		}},
		{"not acknowledged", func() {}},
		{"not acknowledged", func() {}},
	})
}

// rackNumber is the first number of a RAck header.
func rackNumber(value string) uint32 {
	number, _, _ := strings.Cut(value, " ")
	n, _ := strconv.ParseUint(number, 10, 32)
	return uint32(n)
}

// checkReliable: the reliable responses to an INVITE are numbered one by one,
// none leaves before the PRACK for the one before, and none is new after the
// final answer (RFC 3262 3). A repetition may be late, and so may one that a refusal
// meets at the same instant: they are written without a lock.
func (t *transcript) checkReliable() {
	last := make(map[string]uint32)
	acknowledged, answered := make(map[string]bool), make(map[string]passed)
	for _, p := range t.log {
		// The ghost asks the same again, and gets another tag.
		call := fmt.Sprint(p.callID, " ", p.fromTag, " ", p.toTg, " ")
		switch {
		case p.request && !p.out && p.method == "PRACK":
			acknowledged[fmt.Sprint(call, p.rack)] = true
		case p.request || !p.out || p.method != "INVITE":
		case p.code >= 200:
			answered[call] = p
		case p.rseq == 0 || p.rseq <= last[call]:
		case answered[call].code >= 300 && answered[call].at.Equal(p.at):
		case answered[call].code != 0:
			t.errorf(p, "a reliable response after the final answer")
		case last[call] != 0 && (p.rseq != last[call]+1 || !acknowledged[fmt.Sprint(call, last[call])]):
			t.errorf(p, "RSeq %d after %d, acknowledged: %v", p.rseq, last[call], acknowledged[fmt.Sprint(call, last[call])])
		default:
			last[call] = p.rseq
		}
		if p.out && !p.request && p.rseq != 0 {
			t.n.round.cover.hit("sent: reliable 1xx")
		}
	}
}
