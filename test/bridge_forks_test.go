package test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// says has one of the callee's forks respond, and returns what the caller gets.
func (j *joined) says(fork string, r dialogtest.Response, what string) dialogtest.Received {
	j.t.Helper()
	r.ToTag = fork
	j.callee.answer(r)
	return j.caller.next(what)
}

// wins is the 200 of one of the forks, which becomes the call on both sides.
func (j *joined) wins(fork, tag, sdp string) {
	j.t.Helper()
	ok := j.says(fork, dialogtest.Response{Code: 200, Body: sdp}, "200 INVITE")
	require.Equal(j.t, sdp, body(ok))
	require.Equal(j.t, tag, testkit.ToTag(ok.Message))
	j.caller.stackTag, j.caller.target = tag, contactOf(ok.Response())
	j.caller.acknowledge(1)
	require.Equal(j.t, fork, testkit.ToTag(j.callee.next("ACK").Message))
	j.callee.tag = fork
	_, err := j.outcome()
	require.NoError(j.t, err)
	j.hangsUp(j.callee, j.caller)
}

// RFC 3261 12.1.1: each early dialog of the callee's is one of the caller's, with its own To
// tag, and the one that answers becomes the call.
func TestBridgeKeepsForksApart(t *testing.T) {
	for _, winner := range []string{"one", "two", "three"} {
		t.Run(winner, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{})
				tags := map[string]string{
					"one": testkit.ToTag(j.says("one", dialogtest.Response{Code: 180}, "180 INVITE").Message),
					"two": testkit.ToTag(j.says("two", dialogtest.Response{Code: 183, Body: answerSDP}, "183 INVITE").Message),
				}
				again := j.says("one", dialogtest.Response{Code: 183, Body: held(answerSDP)}, "183 INVITE")
				require.Equal(t, held(answerSDP), body(again))
				require.Equal(t, tags["one"], testkit.ToTag(again.Message))
				require.NotEqual(t, tags["one"], tags["two"])
				if winner == "three" { // it has said nothing before
					j.callee.answer(dialogtest.Response{Code: 200, ToTag: winner, Body: answerSDP})
					ok := j.gets("200 INVITE")
					require.NotContains(t, []string{tags["one"], tags["two"]}, testkit.ToTag(ok.Message))
					j.caller.acknowledge(1)
					j.callee.next("ACK")
					j.callee.tag = winner
					j.hangsUp(j.caller, j.callee)
					return
				}
				j.wins(winner, tags[winner], map[string]string{"one": held(answerSDP), "two": answerSDP}[winner])
			})
		})
	}
}

// Each reliable response is acknowledged by the caller in its own early dialog, and to the
// callee in its own.
func TestBridgeKeepsReliableForksApart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel)
		tags := make(map[string]string)
		for fork, sdp := range map[string]string{"one": answerSDP, "two": held(answerSDP)} {
			got := j.says(fork, withRSeq(183, "7", sdp), "183 INVITE")
			require.Equal(t, sdp, body(got))
			tags[fork] = testkit.ToTag(got.Message)
			prack := j.callee.next("PRACK")
			require.Equal(t, fork, testkit.ToTag(prack.Message))
			j.callee.reply(prack, dialogtest.Response{Code: 200, ToTag: fork})
			j.caller.stackTag, j.caller.target = tags[fork], contactOf(got.Response())
			j.caller.prack(got.Message)
			require.Equal(t, tags[fork], testkit.ToTag(j.caller.next("200 PRACK").Message))
		}
		require.NotEqual(t, tags["one"], tags["two"])
		j.wins("two", tags["two"], "")
	})
}

// Two forks offer, each in a reliable response: the caller's PRACK in each early dialog has
// the answer for that one.
func TestBridgePassesOffersOfForks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel, withoutOffer)
		tags := make(map[string]string)
		for _, fork := range []string{"one", "two"} {
			got := j.says(fork, withRSeq(183, "7", versioned(offerSDP, len(fork)+len(tags))), "183 INVITE")
			require.Equal(t, versioned(offerSDP, len(fork)+len(tags)), body(got))
			tags[fork] = testkit.ToTag(got.Message)
			j.caller.stackTag, j.caller.target = tags[fork], contactOf(got.Response())
			j.caller.prack(got.Message, withBody(versioned(answerSDP, len(tags))))
			j.caller.next("200 PRACK")
			prack := j.callee.next("PRACK")
			require.Equal(t, versioned(answerSDP, len(tags)), body(prack))
			require.Equal(t, fork, testkit.ToTag(prack.Message))
			j.callee.reply(prack, dialogtest.Response{Code: 200, ToTag: fork})
		}
		j.wins("one", tags["one"], "")
	})
}

// A 199 passes to a caller that supports it (RFC 6228), and what follows from its fork is
// another early dialog.
func TestBridgePassesTheEndOfAFork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, withHeaders("Supported: 199"))
		one := testkit.ToTag(j.says("one", dialogtest.Response{Code: 180}, "180 INVITE").Message)
		two := testkit.ToTag(j.says("two", dialogtest.Response{Code: 180}, "180 INVITE").Message)
		for fork, tag := range map[string]string{"one": one, "two": two} {
			over := j.says(fork, dialogtest.Response{Code: 199, Headers: []string{`Reason: SIP;cause=486;text="Busy Here"`}}, "199 INVITE")
			require.Equal(t, tag, testkit.ToTag(over.Message))
			require.Contains(t, testkit.Value(over.Message, "Reason"), "cause=486")
		}
		j.callee.answer(dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		ok := j.gets("200 INVITE")
		require.NotContains(t, []string{one, two}, testkit.ToTag(ok.Message))
		j.caller.acknowledge(1)
		j.callee.next("ACK")
		j.callee.tag = "two"
		j.hangsUp(j.caller, j.callee)
	})
}

// answeredForks has the callee answer reliably in early dialogs, and returns the caller's tags and
// targets of them.
func (j *joined) answeredForks(forks ...string) (tags, targets map[string]string) {
	j.t.Helper()
	tags, targets = make(map[string]string), make(map[string]string)
	for _, fork := range forks {
		got := j.says(fork, withRSeq(183, "7", answerSDP), "183 INVITE")
		j.callee.reply(j.callee.next("PRACK"), dialogtest.Response{Code: 200, ToTag: fork})
		tags[fork], targets[fork] = testkit.ToTag(got.Message), contactOf(got.Response())
		j.caller.stackTag, j.caller.target = tags[fork], targets[fork]
		j.caller.prack(got.Message)
		j.caller.next("200 PRACK")
	}
	return tags, targets
}

// RFC 3311 5.1, RFC 3261 12.1: an UPDATE passes between the two early dialogs that belong
// together, whichever they are, and no other one has its offer or its answer.
func TestBridgePassesUpdatesOfForks(t *testing.T) {
	for _, fork := range []string{"one", "two", "three"} {
		t.Run(fork, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{}, supports100rel)
				tags, targets := j.answeredForks("one", "two", "three")

				j.caller.stackTag, j.caller.target = tags[fork], targets[fork]
				j.caller.ask("UPDATE", withBody(second(offerSDP)))
				got := j.callee.next("UPDATE")
				require.Equal(t, second(offerSDP), body(got))
				require.Equal(t, fork, testkit.ToTag(got.Message))
				j.callee.reply(got, dialogtest.Response{Code: 200, ToTag: fork, Body: second(answerSDP)})
				answer := j.caller.next("200 UPDATE")
				require.Equal(t, second(answerSDP), body(answer))
				require.Equal(t, tags[fork], testkit.ToTag(answer.Message))

				j.callee.tag = fork
				j.callee.ask("UPDATE", withBody(versioned(answerSDP, 3)))
				got = j.caller.next("UPDATE")
				require.Equal(t, versioned(answerSDP, 3), body(got))
				require.Equal(t, tags[fork], testkit.FromTag(got.Message))
				j.caller.reply(got, dialogtest.Response{Code: 200, Body: versioned(offerSDP, 3)})
				require.Equal(t, versioned(offerSDP, 3), body(j.callee.next("200 UPDATE")))

				j.callee.ask("UPDATE", withBody(versioned(answerSDP, 4)))
				j.caller.reply(j.caller.next("UPDATE"), dialogtest.Response{Code: 488})
				j.callee.next("488 UPDATE")
				require.Len(t, w.sent(stackIP, "UPDATE"), 3)
				j.wins(fork, tags[fork], "")
			})
		})
	}
}

// RFC 3261 15: the caller's BYE in one early dialog ends the callee's that it belongs to, and
// the others go on, with UPDATE and the answer. The last one ends the call.
func TestBridgePassesTheEndOfAnEarlyDialog(t *testing.T) {
	for ended, wins := range map[string]string{"one": "two", "two": "one"} {
		t.Run(ended, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{}, supports100rel)
				tags, targets := j.answeredForks("one", "two")
				in := func(fork string) *peerCall {
					j.caller.stackTag, j.caller.target = tags[fork], targets[fork]
					return j.caller
				}
				in(ended).ask("BYE", withHeaders(`Reason: Q.850;cause=16`))
				j.caller.next("200 BYE")
				bye := j.callee.next("BYE")
				require.Equal(t, ended, testkit.ToTag(bye.Message))
				require.Equal(t, "Q.850;cause=16", testkit.Value(bye.Message, "Reason"))
				j.callee.reply(bye, dialogtest.Response{Code: 200, ToTag: ended})
				synctest.Wait()
				require.Empty(t, w.sent(stackIP, "CANCEL"))
				in(ended).ask("UPDATE", withBody(second(offerSDP)))
				j.caller.next("481 UPDATE")

				in(wins).ask("UPDATE", withBody(second(offerSDP)))
				j.callee.reply(j.callee.next("UPDATE"), dialogtest.Response{Code: 200, ToTag: wins, Body: second(answerSDP)})
				j.caller.next("200 UPDATE")
				j.wins(wins, tags[wins], "")
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel)
		j.answeredForks("one", "two")
		j.callee.tag = "two"
		j.caller.ask("BYE")
		j.callee.reply(j.callee.next("BYE"), dialogtest.Response{Code: 200, ToTag: "two"})
		j.caller.stackTag = testkit.ToTag(w.sent(stackIP, "183 INVITE")[0].msg)
		j.caller.ask("BYE")
		j.callee.reply(j.callee.next("CANCEL"), dialogtest.Response{Code: 200})
		j.callee.answer(dialogtest.Response{Code: 487, ToTag: "one"})
		j.caller.next("487 INVITE")
		j.over()
	})
}

// A caller without 100rel: the callee is not told that it is supported, and if it sends its
// answer reliably all the same, the 200 to the caller has it (RFC 3261 13.2.1).
func TestBridgeOffersReliabilityOnlyIfTheCallerDoes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		require.NotContains(t, w.one(stackIP, "INVITE").value(t, "Supported"), "100rel")
		j.callee.answer(withRSeq(183, "1", answerSDP))
		j.callee.reply(j.callee.next("PRACK"), dialogtest.Response{Code: 200})
		early := j.gets("183 INVITE")
		require.Empty(t, testkit.Value(early.Message, "RSeq"))
		j.callee.answer(dialogtest.Response{Code: 200})
		require.Equal(t, answerSDP, body(j.gets("200 INVITE")))
		j.caller.acknowledge(1)
		j.callee.next("ACK")
		j.hangsUp(j.caller, j.callee)
	})
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, withHeaders("Require: 100rel"))
		require.Contains(t, w.one(stackIP, "INVITE").value(t, "Supported"), "100rel")
		j.callee.answer(dialogtest.Response{Code: 486})
		j.gets("486 INVITE")
	})
}

// With more than sixty early dialogs the call continues with those within the bound, and ends
// on both sides.
func TestBridgeWithMoreForksThanItsBound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		for i := range 80 {
			j.callee.answer(dialogtest.Response{Code: 183, ToTag: "fork-" + string(rune('0'+i)), Body: answerSDP})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		j.callee.answer(dialogtest.Response{Code: 200, ToTag: "fork-0", Body: answerSDP})
		j.gets("200 INVITE")
		j.caller.acknowledge(1)
		j.callee.next("ACK")
		j.callee.tag = "fork-0"
		j.hangsUp(j.caller, j.callee)
	})
}
