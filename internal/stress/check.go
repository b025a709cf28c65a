package stress

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testhook"
	"sipdialog.example/dialog/internal/testkit"
)

// The rules that must hold, read from the sockets and the callbacks of a round.

// checkEmpty looks through the one door into the stack.
func (n *node) checkEmpty(when string) {
	if left := testkit.Held(n.stack); left != (testhook.Held{}) {
		n.round.errorf("", "%s: %s: %+v", n.ip, when, left)
	}
}

// checkCalls: each call ended once, and its callbacks came in order.
func (n *node) checkCalls() {
	for _, w := range n.known() {
		w.mu.Lock()
		states := w.states
		w.mu.Unlock()
		callID := w.d.Key().CallID
		if state := w.d.State(); state != dialog.DialogStateTerminated {
			n.round.errorf(callID, "%s: a call is %s in the end", n.ip, state)
		}
		for i, s := range states {
			if i > 0 && s <= states[i-1] {
				n.round.errorf(callID, "%s: states told out of order: %v", n.ip, states)
			}
		}
		told := len(states) > 0 && states[len(states)-1] == dialog.DialogStateTerminated
		if w.live && !told && n.downErr == nil {
			n.round.errorf(callID, "%s: the end of a call was not told: %v", n.ip, states)
		}
		n.round.cover.hit("cause: " + w.d.Cause().By.String())
		if w.d.Cause().Reason == "replaced" {
			n.round.cover.hit("cause: replaced")
		}
	}
}

// check reads the sockets' logs. A stack that was shut down in haste may leave
// calls half open, and so may one that has lost its sockets; everything else
// holds for them too.
func (r *round) check() {
	for _, n := range r.nodes {
		log := newTranscript(n)
		log.checkSequence()
		log.checkFinals()
		log.checkReliable()
		log.countTimers()
		log.countRefreshes()
		if r.end != inHaste && n.ip != lostIP {
			log.checkAnswered()
			log.checkProvisionals()
			log.checkAcknowledged()
			log.checkCancelled()
			log.checkHungUp()
		}
	}
}

// transcript is what one stack has read and written.
type transcript struct {
	n      *node
	log    []passed
	causes map[string]dialog.Cause // by Call-ID and our tag
}

func newTranscript(n *node) *transcript {
	t := &transcript{n: n, log: n.tap.messages(), causes: make(map[string]dialog.Cause)}
	for _, w := range n.known() {
		key := w.d.Key()
		t.causes[key.CallID+key.LocalTag] = w.d.Cause()
	}
	return t
}

func (t *transcript) errorf(p passed, format string, args ...any) {
	t.n.round.errorf(p.callID, "%s: %v: "+format, append([]any{t.n.ip, p}, args...)...)
}

// late reports whether a message came too late for a response: messages are dropped after
// the last transaction has ended, and before the sockets are closed.
func (t *transcript) late(p passed) bool { return t.n.tap.closedBy(p.at.Add(settling)) }

// settling is how long before its sockets a stack stops to listen, at most.
const settling = 100 * time.Millisecond

// timerL is how long an INVITE is known after its first 2xx (RFC 6026 8.7), and after its
// first failure if that is not acknowledged (Timer H).
const timerL = 32 * time.Second

// unanswered is how long a request waits for an answer before it is sent another way.
const unanswered = 32 * time.Second

func (t *transcript) lostTransport(callID, tag string) bool {
	return t.causes[callID+tag].By == dialog.PartyTransport
}

// checkSequence: in each dialog the CSeq numbers of new requests rise (RFC
// 3261 12.2.1.1). Each fork of an INVITE continues from its number.
func (t *transcript) checkSequence() {
	last := make(map[string]passed)
	first := make(map[string]time.Time)
	seen, failed := make(map[string]bool), make(map[string]bool)
	for _, p := range t.log {
		half := p.callID + " " + p.fromTag
		whole := half + " to " + p.toTg
		same := fmt.Sprint(whole, " ", p.method, p.seq)
		failed[same] = failed[same] || p.out && p.failed
		if !p.out || !p.request || p.method == "ACK" || p.method == "CANCEL" || seen[p.branch+p.method] {
			continue
		}
		seen[p.branch+p.method] = true
		if at, ok := first[same]; ok && (failed[same] || t.n.tap.lostBetween(at, p.at) || p.at.Sub(at) >= unanswered) {
			continue // by another way, as it was (RFC 3263 4.3)
		}
		first[same] = p.at
		for _, was := range []passed{last[whole], last[half]} {
			if p.seq <= was.seq && !t.overtaken(p, was) {
				t.errorf(p, "CSeq is not above %d", was.seq)
			}
		}
		if p.seq >= last[whole].seq {
			last[whole] = p
		}
		if p.method == "INVITE" && p.toTg == "" {
			last[half] = p
		}
	}
}

// overtaken reports whether the connection of a request is why a later one was
// seen before it: what was queued on one that was lost leaves by another, and the
// call may have gone over to another while it was queued.
func (t *transcript) overtaken(p, by passed) bool {
	return p.conn != by.conn && p.at.Equal(by.at) || p.conn != "" && t.n.tap.lostBetween(p.at.Add(-5*time.Second), p.at)
}

// checkFinals: no request gets two different final answers (RFC 3261 17.2).
// Requests of the ghost are left out: it repeats them long afterwards. So is a
// CANCEL that has overtaken its INVITE: the 481 to it is not kept, and once more it finds
// what it is for (RFC 3261 9.2). The transaction ends 5 s after its last response at the
// earliest (Timer I), and after a response that is sent again all the time when Timer H or L
// fires: an INVITE that a phone behind a router repeats later is a new one.
func (t *transcript) checkFinals() {
	latest, began := make(map[string]passed), make(map[string]time.Time)
	for _, p := range t.log {
		if !p.out || p.request || p.code < 200 || p.peer == ghostIP {
			continue
		}
		key := p.branch + " " + p.method + " " + p.peer
		was, ok := latest[key]
		switch {
		case !ok || p.at.Sub(was.at) > 5*time.Second || p.at.Sub(began[key]) >= timerL:
			latest[key], began[key] = p, p.at
		case p.method == "CANCEL" && was.code == 481 && p.code == 200:
			latest[key] = p
		case was.code != p.code || was.toTg != p.toTg:
			t.errorf(p, "answered %d before", was.code)
		default: // once more
			latest[key] = p
		}
	}
}

// checkAnswered: every request gets a final answer.
func (t *transcript) checkAnswered() {
	finals := make(map[string]bool)
	for _, p := range t.log {
		if p.out && !p.request && p.code >= 200 {
			finals[p.branch+" "+p.method] = true
		}
	}
	for _, p := range t.log {
		if p.out || !p.request || p.method == "ACK" || p.peer == ghostIP || t.late(p) {
			continue
		}
		// A response that finds its connection lost may find no other.
		if !finals[p.branch+" "+p.method] && !t.n.tap.lostBetween(p.at, t.n.down) {
			t.errorf(p, "never answered")
		}
	}
}

// checkAcknowledged: a 2xx to an INVITE of ours gets its ACK (RFC 3261
// 13.2.2.4), whichever fork it is from.
func (t *transcript) checkAcknowledged() {
	asked, acked := make(map[string]time.Time), make(map[string]bool)
	failed := make(map[string]bool) // RFC 3261 17.1.4, 17.1.1: that was the end of it
	for _, p := range t.log {
		switch {
		case p.out && p.request && p.method == "ACK":
			acked[fmt.Sprint(p.callID, p.fromTag, p.toTg, p.seq)] = true
		case p.out && p.failed, !p.out && !p.request && p.code >= 300:
			failed[p.branch] = true
		case p.out && p.request && p.method == "INVITE" && asked[p.branch].IsZero():
			asked[p.branch] = p.at
		}
	}
	answered := make(map[string]time.Time)
	for _, p := range t.log {
		if p.out || p.request || p.method != "INVITE" || p.code/100 != 2 || t.late(p) {
			continue
		}
		call := fmt.Sprint(p.callID, p.fromTag, p.toTg, p.seq)
		if p.peer == ghostIP {
			failed[call] = true // the ACK goes where its damaged Contact leads
			continue
		}
		if _, ours := asked[p.branch]; !ours || p.toTg == "" || failed[p.branch] || failed[call] {
			continue
		}
		if first, ok := answered[p.branch]; !ok {
			answered[p.branch] = p.at
		} else if p.at.Sub(first) >= 32*time.Second {
			continue // after Timer M
		}
		// A response to an INVITE that timed out is dropped.
		lost := t.n.tap.lostBetween(asked[p.branch], t.n.down) // nor may the ACK find a connection
		if !lost && p.at.Sub(asked[p.branch]) < 32*time.Second && !acked[call] {
			t.errorf(p, "never acknowledged")
		}
	}
}

// checkCancelled: an INVITE of ours that the peer has begun to answer, and
// never answers, is cancelled (RFC 3261 9.1).
func (t *transcript) checkCancelled() {
	type outcome struct{ provisional, final, cancelled bool }
	of := make(map[string]*outcome)
	for _, p := range t.log {
		if p.method != "INVITE" && p.method != "CANCEL" {
			continue
		}
		o := of[p.branch]
		switch {
		case p.out && p.request && p.method == "INVITE" && o == nil:
			of[p.branch] = &outcome{final: p.failed}
		case o == nil:
		case p.out && p.request && p.method == "CANCEL":
			o.cancelled = true
		case p.out && p.failed:
			o.final = true // RFC 3261 17.1.4: that was the end of it
		case !p.out && !p.request && p.method == "INVITE" && p.code < 200 && !t.late(p):
			o.provisional = true
		case !p.out && !p.request && p.method == "INVITE":
			o.final = true
		}
	}
	for _, p := range t.log {
		if !p.out || !p.request || p.method != "INVITE" {
			continue
		}
		o := of[p.branch]
		lost := t.n.protocol != "udp" // the connection's loss ends the transaction
		if o.provisional && !o.final && !o.cancelled && !lost {
			t.errorf(p, "left open")
		}
		of[p.branch] = &outcome{}
	}
}

// checkHungUp: a call that was answered on the wire ends with a BYE from one
// side, unless we could not write or lost the connection.
func (t *transcript) checkHungUp() {
	ended, failed := make(map[string]bool), make(map[string]bool)
	for _, p := range t.log {
		mine, theirs := p.toTg, p.fromTag
		if p.out == p.request {
			mine, theirs = p.fromTag, p.toTg
		}
		key := p.callID + " " + mine + " " + theirs
		if p.peer == ghostIP && !p.out && p.method == "INVITE" {
			failed[p.callID+" "+theirs] = true // its Contact may lead to nowhere now
		}
		if p.request && p.method == "BYE" {
			ended[key] = true
		}
		if p.failed {
			failed[key] = true
		}
	}
	reported := make(map[string]bool)
	for _, p := range t.log {
		if !p.out || p.method != "INVITE" && p.method != "ACK" || p.toTg == "" {
			continue
		}
		mine, theirs := p.fromTag, p.toTg
		switch {
		case p.request && p.method == "ACK" && t.acknowledges2xx(p):
		case !p.request && p.code/100 == 2:
			mine, theirs = p.toTg, p.fromTag
		default:
			continue
		}
		key := p.callID + " " + mine + " " + theirs
		lost := failed[p.callID+" "+theirs] || t.lostTransport(p.callID, mine) || t.n.tap.lostBetween(p.at, t.n.down)
		if !ended[key] && !failed[key] && !reported[key] && !lost {
			reported[key] = true
			t.errorf(p, "no BYE from either side")
		}
	}
}

// acknowledges2xx: the ACK to a failure repeats the INVITE's branch.
func (t *transcript) acknowledges2xx(ack passed) bool {
	for _, p := range t.log {
		if p.out && p.request && p.method == "INVITE" && p.branch == ack.branch {
			return false
		}
	}
	return true
}

// countTimers counts what passed, and which timers it shows to have fired.
func (t *transcript) countTimers() {
	cover := t.n.round.cover
	times := make(map[string]int)
	for _, p := range t.log {
		if p.peer == ghostIP {
			if p.out && (p.code == 416 || p.code == 505) {
				cover.hit(fmt.Sprint("sent: ", p.code))
			}
			continue
		}
		name := p.method
		if !p.request {
			name = fmt.Sprint(p.code, " ", p.method)
		}
		if !p.out {
			cover.hit("received: " + name)
			continue
		}
		cover.hit("sent: " + name)
		again := fmt.Sprint(p.request, p.code, p.branch, p.method)
		times[again]++
		switch {
		case times[again] == 1 || p.failed || t.n.protocol != "udp":
		case p.request && p.method == "INVITE":
			cover.hit("timer: A, INVITE again")
		case p.request:
			cover.hit("timer: E, request again")
		case p.method == "INVITE" && p.code == 180:
			cover.hit("timer: 180 again")
		case p.method == "INVITE" && p.code/100 == 2:
			cover.hit("timer: 2xx again")
		case p.method == "INVITE" && p.code >= 300:
			cover.hit("timer: G, failure again")
		}
		if p.request && strings.HasPrefix(p.subscription, "terminated;reason=timeout") {
			cover.hit("timer: subscription expired")
		}
		if !p.request && p.method == "INVITE" && p.code == 504 {
			cover.hit("timer: offer not decided")
		}
	}
	for _, cause := range t.causes {
		if cause.By == dialog.PartyTimeout {
			cover.hit("timer: " + cause.Method + " timed out")
		}
	}
}

// story is all that was said of one call.
func (r *round) story(callID string) string {
	if callID == "" {
		return ""
	}
	type event struct {
		passed
		ip string
	}
	var all []event
	for _, n := range r.nodes {
		for _, p := range n.tap.messages() {
			if p.callID == callID {
				all = append(all, event{p, n.ip})
			}
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].at.Before(all[j].at) })
	var b strings.Builder
	for _, e := range all {
		arrow := "<-"
		if e.out {
			arrow = "->"
		}
		if e.failed {
			arrow = "-x"
		}
		fmt.Fprintf(&b, "%s %s %s %s %v from=%s to=%s %s\n", e.at.Format("15:04:05.000"), e.ip, arrow, e.peer, e.line, e.fromTag, e.toTg, e.branch)
	}
	for _, n := range r.nodes {
		for _, w := range n.known() {
			if key := w.d.Key(); key.CallID == callID {
				w.mu.Lock()
				fmt.Fprintf(&b, "%s: %s %v, states %v, cause %v\n", n.ip, key.LocalTag, w.d.State(), w.states, w.d.Cause())
				w.mu.Unlock()
			}
		}
	}
	return b.String()
}
