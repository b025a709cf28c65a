package stress

import (
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Session timers (RFC 4028) in a round: what the stacks ask for, the scripted
// peer's part, and the refreshes that the sockets saw.

// sessionInterval is what a stack asks for: one of the UDP ones always, of the
// others every other one.
func (n *node) sessionInterval() time.Duration {
	interval := pick(n.dice, []time.Duration{0, 0, 90 * time.Second, 120 * time.Second})
	if n.ip == udpOne {
		return 90 * time.Second
	}
	return interval
}

// timerHeaders agree on the least interval there is, with a refresher, and take
// UPDATE. Without they would be refreshed by re-INVITE.
func timerHeaders(refresher string) []string {
	return []string{"Supported: timer", "Session-Expires: 90;refresher=" + refresher, "Allow: INVITE, ACK, BYE, UPDATE"}
}

// timedScripts answer a call with a session timer, and stay in it.
func (c *chaos) timedScripts(in dialogtest.Received, tag string) []script {
	answer := func(refresher string) func() {
		return func() {
			c.answer(in, dialogtest.Response{Code: 200, ToTag: tag, Body: testkit.AnswerSDP, Headers: timerHeaders(refresher)[:2+c.dice.intn(2)]})
		}
	}
	return []script{
		{"answered, to be refreshed", answer("uac")}, {"answered, to be refreshed", answer("uac")},
		{"answered, and not refreshed", answer("uas")},
	}
}

// timedCalls are calls with a session timer.
func (c *chaos) timedCalls(give func(headers ...string) func()) []script {
	refreshed := script{"to be refreshed", give(timerHeaders("uas")...)}
	return []script{
		refreshed, refreshed, refreshed, refreshed, refreshed,
		{"and does not refresh", give(timerHeaders("uac")...)},
		{"with too short an interval", give("Supported: timer", "Session-Expires: 30")},
	}
}

// refreshScripts answer an UPDATE.
func (c *chaos) refreshScripts(in dialogtest.Received) []script {
	code := func(name string, code int, headers ...string) script {
		return script{name, func() { c.answer(in, dialogtest.Response{Code: code, Headers: headers}) }}
	}
	return []script{
		code("200", 200), code("200 with the timer", 200, timerHeaders("uac")...), code("200 with the timer", 200, timerHeaders("uac")...),
		code("200, the peer refreshes", 200, timerHeaders("uas")...), code("500", 500), code("481", 481), {"silence", func() {}},
	}
}

// countRefreshes finds the requests that left when a session timer was due: half
// the interval after the 2xx that agreed it. An application's come then by
// accident only.
func (t *transcript) countRefreshes() {
	agreed, called, seen := make(map[string]time.Time), make(map[string]bool), make(map[string]bool)
	for _, p := range t.log {
		call := p.callID + " " + p.fromTag + p.toTg
		if p.out != p.request {
			call = p.callID + " " + p.toTg + p.fromTag // as we should write it
		}
		again := fmt.Sprint(p.request, p.code, p.branch, p.method)
		if p.method != string(sip.INVITE) && p.method != string(sip.UPDATE) || seen[again] || p.peer == ghostIP {
			continue
		}
		seen[again] = true
		switch {
		case !p.request && p.code/100 == 2:
			agreed[call] = p.at
		case p.request && p.out && p.toTg == "":
			called[p.callID+" "+p.fromTag] = true
		case p.request && p.out:
			if since := p.at.Sub(agreed[call]); since != 45*time.Second && since != 60*time.Second {
				continue
			}
			by := "callee"
			if called[p.callID+" "+p.fromTag] {
				by = "caller"
			}
			t.n.round.cover.hit("timer: " + by + " refreshes by " + p.method)
		}
	}
	for _, cause := range t.causes {
		if cause.By == dialog.PartyTimeout && cause.Reason == "session expired" {
			t.n.round.cover.hit("timer: session expired")
		}
	}
}
