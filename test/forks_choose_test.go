package test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Which fork makes the call, and which are over: 199 (RFC 6228), the 2xx that
// races others, and InviteOpts.Choose.

// RFC 6228 4.
func TestA199EndsItsEarlyDialogOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		require.Contains(t, w.one(stackIP, "INVITE").value(t, "Supported"), "199")
		f.says("A", 199, "") // of an unknown fork: dropped
		require.Equal(t, dialog.DialogStateTrying, f.d.State())
		require.Empty(t, f.d.Forks())
		f.says("A", 180, "")
		f.says("B", 180, "")
		f.says("A", 199, "", `Reason: SIP;cause=486;text="Busy Here"`)
		f.says("A", 183, answerSDP) // overtaken
		list := f.d.Forks()
		require.True(t, list[0].Ended)
		require.Equal(t, 199, list[0].Status)
		require.Equal(t, []dialog.Reason{{Protocol: "SIP", Cause: 486, Text: "Busy Here"}}, list[0].Reasons)
		require.False(t, list[1].Ended)
		require.Equal(t, "B", f.d.Key().RemoteTag)
		require.Equal(t, 481, f.asks("A", "INFO", 1).StatusCode)
		f.says("B", 199, "")
		require.Equal(t, dialog.DialogStateRinging, f.d.State(), "the INVITE is open")
		f.says("B", 199, "")
		require.Equal(t, []string{"A 180", "B 180", "A 199 ended", "B 199 ended"}, f.heard())
		f.refused("B")
	})
}

// RFC 6228 4: one that is sent reliably is acknowledged, known or not.
func TestAReliable199GetsItsPRACK(t *testing.T) {
	for name, c := range map[string]struct{ before, body, answer string }{
		"known": {"180", "", ""}, "unknown": {"", "", ""},
		"with an offer": {"", "v=0\r\no=- 1 1 IN IP4 10.0.0.21\r\ns=-\r\nc=IN IP4 10.0.0.21\r\nt=0 0\r\n", "v=0"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := w.forks(dialog.InviteOpts{})
				f.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { panic("not to be asked") })
				if c.before != "" {
					f.says("A", 180, "")
				}
				f.says("A", 199, c.body, reliably(1)...)
				prack := f.at["A"].next("PRACK")
				require.Equal(t, c.answer, string(prack.Message.Body())[:len(c.answer)])
				require.Equal(t, c.answer == "", len(prack.Message.Body()) == 0)
				f.at["A"].reply(prack, dialogtest.Response{Code: 200})
				require.True(t, f.d.Forks()[0].Ended)
				f.refused("B")
			})
		})
	}
}

// A proxy may have sent the 199 too early: the 2xx wins all the same.
func TestAForkThatWasEndedBy199MayAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "")
		f.says("B", 180, "")
		f.says("A", 199, "")
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, "A", f.d.Key().RemoteTag)
		require.Equal(t, []string{"A 180", "B 180", "A 199 ended", "B 180 ended", "A 200"}, f.heard())
		f.over("A")
	})
}

// A 2xx that overtakes its fork's 18x, and those that come afterwards.
func TestProvisionalsBehindTheAnswerAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		heard := bodies(f.d)
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		drained(heard)
		f.says("A", 183, offerSDP, reliably(1)...)
		f.says("B", 183, offerSDP, reliably(1)...)
		f.says("B", 199, "")
		require.Empty(t, drained(heard))
		require.Empty(t, w.sent(stackIP, "PRACK"))
		require.Equal(t, []string{"A 200"}, f.heard())
		require.Equal(t, dialog.DialogStateEstablished, f.d.State())
		f.over("A")
	})
}

// However many To tags come, 64 are kept; a further one may still answer.
func TestTheNumberOfForksIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for i := range 100 {
			l.answer(dialogtest.Response{Code: 183, ToTag: fmt.Sprint("t", i), Headers: reliably(1)})
		}
		for range 64 {
			p.reply(p.next("PRACK"), dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Len(t, l.d.Forks(), 64)
		require.Len(t, w.sent(stackIP, "PRACK"), 64)
		l.ask("INFO", func(r *dialogtest.Request) { r.FromTag = "t90" })
		p.next("481 INFO")
		l.answer(dialogtest.Response{Code: 200, ToTag: "t99", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "t99", l.d.Key().RemoteTag)
		synctest.Wait()
		l.hangUp(p)
	})
}

// A request that overtakes the 18x of its fork belongs to that fork.
func TestARequestThatOvertakesTheResponseOfItsFork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		require.Equal(t, 200, f.asks("A", "INFO", 40).StatusCode)
		require.Empty(t, f.d.Forks())
		require.Empty(t, f.d.Key().RemoteTag)
		f.says("A", 183, "", reliably(1)...)
		prack := f.at["A"].next("PRACK")
		require.Len(t, prack.Message.GetHeaders("Route"), 1)
		f.at["A"].reply(prack, dialogtest.Response{Code: 200})
		require.Equal(t, 500, f.asks("A", "INFO", 39).StatusCode)
		f.refused("A")
	})
}

// RFC 3261 13.2.2.3: with the refusal of an INVITE its early dialogs are over,
// also when it is challenged and goes out once more.
func TestAChallengedInviteBeginsWithoutForks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		})
		f.says("A", 183, answerSDP, reliably(1)...)
		f.at["A"].reply(f.at["A"].next("PRACK"), dialogtest.Response{Code: 200})
		f.says("B", 407, "", `Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`)
		f.invite = f.next("INVITE")
		require.Equal(t, "3 INVITE", testkit.Value(f.invite.Message, "CSeq"), "above the PRACK")
		require.Empty(t, f.d.Forks())
		require.Equal(t, 200, f.asks("B", "INFO", 1).StatusCode)
		f.says("B", 183, "", reliably(8)...)
		prack := f.at["B"].next("PRACK")
		require.Equal(t, "8 3 INVITE", testkit.Value(prack.Message, "RAck"))
		require.Equal(t, "4 PRACK", testkit.Value(prack.Message, "CSeq"))
		f.at["B"].reply(prack, dialogtest.Response{Code: 200})
		require.Equal(t, "B", f.d.Key().RemoteTag)
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("B")
	})
}

// An UPDATE in one fork does not affect the fork that is selected.
func TestAnUpdateToAForkThatLosesChangesNothing(t *testing.T) {
	for _, code := range []int{200, 481, 0} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(offer(offerSDP))
			f.says("A", 180, "")
			result := began(func() error { _, err := f.d.Update(context.Background(), nil); return err })
			in := f.at["A"].next("UPDATE")
			f.says("B", 200, answerSDP)
			require.NoError(t, f.d.WaitAnswer(context.Background()))
			if code != 0 {
				f.at["A"].reply(in, dialogtest.Response{Code: code})
			}
			err := <-result
			require.Equal(t, code == 200, err == nil)
			synctest.Wait()
			require.Equal(t, dialog.DialogStateEstablished, f.d.State())
			require.Equal(t, "B", f.d.Info().RemoteTarget.User)
			f.over("B")
		})
	}
}

// chosen is an offer to a call that only those forks may answer.
func chosen(tags string) dialog.InviteOpts {
	opts := offer(offerSDP)
	opts.Choose = func(info dialog.ForkInfo) bool { return strings.Contains(tags, info.RemoteTag) }
	return opts
}

// No request is sent in a fork that is being released: its BYE has the next CSeq.
func TestNothingOvertakesTheBYEOfADeclinedFork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		opts.Choose = func(dialog.ForkInfo) bool { return false }
		f := w.forks(opts)
		f.says("A", 180, "")
		refer := sip.NewRequest(sip.REFER, uri("carol", "10.0.0.3"))
		refer.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, f.d.HandleIncomingRefer(refer, uri("carol", "10.0.0.3"), nil))
		notify := f.at["A"].next("NOTIFY")
		f.at["A"].reply(notify, dialogtest.Response{Code: 500})
		synctest.Wait()
		f.says("A", 200, answerSDP)
		for _, r := range f.d.GetAllReferSubscriptions() {
			require.ErrorIs(t, r.SendNotify(context.Background(), 180, ""), dialog.ErrTerminated)
		}
		bye := f.at["A"].next("BYE")
		for _, m := range w.sent(stackIP, "NOTIFY") {
			require.Less(t, m.msg.CSeq().SeqNo, bye.Request().CSeq().SeqNo)
		}
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.Error(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, bye.Request().CSeq().SeqNo, w.one(stackIP, "BYE").msg.CSeq().SeqNo)
	})
}

// RFC 3261 13.2.2.4: a 2xx that is not wanted gets its ACK and a BYE, and the
// next is awaited.
func TestTheApplicationChoosesTheForkThatAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(chosen("B"))
		f.says("A", 180, "")
		f.says("A", 200, answerSDP)
		f.at["A"].next("ACK")
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 200})
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		require.True(t, f.d.Forks()[0].Ended)
		f.says("A", 200, answerSDP) // repeated
		f.at["A"].next("ACK")
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, "B", f.d.Key().RemoteTag)
		require.Len(t, w.sent(stackIP, "BYE"), 1)
		f.over("B")
	})
}

// When none is chosen the call ends once none can come any more.
func TestACallOfWhichNoForkIsChosen(t *testing.T) {
	for name, c := range map[string]struct {
		choose func(dialog.ForkInfo) bool
		wait   time.Duration
	}{
		"no":     {func(dialog.ForkInfo) bool { return false }, 0},
		"panic":  {func(dialog.ForkInfo) bool { panic("choose") }, 0},
		"Goexit": {func(dialog.ForkInfo) bool { runtime.Goexit(); return true }, 0},
		"late":   {func(dialog.ForkInfo) bool { time.Sleep(30 * time.Second); return true }, 24 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				opts := offer(offerSDP)
				opts.Choose = c.choose
				f := w.forks(opts)
				start := time.Now()
				f.says("A", 200, answerSDP)
				bye := f.at["A"].next("BYE")
				require.Equal(t, c.wait, time.Since(start))
				f.at["A"].reply(bye, dialogtest.Response{Code: 200})
				require.ErrorIs(t, f.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
				require.Equal(t, dialog.PartyLocal, f.d.Cause().By)
				f.empty()
			})
		})
	}
}

// Those that answer while the application thinks wait for it, one at a time, also
// beyond the life of the INVITE's transaction.
func TestForksThatAnswerDuringTheChoice(t *testing.T) {
	for _, yes := range []string{"A", "B", ""} {
		t.Run("chosen "+yes, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				opts := offer(offerSDP)
				opts.Choose = func(info dialog.ForkInfo) bool { time.Sleep(20 * time.Second); return info.RemoteTag == yes }
				f := w.forks(opts)
				for range 2 {
					f.says("A", 200, answerSDP)
					f.says("B", 200, answerSDP)
				}
				for _, tag := range []string{"A", "B"} {
					f.at[tag].next("ACK")
					if tag != yes {
						f.at[tag].reply(f.at[tag].next("BYE"), dialogtest.Response{Code: 200})
					}
				}
				err := f.d.WaitAnswer(context.Background())
				if yes == "" {
					require.ErrorIs(t, err, dialog.ErrCanceled)
					f.empty()
					return
				}
				require.NoError(t, err)
				require.Equal(t, yes, f.d.Key().RemoteTag)
				f.over(yes)
			})
		})
	}
}

// A call that is given up while the application thinks ends with the BYE to the
// 2xx, at once; the function may even do that itself.
func TestACallThatIsGivenUpDuringTheChoice(t *testing.T) {
	for name, end := range map[string]func(f *forked){
		"Hangup":   func(f *forked) { go func() { _ = f.d.Hangup(context.Background()) }() },
		"Close":    func(f *forked) { _ = f.d.Close() },
		"Shutdown": func(f *forked) { go func() { _ = f.w.stacks[0].Shutdown(context.Background()) }() },
		"inside":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				opts := offer(offerSDP)
				free := make(chan struct{})
				var f *forked
				opts.Choose = func(dialog.ForkInfo) bool {
					if end == nil {
						_ = f.d.Hangup(context.Background())
						return true
					}
					<-free
					return true
				}
				f = w.forks(opts)
				f.says("A", 200, answerSDP)
				f.says("B", 200, answerSDP)
				if end != nil {
					end(f)
				}
				for _, tag := range []string{"A", "B"} {
					f.at[tag].next("ACK")
					f.at[tag].reply(f.at[tag].next("BYE"), dialogtest.Response{Code: 200})
				}
				require.Error(t, f.d.WaitAnswer(context.Background()))
				close(free)
				f.empty()
			})
		})
	}
}

// FT8: the 2xx of a fork that the application has declined may come again: it gets its
// ACK, and changes nothing of why the call ended.
func TestARepeated2xxOfADeclinedForkIsNotWhyTheCallEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		opts.Choose = func(dialog.ForkInfo) bool { return false }
		f := w.forks(opts)
		f.says("A", 200, answerSDP)
		f.at["A"].next("ACK")
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 200})
		for range 3 {
			f.says("A", 200, answerSDP)
			f.at["A"].next("ACK")
		}
		require.ErrorIs(t, f.d.WaitAnswer(context.Background()), dialog.ErrCanceled)
		require.Equal(t, dialog.Cause{By: dialog.PartyLocal, Method: "BYE", Reason: "no fork was chosen"}, f.d.Cause())
		f.empty()
		require.Len(t, w.sent(stackIP, "BYE"), 1)
	})
}

// Events that cross the end of an early dialog, or the selection of the fork.

// offersByUpdate sends an UPDATE with an offer from a fork, and awaits no answer.
func (f *forked) offersByUpdate(tag string) {
	f.t.Helper()
	r := f.made("UPDATE", withBody(offerSDP))
	r.FromTag, r.CSeq = tag, 2
	require.NoError(f.t, f.at[tag].Send(f.stack, f.at[tag].Request(r)))
	synctest.Wait()
}

// An INVITE that goes out once more leaves no UPDATE of its early dialogs
// unanswered, neither in the call's own nor in another.
func TestAnUpdateThatIsOpenWhenTheInviteIsChallengedIsAnswered(t *testing.T) {
	for _, tag := range []string{"A", "B"} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(dialog.InviteOpts{}, func(c *dialog.StackConfig) {
				c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
			})
			f.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
			f.says("A", 180, "")
			f.says("B", 180, "")
			f.offersByUpdate(tag)
			f.says("B", 407, "", `Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`)
			f.invite = f.next("INVITE")
			require.Equal(t, 481, f.at[tag].final("UPDATE").StatusCode)
			f.refused("B")
		})
	}
}

// A fork that is released is found where its answer came from, as the call is: its
// Contact leads nowhere.
func TestAForkBehindANATIsReleasedWhereItIs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(publicIP)
		l := w.calls(a, p, offer(offerSDP))
		for _, tag := range []string{"A", "B"} {
			l.answer(dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP, Headers: []string{"Contact: <sip:bob@" + privateIP + ":5060>"}})
			require.Equal(t, tag, testkit.ToTag(p.next("ACK").Message))
		}
		bye := p.next("BYE")
		require.Equal(t, "B", testkit.ToTag(bye.Message))
		p.reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

// Choosing a fork that has hung up meanwhile makes no call.
func TestAForkThatHangsUpDuringTheChoice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		free := make(chan struct{})
		opts.Choose = func(dialog.ForkInfo) bool { <-free; return true }
		f := w.forks(opts)
		f.says("A", 200, answerSDP)
		require.Equal(t, 200, f.asks("A", "BYE", 1).StatusCode)
		synctest.Wait() // the 200 leaves before the fork ends
		close(free)
		f.at["A"].next("ACK")
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 481})
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, "B", f.d.Key().RemoteTag)
		f.over("B")
	})
}

// The fork that was not chosen outlives the call: Shutdown waits for its BYE too.
func TestShutdownWaitsForAForkThatWasDeclinedLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		opts := offer(offerSDP)
		opts.Choose = func(dialog.ForkInfo) bool { time.Sleep(20 * time.Second); return false }
		f := w.forks(opts)
		f.says("A", 180, "")
		f.says("A", 200, answerSDP)
		bye := f.at["A"].next("BYE")
		require.Error(t, f.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, 1, testkit.Held(w.stacks[0]).Releasing)
		result := began(func() error { return w.stacks[0].Shutdown(context.Background()) })
		time.Sleep(time.Second)
		require.Empty(t, result, "the BYE is not answered")
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		require.Zero(t, testkit.Held(w.stacks[0]).Releasing)
	})
}

// A peer that answers with ever new tags makes the stack hold 64 calls besides
// the one, not one for each answer (RFC 3261 13.2.2.4 as far as a proxy forks).
func TestTheNumberOfForksThatAnswerIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for i := range 101 {
			l.answer(dialogtest.Response{Code: 200, ToTag: fmt.Sprint("t", i), Body: answerSDP})
		}
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, 64, a.Stats().Releasing)
		require.Equal(t, uint64(36), a.Stats().Dropped["answers"])
		acked, released := make(map[string]bool), make(map[string]bool)
		for method, tags := range map[string]map[string]bool{"ACK": acked, "BYE": released} {
			for _, m := range w.sent(stackIP, method) {
				tags[testkit.ToTag(m.msg)] = true
			}
		}
		require.Len(t, acked, 65)
		require.Len(t, released, 64)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		acks := len(w.sent(stackIP, "ACK"))
		l.answer(dialogtest.Response{Code: 200, ToTag: "t64", Body: answerSDP})
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "ACK"), acks+1, "a repeated 2xx of one that is known")
		for range 64 {
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Zero(t, a.Stats().Releasing)
	})
}

// FT10: a fork may be declined while a PRACK is being written in it. The BYE has the
// higher CSeq, and leaves behind it.
func TestTheByeToAForkFollowsThePRACKThatIsBeingWritten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		writing, written := make(chan struct{}), make(chan struct{})
		f := w.forks(offer(offerSDP), reliability(dialog.ReliableSupported), func(c *dialog.StackConfig) {
			c.Trace = func(e dialog.TraceEvent) {
				if e.Outbound && strings.HasPrefix(string(e.Data), "PRACK ") {
					close(writing)
					<-written
				}
			}
		})
		f.says("A", 183, "", reliably(1)...)
		<-writing
		f.says("B", 200, answerSDP)
		f.says("A", 200, answerSDP)
		require.Equal(t, "A", testkit.ToTag(f.at["A"].next("ACK").Message))
		require.Empty(t, w.sent(stackIP, "BYE"))
		close(written)
		prack, bye := f.at["A"].next("PRACK"), f.at["A"].next("BYE")
		require.Less(t, prack.Request().CSeq().SeqNo, bye.Request().CSeq().SeqNo)
		f.at["A"].reply(prack, dialogtest.Response{Code: 481})
		f.at["A"].reply(bye, dialogtest.Response{Code: 200})
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("B")
	})
}
