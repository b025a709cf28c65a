package test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/bridge"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testhook"
	"sipdialog.example/dialog/internal/testkit"
)

// body is what a message has below its headers.
func body(r dialogtest.Received) string { return string(r.Message.Body()) }

func withoutOffer(r *dialogtest.Request) { r.Body = "" }

// supports100rel is a caller that takes reliable provisional responses.
func supports100rel(r *dialogtest.Request) {
	r.Headers = append(r.Headers, "Supported: 100rel", "Allow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE")
}

// withRSeq is a reliable provisional response of the callee.
func withRSeq(code int, rseq string, sdp string) dialogtest.Response {
	return dialogtest.Response{Code: code, Headers: []string{"Require: 100rel", "RSeq: " + rseq}, Body: sdp}
}

func TestBridgePassesOfferAndAnswerOfACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		require.Equal(t, offerSDP, body(j.callee.invite))
		j.callee.answer(dialogtest.Response{Code: 180})
		require.Empty(t, body(j.gets("180 INVITE")))
		j.callee.answer(dialogtest.Response{Code: 183, Body: answerSDP})
		require.Equal(t, answerSDP, body(j.gets("183 INVITE")))
		j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.Empty(t, body(j.callee.next("ACK")))
		require.Equal(t, answerSDP, body(j.gets("200 INVITE")))
		j.caller.acknowledge(1)
		call, err := j.outcome()
		require.NoError(t, err)
		require.Equal(t, dialog.DialogStateEstablished, call.In().State())
		require.Equal(t, dialog.DialogStateEstablished, call.Out().State())
		j.hangsUp(j.caller, j.callee)
	})
}

// The INVITE has no offer: the callee's 200 has it, and the caller's ACK the answer.
func TestBridgePassesADelayedOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, withoutOffer)
		require.Empty(t, body(j.callee.invite))
		j.callee.answer(dialogtest.Response{Code: 180})
		j.gets("180 INVITE")
		j.callee.answer(dialogtest.Response{Code: 200, Body: offerSDP})
		require.Equal(t, offerSDP, body(j.gets("200 INVITE")))
		j.caller.acknowledge(1, withBody(answerSDP))
		require.Equal(t, answerSDP, body(j.callee.next("ACK")))
		_, err := j.outcome()
		require.NoError(t, err)
		j.hangsUp(j.callee, j.caller)
	})
}

// Reliable provisional responses: the answer in a 183, then an offer in the PRACK to it,
// which passes as UPDATE; an UPDATE of the callee's passes as UPDATE.
func TestBridgePassesReliableAnswersAndEarlyOffers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel)
		j.callee.answer(withRSeq(183, "1", answerSDP))
		j.callee.reply(j.callee.next("PRACK"), dialogtest.Response{Code: 200})
		progress := j.gets("183 INVITE")
		require.Equal(t, answerSDP, body(progress))

		j.caller.prack(progress.Message, withBody(second(offerSDP)))
		update := j.callee.next("UPDATE")
		require.Equal(t, second(offerSDP), body(update))
		j.callee.reply(update, dialogtest.Response{Code: 200, Body: second(answerSDP)})
		require.Equal(t, second(answerSDP), body(j.caller.next("200 PRACK")))

		j.callee.ask("UPDATE", withBody(versioned(answerSDP, 9)))
		update = j.caller.next("UPDATE")
		require.Equal(t, versioned(answerSDP, 9), body(update))
		j.caller.reply(update, dialogtest.Response{Code: 200, Body: versioned(offerSDP, 9)})
		require.Equal(t, versioned(offerSDP, 9), body(j.callee.next("200 UPDATE")))

		j.callee.answer(dialogtest.Response{Code: 200})
		require.Empty(t, body(j.gets("200 INVITE")))
		j.caller.acknowledge(1)
		_, err := j.outcome()
		require.NoError(t, err)
		j.hangsUp(j.callee, j.caller)
	})
}

// The callee offers in a reliable 183, and the caller's PRACK has the answer.
func TestBridgePassesAnOfferInAReliableResponse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel, withoutOffer)
		j.callee.answer(withRSeq(183, "1", offerSDP))
		progress := j.gets("183 INVITE")
		require.Equal(t, offerSDP, body(progress))
		j.caller.prack(progress.Message, withBody(answerSDP))
		j.caller.next("200 PRACK")
		prack := j.callee.next("PRACK")
		require.Equal(t, answerSDP, body(prack))
		j.callee.reply(prack, dialogtest.Response{Code: 200})
		j.callee.answer(dialogtest.Response{Code: 200})
		require.Empty(t, body(j.gets("200 INVITE")))
		require.Len(t, w.sent(stackIP, "183 INVITE"), 1)
		j.caller.acknowledge(1)
		_, err := j.outcome()
		require.NoError(t, err)
		j.hangsUp(j.caller, j.callee)
	})
}

// The reason of a re-INVITE's CANCEL passes, with the offer first or last (RFC 3326).
func TestBridgePassesTheReasonOfACancelledReInvite(t *testing.T) {
	for _, change := range [][]func(*dialogtest.Request){{withBody(second(offerSDP))}, nil} {
		bubble(t, func(t *testing.T, w *world) {
			j := established(t, w, bridge.Options{})
			text := j.caller.ask("INVITE", change...)
			invite := j.callee.next("INVITE")
			j.callee.reply(invite, dialogtest.Response{Code: 180})
			synctest.Wait()
			cancel := j.caller.made("CANCEL", withHeaders(`Reason: SIP;cause=200;text="enough"`))
			j.caller.seq--
			cancel.CSeq, cancel.Branch = j.caller.seq, branchIn(text)
			require.NoError(t, j.caller.Send(j.caller.stack, j.caller.Request(cancel)))
			j.caller.next("487 INVITE")
			j.caller.acknowledge(j.caller.seq)
			got := j.callee.next("CANCEL")
			require.Equal(t, `SIP;cause=200;text="enough"`, testkit.Value(got.Message, "Reason"))
			j.callee.reply(got, dialogtest.Response{Code: 200})
			j.callee.reply(invite, dialogtest.Response{Code: 487})
			j.callee.next("ACK")
			j.hangsUp(j.caller, j.callee)
		})
	}
}

// Offers of an established call, by each method, from each side, with the offer first or
// last.
func TestBridgePassesOffersOfAnEstablishedCall(t *testing.T) {
	for _, from := range []string{"caller", "callee"} {
		for _, method := range []string{"INVITE", "UPDATE", "INVITE without an offer"} {
			t.Run(from+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					j := established(t, w, bridge.Options{})
					one, two := j.caller, j.callee
					offered, answered := second(offerSDP), second(answerSDP)
					if from == "callee" {
						one, two, offered, answered = two, one, answered, offered
					}
					method, _, delayed := strings.Cut(method, " ")
					if delayed {
						one.ask(method)
						got := two.next(method)
						require.Empty(t, body(got))
						two.reply(got, dialogtest.Response{Code: 200, Body: answered})
						require.Equal(t, answered, body(one.next("200 INVITE")))
						one.acknowledge(one.seq, withBody(offered))
						require.Equal(t, offered, body(two.next("ACK")))
					} else {
						one.ask(method, withBody(offered))
						got := two.next(method)
						require.Equal(t, offered, body(got))
						two.reply(got, dialogtest.Response{Code: 200, Body: answered})
						require.Equal(t, answered, body(one.next("200 "+method)))
						if method == "INVITE" {
							one.acknowledge(one.seq)
							two.next("ACK")
						}
					}
					j.hangsUp(two, one)
				})
			})
		}
	}
}

// A peer that has no UPDATE gets a re-INVITE instead.
func TestBridgeTurnsUpdateIntoReInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		j.caller.ask("UPDATE", withBody(second(offerSDP)))
		j.callee.reply(j.callee.next("UPDATE"), dialogtest.Response{Code: 405})
		invite := j.callee.next("INVITE")
		require.Equal(t, second(offerSDP), body(invite))
		j.callee.reply(invite, dialogtest.Response{Code: 200, Body: second(answerSDP)})
		require.Equal(t, second(answerSDP), body(j.caller.next("200 UPDATE")))
		j.hangsUp(j.caller, j.callee)
	})
}

// A refresh that changes nothing stays on its side (RFC 4028 7.4).
func TestBridgeAnswersARefreshItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		j.caller.ask("INVITE", withBody(offerSDP))
		require.Equal(t, answerSDP, body(j.caller.next("200 INVITE")))
		j.caller.acknowledge(2)
		j.callee.ask("UPDATE", withBody(answerSDP))
		require.Equal(t, offerSDP, body(j.callee.next("200 UPDATE")))
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "INVITE"), 1)
		require.Empty(t, w.sent(stackIP, "UPDATE"))
		j.hangsUp(j.caller, j.callee)
	})
}

// Refusals pass with status, reason phrase, Warning, Retry-After and Reason; those that are
// about us do not.
func TestBridgePassesRefusals(t *testing.T) {
	for code, want := range map[int]string{
		486: "486 INVITE", 603: "603 INVITE", 488: "488 INVITE", 404: "404 INVITE", 483: "483 INVITE", 500: "500 INVITE",
		503: "500 INVITE", 401: "403 INVITE", 407: "403 INVITE", 420: "500 INVITE", 302: "302 INVITE",
	} {
		t.Run(want, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := bridging(t, w, bridge.Options{})
				headers := []string{`Warning: 370 here "no bandwidth"`, "Reason: Q.850;cause=17"}
				if code == 302 {
					headers = append(headers, "Contact: <sip:carol@example.com>")
				}
				j.callee.answer(dialogtest.Response{Code: code, Headers: headers})
				j.callee.next("ACK")
				got := j.gets(want)
				j.caller.acknowledge(1)
				require.Equal(t, []string{`370 here "no bandwidth"`}, dialog.HeaderText(got.Message, "Warning"))
				require.Equal(t, []string{"Q.850;cause=17"}, dialog.HeaderText(got.Message, "Reason"))
				if code == 302 {
					require.Equal(t, []string{"<sip:carol@example.com>"}, dialog.HeaderText(got.Message, "Contact"))
				}
				_, err := j.outcome()
				require.Error(t, err)
				j.over()
			})
		})
	}
}

// A refused re-INVITE changes nothing on either side, and what would end the call of the
// other side is not passed.
func TestBridgePassesRefusedOffers(t *testing.T) {
	for code, want := range map[int]string{488: "488 INVITE", 603: "603 INVITE", 500: "500 INVITE", 415: "415 INVITE"} {
		t.Run(want, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := established(t, w, bridge.Options{})
				j.caller.ask("INVITE", withBody(second(offerSDP)))
				j.callee.reply(j.callee.next("INVITE"), dialogtest.Response{Code: code, Headers: []string{`Warning: 305 here "no"`}})
				require.Equal(t, `305 here "no"`, testkit.Value(j.caller.next(want).Message, "Warning"))
				j.caller.acknowledge(2)
				synctest.Wait()
				require.Len(t, j.b.Dialogs(), 2)
				j.hangsUp(j.callee, j.caller)
			})
		})
	}
}

func TestBridgeTellsTheOtherSideWhyACallEnds(t *testing.T) {
	for _, from := range []string{"caller", "callee"} {
		t.Run(from, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				j := established(t, w, bridge.Options{})
				one, two := j.caller, j.callee
				if from == "callee" {
					one, two = two, one
				}
				one.ask("BYE", withHeaders(`Reason: Q.850;cause=16;text="bye"`))
				one.next("200 BYE")
				bye := two.next("BYE")
				require.Equal(t, `Q.850;cause=16;text="bye"`, testkit.Value(bye.Message, "Reason"))
				two.reply(bye, dialogtest.Response{Code: 200})
				j.over()
			})
		})
	}
}

func TestBridgePassesCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		j.callee.answer(dialogtest.Response{Code: 180})
		j.gets("180 INVITE")
		j.cancel("Reason: SIP;cause=200;text=\"Call completed elsewhere\"")
		cancel := j.callee.next("CANCEL")
		require.Contains(t, testkit.Value(cancel.Message, "Reason"), "Call completed elsewhere")
		j.callee.reply(cancel, dialogtest.Response{Code: 200})
		j.callee.answer(dialogtest.Response{Code: 487})
		j.gets("487 INVITE")
		_, err := j.outcome()
		require.Error(t, err)
		j.over()
	})
}

// CANCEL and 200 cross: the callee is released, and the caller gets 487.
func TestBridgeReleasesACalleeWhoseAnswerCrossesTheCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		j.callee.answer(dialogtest.Response{Code: 180})
		j.gets("180 INVITE")
		j.cancel()
		synctest.Wait()
		j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		j.callee.next("ACK")
		j.callee.reply(j.callee.next("BYE"), dialogtest.Response{Code: 200})
		j.gets("487 INVITE")
		j.over()
	})
}

// cancel sends the caller's CANCEL.
func (j *joined) cancel(headers ...string) {
	j.t.Helper()
	l := j.caller
	via, _, _ := strings.Cut(l.inviteText[strings.Index(l.inviteText, "branch="):], "\n")
	branch := strings.TrimSpace(strings.TrimPrefix(strings.Split(via, ";")[0], "branch="))
	text := l.Request(dialogtest.Request{Method: "CANCEL", URI: l.stackURI, From: l.peerURI, FromTag: l.tag, CallID: l.callID, CSeq: 1, Branch: branch, Headers: headers})
	require.NoError(j.t, l.Send(l.stack, text))
}

func TestBridgeWithAnUnansweredCallee(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}) // nothing comes from the callee
		j.gets("408 INVITE")
		j.over()
	})
}

func TestBridgeWithACalleeThatRingsForEver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		j.callee.answer(dialogtest.Response{Code: 180})
		time.Sleep(2 * time.Minute)
		cancel := j.callee.next("CANCEL")
		j.callee.reply(cancel, dialogtest.Response{Code: 200})
		j.callee.answer(dialogtest.Response{Code: 487})
		_, err := j.outcome()
		require.Error(t, err)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		final := ""
		for _, m := range w.log {
			if d := testkit.Describe(m.msg); m.to.Addr().String() == peerIP && strings.HasSuffix(d, " INVITE") && d > "2" {
				final = d
			}
		}
		require.Contains(t, []string{"480 INVITE", "408 INVITE"}, final)
	})
}

// The application gives up: both sides are released.
func TestBridgeWhoseApplicationGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		j.callee.answer(dialogtest.Response{Code: 180})
		j.gets("180 INVITE")
		j.stop()
		j.callee.reply(j.callee.next("CANCEL"), dialogtest.Response{Code: 200})
		j.callee.answer(dialogtest.Response{Code: 487})
		j.gets("480 INVITE")
		j.over()
	})
}

// A side that dies takes the other with it.
func TestBridgeWithASideThatDies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		j.caller.ask("INFO", withBody("x"))
		j.callee.next("INFO") // no response for ever
		bye := j.caller.next("BYE")
		require.Contains(t, testkit.Value(bye.Message, "Reason"), "408")
		j.caller.reply(bye, dialogtest.Response{Code: 200})
		j.over()
	})
}

// The callee hangs up while the 200 to the caller waits for a PRACK.
func TestBridgeWhoseCalleeHangsUpBeforeTheCallerIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{}, supports100rel)
		j.callee.answer(withRSeq(183, "1", answerSDP))
		j.callee.reply(j.callee.next("PRACK"), dialogtest.Response{Code: 200})
		j.gets("183 INVITE") // no PRACK
		j.callee.answer(dialogtest.Response{Code: 200})
		j.callee.next("ACK")
		j.callee.ask("BYE")
		j.callee.next("200 BYE")
		j.gets("480 INVITE")
		_, err := j.outcome()
		require.Error(t, err)
		j.over()
	})
}

func TestBridgeWhoseSidesHangUpAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		j.caller.ask("BYE")
		j.callee.ask("BYE")
		j.caller.next("200 BYE")
		j.callee.next("200 BYE")
		j.over()
	})
}

// The caller's ACK never comes: both calls end (RFC 3261 13.3.1.4).
func TestBridgeWhoseCallerNeverAcknowledges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridging(t, w, bridge.Options{})
		j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		j.callee.next("ACK")
		j.gets("200 INVITE")
		bye := j.caller.next("BYE")
		j.caller.reply(bye, dialogtest.Response{Code: 200})
		j.callee.reply(j.callee.next("BYE"), dialogtest.Response{Code: 200})
		j.over()
	})
}

func TestBridgeAtShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		stopCaller, stopCallee := j.caller.answers(always(200)), j.callee.answers(always(200))
		defer stopCaller()
		defer stopCallee()
		require.NoError(t, j.b.Shutdown(j.ctx))
		require.Len(t, w.sent(stackIP, "BYE"), 2)
	})
}

// The stack counts the goroutine that waits for a peer's answer to the bridge's BYE, and its
// Shutdown returns when that has ended.
func TestShutdownWaitsForTheGoroutinesOfABridge(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := established(t, w, bridge.Options{})
		running := func() int { synctest.Wait(); return j.b.Held(testhook.Key{}).Tasks }
		require.Zero(t, running())
		j.caller.theirs("BYE", 200)
		bye := j.callee.next("BYE")
		require.Equal(t, 1, running())
		ended := began(func() error { return j.b.Shutdown(j.ctx) })
		synctest.Wait()
		require.Empty(t, ended)
		j.callee.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-ended)
		require.Zero(t, running())
	})
}

func TestBridgeIdlesWithoutGoroutines(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		j := bridgeOf(t, w, bridge.Options{})
		time.Sleep(time.Minute)
		synctest.Wait()
		before := len(goroutines())
		j.invite()
		j.callee.invite = j.callee.next("INVITE")
		req := j.callee.invite.Request()
		j.callee.callID, j.callee.stackTag, j.callee.target = req.CallID().Value(), testkit.FromTag(req), contactOf(req)
		j.callee.stackURI, j.callee.peerURI = req.From().Address.String(), req.To().Address.String()
		j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		j.gets("200 INVITE")
		j.caller.acknowledge(1)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		goroutinesAtMost(t, before)
		require.Len(t, j.b.Dialogs(), 2)
		j.hangsUp(j.caller, j.callee)
	})
}

// The callee answers at once after it has begun to ring: the caller hears both, in order.
func TestBridgePassesTheRingingBeforeTheAnswer(t *testing.T) {
	for range 50 {
		bubble(t, func(t *testing.T, w *world) {
			j := bridging(t, w, bridge.Options{})
			j.callee.answer(dialogtest.Response{Code: 180})
			j.callee.answer(dialogtest.Response{Code: 200, Body: answerSDP})
			j.gets("180 INVITE")
			j.gets("200 INVITE")
			j.caller.acknowledge(1)
			j.callee.next("ACK")
			j.hangsUp(j.caller, j.callee)
		})
	}
}

// A 180 and the 200 that follows it at once: the caller never gets the 180 last.
func TestBridgeNeverRingsAfterTheAnswer(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T, w *world) {
			j := bridging(t, w, bridge.Options{})
			for _, code := range []int{180, 183, 180, 200} {
				r := dialogtest.Response{Code: code}
				if code != 180 {
					r.Body = answerSDP
				}
				j.callee.answer(r)
			}
			j.gets("200 INVITE")
			j.caller.acknowledge(1)
			j.callee.next("ACK")
			for _, late := range []string{"180 INVITE", "183 INVITE"} {
				j.caller.quiet(late, time.Second)
			}
			j.hangsUp(j.caller, j.callee)
		})
	}
}
