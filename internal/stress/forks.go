package stress

import (
	"context"
	"fmt"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The scripted peer as several that answer one INVITE, by responses that are
// sent reliably or not (RFC 3262, RFC 6228).

// forkScripts are the ways to take a call by several early dialogs.
func (c *chaos) forkScripts(in dialogtest.Received, tag string) []script {
	// says answers as one of the forks; rseq 0 is not reliable.
	says := func(fork string, code, rseq int, body string) {
		r := dialogtest.Response{Code: code, ToTag: tag + fork, Body: body}
		if rseq != 0 {
			r.Headers = []string{"Require: 100rel", fmt.Sprint("RSeq: ", rseq)}
		}
		c.answer(in, r)
		c.pause(2 * time.Second)
	}
	return []script{
		{"reliably", func() {
			says("", 183, 5, testkit.AnswerSDP)
			says("", 183, 5, testkit.AnswerSDP)
			says("", 180, 6, "")
			says("", 200, 0, testkit.AnswerSDP)
		}},
		{"reliably, with an offer", func() { says("", 183, 1, testkit.OfferSDP); says("", 200, 0, "") }},
		{"reliably, with a gap", func() {
			says("", 180, 1, "")
			says("", 180, 3, "")
			says("", 180, 2, "")
			says("", 486, 0, "")
		}},
		{"reliably, without a number", func() {
			c.answer(in, dialogtest.Response{Code: 183, ToTag: tag, Headers: []string{"Require: 100rel"}})
			says("", 200, 0, testkit.AnswerSDP)
		}},
		{"reliably, by forks", func() {
			says("", 183, 1, testkit.AnswerSDP)
			says("-b", 183, 70, testkit.AnswerSDP)
			says("", 180, 2, "")
			says("-b", 200, 0, testkit.AnswerSDP)
			says("", 200, 0, testkit.AnswerSDP)
		}},
		{"ended by 199", func() {
			says("", 180, 0, "")
			says("-b", 199, 4, "")
			says("", 199, 0, "")
			says(pick(c.dice, []string{"", "-b"}), pick(c.dice, []int{200, 486}), 0, testkit.AnswerSDP)
		}},
		{"BYE of one of two", func() {
			says("", 183, 1, testkit.AnswerSDP)
			says("-b", 180, 0, "")
			c.demand("BYE", in, tag)
			c.demand("UPDATE", in, tag+"-b", "Contact: <sip:moved@"+chaosIP+">")
			says("-b", pick(c.dice, []int{200, 486}), 0, testkit.AnswerSDP)
		}},
	}
}

// choose is what InviteOpts.Choose is of some calls.
func (a *application) choose(dialog.ForkInfo) bool {
	a.round.cover.hit("callback: chooses a fork")
	if a.dice.chance(10) {
		panic("choose")
	}
	time.Sleep(a.dice.upTo(5 * time.Second))
	return a.dice.chance(60)
}

// prackOffer is what InviteOpts.PrackOffer is of some INVITEs.
func (a *application) prackOffer(context.Context, dialog.ForkInfo) dialog.Body {
	a.round.cover.hit("callback: offer for a PRACK")
	if a.dice.chance(10) {
		panic("prackOffer")
	}
	time.Sleep(a.dice.upTo(3 * time.Second))
	return session(testkit.OfferSDP)
}

// checkProvisionals: a reliable provisional response that is the next in its early
// dialog gets its PRACK there (RFC 3262 4), unless that, the INVITE or the call has
// ended, or is about to be.
func (t *transcript) checkProvisionals() {
	if t.n.reliable == dialog.ReliableOff {
		return
	}
	acknowledged, over := make(map[string]bool), make(map[string]bool)
	for _, p := range t.log {
		theirs := p.toTg
		if p.request != p.out {
			theirs = p.fromTag
		}
		fork := p.callID + " " + theirs
		switch {
		case p.out && p.request && p.method == "PRACK":
			acknowledged[fmt.Sprint(fork, " ", p.rack)] = true
		case p.failed: // RFC 3261 17.1.4: that was the end of an INVITE
			over[fork], over[p.branch] = true, true
		case p.request && p.method == "BYE", !p.out && !p.request && p.method == "PRACK" && p.code >= 300:
			over[fork] = true
		case p.out && p.request && p.method == "CANCEL":
			over[p.branch] = true
		case !p.out && !p.request && p.method == "INVITE" && p.code >= 200:
			over[p.branch] = true
		}
	}
	last := make(map[string]uint32)
	for _, p := range t.log {
		if p.out || p.request || p.method != "INVITE" || p.code <= 100 || p.code >= 200 || p.rseq == 0 || p.peer == ghostIP {
			continue
		}
		fork := p.callID + " " + p.toTg
		numbered := fmt.Sprint(fork, " ", p.seq)
		if last[numbered] != 0 && p.rseq != last[numbered]+1 {
			continue
		}
		last[numbered] = p.rseq
		done := acknowledged[fmt.Sprint(fork, " ", p.rseq)] || over[fork] || over[p.branch]
		if !done && !t.late(p) && !t.n.tap.lostBetween(p.at, t.n.down) {
			t.errorf(p, "RSeq %d never acknowledged", p.rseq)
		}
	}
}
