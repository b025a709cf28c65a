package test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The early dialogs of one INVITE, side by side.

// forked is a call whose forks the test plays, each at a host of its own.
type forked struct {
	*peerCall
	at map[string]*peer

	mu   sync.Mutex // guards the field below
	told []string
}

// forks has the stack call the peer, which will answer as several.
func (w *world) forks(opts dialog.InviteOpts, change ...func(*dialog.StackConfig)) *forked {
	w.t.Helper()
	a, p := w.stack(stackIP, change...), w.peer(peerIP)
	f := &forked{at: map[string]*peer{"A": w.peer("10.0.0.21"), "B": w.peer("10.0.0.22")}}
	opts.Setup = func(d *dialog.Dialog) { d.OnFork(f.tell) }
	f.peerCall = w.calls(a, p, opts)
	return f
}

func (f *forked) tell(info dialog.ForkInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := fmt.Sprint(info.RemoteTag, " ", info.Status)
	if info.Ended {
		line += " ended"
	}
	f.told = append(f.told, line)
}

// heard returns what OnFork was told.
func (f *forked) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.told...)
}

// says answers the INVITE as one of the forks, through that fork's own proxy.
func (f *forked) says(tag string, code int, body string, headers ...string) {
	f.t.Helper()
	host := f.at[tag].Addr().String()
	f.answer(dialogtest.Response{Code: code, ToTag: tag, Body: body, Headers: append([]string{
		"Contact: <sip:" + tag + "@" + host + ">", "Record-Route: <sip:" + host + ";lr>",
	}, headers...)})
	synctest.Wait()
}

// asks sends a request from a fork and returns the stack's final answer.
func (f *forked) asks(tag, method string, seq uint32, change ...func(*dialogtest.Request)) *sip.Response {
	f.t.Helper()
	at := f.at[tag]
	r := f.made(method, change...)
	r.FromTag, r.CSeq = tag, seq
	require.NoError(f.t, at.Send(f.stack, at.Request(r)))
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		in, err := at.Recv(ctx)
		cancel()
		require.NoError(f.t, err, "the answer to %s", method)
		if res := in.Response(); res != nil && res.CSeq().SeqNo == seq && res.StatusCode >= 200 {
			return res
		}
	}
}

// over hangs the answered call up, and lets its transactions end.
func (f *forked) over(tag string) {
	f.t.Helper()
	result := began(func() error { return f.d.Bye(context.Background(), "") })
	f.at[tag].reply(f.at[tag].next("BYE"), dialogtest.Response{Code: 200})
	require.NoError(f.t, <-result)
	f.empty()
}

// refused has a fork refuse the call, of which nothing is left then.
func (f *forked) refused(tag string) {
	f.t.Helper()
	f.says(tag, 486, "")
	require.Error(f.t, f.d.WaitAnswer(context.Background()))
	f.empty()
}

// empty checks that nothing is left once all timers have run out.
func (f *forked) empty() {
	f.t.Helper()
	time.Sleep(3 * time.Minute)
	synctest.Wait()
	require.Zero(f.t, testkit.Held(f.w.stacks[0]))
}

// RFC 3261 12.1.2, 13.2.2.1: each To tag makes an early dialog.
func TestEveryForkIsAnEarlyDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		require.Nil(t, f.d.Forks())
		f.says("A", 180, "")
		f.says("B", 183, answerSDP)
		f.says("A", 183, "")
		list := f.d.Forks()
		require.Len(t, list, 2)
		require.Equal(t, "A", list[0].RemoteTag)
		require.Equal(t, 183, list[0].Status)
		require.Nil(t, list[0].Body)
		require.Equal(t, "A", list[0].RemoteTarget.User)
		require.Equal(t, "B", list[1].RemoteTag)
		require.Equal(t, "B", list[1].RemoteTarget.User)
		require.Equal(t, answerSDP, string(list[1].Body.Data()))
		require.Equal(t, "A", f.d.Key().RemoteTag, "the first is the call's, until one answers")

		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Nil(t, f.d.Forks())
		require.Equal(t, "B", f.d.Key().RemoteTag)
		require.Equal(t, []string{"A 180", "B 183", "A 183", "A 183 ended", "B 200"}, f.heard())
		require.Equal(t, "B", testkit.ToTag(f.at["B"].next("ACK").Message))
		require.Equal(t, 481, f.asks("A", "INFO", 5).StatusCode, "the loser is over")
		f.over("B")
	})
}

// The copies that Forks hands out are the caller's own.
func TestForkInfoIsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "", "Contact: <sip:x@10.0.0.21;a=b>")
		list := f.d.Forks()
		list[0].RemoteTarget.UriParams.Add("c", "d")
		list[0].Status = 0
		require.Equal(t, 180, f.d.Forks()[0].Status)
		require.False(t, f.d.Forks()[0].RemoteTarget.UriParams.Has("c"))
		f.refused("A")
	})
}

// RFC 3261 12.2.2: the peer's CSeq counts for each fork.
func TestRequestsInEarlyDialogsAreOrderedForEachFork(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "")
		f.says("B", 180, "")
		require.Equal(t, 200, f.asks("A", "INFO", 100).StatusCode)
		require.Equal(t, 200, f.asks("B", "INFO", 7).StatusCode)
		require.Equal(t, 500, f.asks("B", "OPTIONS", 6).StatusCode)
		require.Equal(t, 500, f.asks("A", "OPTIONS", 99).StatusCode)
		require.Equal(t, 200, f.asks("B", "UPDATE", 8, withHeaders("Contact: <sip:moved@10.0.0.22:5060>")).StatusCode)
		require.Equal(t, "A", f.d.Info().RemoteTarget.User)
		require.Equal(t, "moved", f.d.Forks()[1].RemoteTarget.User)
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		require.Equal(t, 500, f.asks("A", "INFO", 100).StatusCode)
		f.over("A")
	})
}

// RFC 3311 5.2: two UPDATEs in one early dialog are in each other's way, those in
// two are not; and they are answered when their fork is over.
func TestUpdatesInTwoForksAreApart(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(f *forked)
		left string
	}{
		"another answers": {func(f *forked) { f.says("B", 200, answerSDP) }, "B"},
		"it hangs up":     {func(f *forked) { require.Equal(f.t, 200, f.asks("A", "BYE", 9).StatusCode) }, ""},
		"it is ended":     {func(f *forked) { f.says("A", 199, "") }, ""},
		"all are refused": {func(f *forked) { f.says("B", 486, "") }, ""},
		"it is closed":    {func(f *forked) { _ = f.d.Close(); f.says("B", 487, "") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := w.forks(dialog.InviteOpts{})
				f.d.OnOffer(func(ctx context.Context, _ dialog.Body) (dialog.Body, error) { <-ctx.Done(); return nil, nil })
				f.says("A", 180, "")
				f.says("B", 180, "")
				for _, tag := range []string{"A", "B"} {
					r := f.made("UPDATE", withBody(offerSDP))
					r.FromTag, r.CSeq = tag, 2
					require.NoError(t, f.at[tag].Send(f.stack, f.at[tag].Request(r)))
				}
				synctest.Wait()
				require.Empty(t, w.sent(stackIP, "500 UPDATE"))
				require.Equal(t, 500, f.asks("A", "UPDATE", 3).StatusCode)
				c.end(f)
				synctest.Wait()
				require.Equal(t, 481, f.at["A"].final("UPDATE").StatusCode)
				if c.left == "" {
					_ = f.d.Close()
					f.says("B", 487, "")
					f.empty()
					return
				}
				require.Equal(t, 504, f.at[c.left].final("UPDATE").StatusCode)
				f.over(c.left)
			})
		})
	}
}

// A BYE ends its own early dialog and no other (RFC 3261 12.3, 15).
func TestByeOfAnEarlyForkEndsThatForkOnly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "")
		f.says("B", 180, "")
		require.Equal(t, 200, f.asks("A", "BYE", 1, withHeaders(`Reason: SIP;cause=480;text="gone"`)).StatusCode)
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		require.Equal(t, "B", f.d.Key().RemoteTag, "the call's own is one that lives")
		require.True(t, f.d.Forks()[0].Ended)
		require.Equal(t, []dialog.Reason{{Protocol: "SIP", Cause: 480, Text: "gone"}}, f.d.Forks()[0].Reasons)
		require.Equal(t, 481, f.asks("A", "BYE", 2).StatusCode)
		require.Empty(t, w.sent(stackIP, "CANCEL"))
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("B")
	})
}

// It meets the answer of the other fork, either way round.
func TestByeOfAnEarlyForkWhileTheOtherAnswers(t *testing.T) {
	for _, byeFirst := range []bool{true, false} {
		bubble(t, func(t *testing.T, w *world) {
			f := w.forks(offer(offerSDP))
			f.says("A", 180, "")
			if !byeFirst {
				f.says("B", 200, answerSDP)
			}
			status := f.asks("A", "BYE", 1).StatusCode
			if byeFirst {
				require.Equal(t, 200, status)
				f.says("B", 200, answerSDP)
			} else {
				require.Equal(t, 481, status)
			}
			require.NoError(t, f.d.WaitAnswer(context.Background()))
			require.Equal(t, dialog.DialogStateEstablished, f.d.State())
			f.over("B")
		})
	}
}

// The INVITE is still open after the BYE of the only fork: another branch may
// answer, and what ends the call is its final response, or the ringing limit.
func TestByeOfTheOnlyForkLeavesTheCallRinging(t *testing.T) {
	for name, c := range map[string]struct {
		then func(f *forked)
		by   dialog.Party
	}{
		"487":           {func(f *forked) { f.says("A", 487, "") }, dialog.PartyRemote},
		"ringing limit": {func(f *forked) { f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200}); f.says("A", 487, "") }, dialog.PartyTimeout},
		"2xx all the same": {func(f *forked) {
			f.says("A", 200, answerSDP)
			f.at["A"].next("ACK")
			f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 481})
		}, dialog.PartyRemote},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				f := w.forks(offer(offerSDP), func(c *dialog.StackConfig) { c.RingingLimit = time.Minute })
				f.says("A", 180, "")
				require.Equal(t, 200, f.asks("A", "BYE", 1).StatusCode)
				synctest.Wait()
				require.Equal(t, dialog.DialogStateRinging, f.d.State())
				_, err := f.d.Update(context.Background(), nil)
				require.ErrorIs(t, err, dialog.ErrState, "there is nobody to ask")
				c.then(f)
				require.Error(t, f.d.WaitAnswer(context.Background()))
				require.Equal(t, c.by, f.d.Cause().By)
				f.empty()
			})
		})
	}
}

// An UPDATE in an early dialog that ended, and then answers all the same (RFC 6228
// 4), is over there too: another may follow.
func TestUpdateOfAForkThatEndsAndThenAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.says("A", 180, "")
		f.says("B", 180, "")
		first := began(func() error { _, err := f.d.Update(context.Background(), nil); return err })
		in := f.at["A"].next("UPDATE")
		f.says("A", 199, "")
		f.at["A"].reply(in, dialogtest.Response{Code: 200})
		require.NoError(t, <-first)
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		second := began(func() error { _, err := f.d.Update(context.Background(), ourSession()); return err })
		f.at["A"].reply(f.at["A"].next("UPDATE"), dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-second)
		f.over("A")
	})
}

// FT4: a PRACK that the peer does not know ends its early dialog (RFC 5057 5.1), for
// good: should that answer all the same, it is released, and the call goes on.
func TestAForkWhosePRACKFailedAndThatAnswersIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP), reliability(dialog.ReliableSupported))
		f.says("B", 180, "")
		f.says("A", 183, "", reliably(1)...)
		f.at["A"].reply(f.at["A"].next("PRACK"), dialogtest.Response{Code: 481})
		synctest.Wait()
		require.True(t, f.d.Forks()[1].Ended)
		f.says("A", 200, answerSDP)
		require.Equal(t, "A", testkit.ToTag(f.at["A"].next("ACK").Message))
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		require.Equal(t, "B", f.d.Key().RemoteTag)
		f.says("B", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("B")
	})
}

// FT5: a provisional response without a tag makes no dialog, in which nothing can be
// asked (RFC 3261 12.1.1); what is asked in the first that there is has a CSeq
// above the INVITE's.
func TestAResponseWithoutATagMakesNoEarlyDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		f.reply(f.invite, dialogtest.Response{Code: 180})
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		for _, ours := range []action{touches, informs, reInvites, refers} {
			require.ErrorIs(t, ours.do(context.Background(), f.d), dialog.ErrState, ours.name)
		}
		f.says("A", 183, "")
		for seq, ours := range []action{informs, touches} {
			result := began(func() error { return ours.do(context.Background(), f.d) })
			in := f.at["A"].next(ours.name)
			require.Equal(t, fmt.Sprint(seq+2, " ", ours.name), testkit.Value(in.Message, "CSeq"))
			f.at["A"].reply(in, dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		}
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("A")
		require.Equal(t, "4 BYE", w.one(stackIP, "BYE").value(t, "CSeq"))
	})
}

// Requests of ours in an early dialog.

var informs = action{"INFO", func(ctx context.Context, d *dialog.Dialog) error {
	return d.SendDTMF(ctx, '5', dialog.DTMFOpts{})
}}

// RFC 5057 5.1, RFC 3261 12.3: a request that the peer does not know, or does not
// answer, ends its early dialog, and the call when there is no other. Other
// failures end nothing.
func TestARequestThatFailsEndsItsEarlyDialogOnly(t *testing.T) {
	for _, ours := range []action{touches, informs} {
		for _, code := range []int{481, 404, 0, 488} {
			for _, alone := range []bool{true, false} {
				t.Run(fmt.Sprint(ours.name, code, alone), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) { failsEarly(w, ours, code, alone) })
				})
			}
		}
	}
}

func failsEarly(w *world, ours action, code int, alone bool) {
	f := w.forks(offer(offerSDP))
	f.says("A", 180, "")
	if !alone {
		f.says("B", 180, "")
	}
	result := began(func() error { return ours.do(context.Background(), f.d) })
	in := f.at["A"].next(ours.name)
	require.Equal(w.t, "2 "+ours.name, testkit.Value(in.Message, "CSeq"))
	if code != 0 {
		f.at["A"].reply(in, dialogtest.Response{Code: code})
	}
	require.Error(w.t, <-result)
	synctest.Wait()
	ends := code != 488
	if ends && alone {
		f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200})
		f.says("A", 487, "")
		require.Error(w.t, f.d.WaitAnswer(context.Background()))
		require.Equal(w.t, ours.name, f.d.Cause().Method)
		f.empty()
		return
	}
	require.Equal(w.t, dialog.DialogStateRinging, f.d.State())
	require.Equal(w.t, ends, f.d.Forks()[0].Ended)
	tag := map[bool]string{true: "A", false: "B"}[alone]
	f.says(tag, 200, answerSDP)
	require.NoError(w.t, f.d.WaitAnswer(context.Background()))
	f.over(tag)
}

// RFC 6086 4.2.1: an INFO needs a dialog, which may be early; keys are pressed
// before the answer to those who announce something. Either side may.
func TestKeysInAnEarlyDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := placed.(*dialog.Dialog), <-calls
		synctest.Wait()
		var keys []rune
		for _, d := range []*dialog.Dialog{caller, callee} {
			d.OnDTMF(func(key dialog.DTMF) { keys = append(keys, key.Digit) })
		}
		require.NoError(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}))
		synctest.Wait()
		require.NoError(t, callee.SendDTMF(context.Background(), '2', dialog.DTMFOpts{}))
		synctest.Wait()
		require.Equal(t, []rune("12"), keys)
		var wrong *dialog.StateError
		require.ErrorAs(t, caller.SendMessage(context.Background(), nil), &wrong, "only INFO")
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.ErrorAs(t, caller.SendDTMF(context.Background(), '3', dialog.DTMFOpts{}), &wrong)
		w.nothingLeft()
	})
}

// Before the peer has a tag there is no dialog.
func TestNoKeysWithoutADialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		var wrong *dialog.StateError
		require.ErrorAs(t, f.d.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), &wrong)
		f.answer(dialogtest.Response{Code: 100})
		synctest.Wait()
		require.ErrorAs(t, f.d.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), &wrong)
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("A")
	})
}

// D5: the first 2xx makes the call; the 2xx of another fork is acknowledged and
// released with its own tag, route and target (RFC 3261 13.2.2.4).
func TestFurtherForkIsAcknowledgedAndReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		one, two, proxy := w.peer("10.0.0.21"), w.peer("10.0.0.22"), w.peer(proxyIP)
		l := w.calls(a, p, offer(offerSDP))
		fork := func(code int, tag, host, route string) {
			l.answer(dialogtest.Response{Code: code, ToTag: tag, Body: answerSDP, Headers: []string{
				"Contact: <sip:" + tag + "@" + host + ":5060>", "Record-Route: <sip:" + route + ":5060;lr>",
			}})
			synctest.Wait()
		}
		fork(180, "one", "10.0.0.21", "10.0.0.21")
		require.Equal(t, "one", l.d.Key().RemoteTag)
		fork(180, "two", "10.0.0.22", "10.0.0.22")
		fork(200, "two", "10.0.0.22", "10.0.0.22")
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		require.Equal(t, "two", l.d.Key().RemoteTag)
		ack := two.next("ACK")
		require.Equal(t, "two", testkit.ToTag(ack.Message))

		fork(200, "one", "10.0.0.21", proxyIP)
		released := proxy.next("ACK")
		bye := proxy.next("BYE")
		for _, got := range []dialogtest.Received{released, bye} {
			req := got.Request()
			require.Equal(t, "sip:one@10.0.0.21:5060", req.Recipient.String())
			require.Equal(t, "one", testkit.ToTag(req))
			require.Equal(t, l.stackTag, testkit.FromTag(req))
			require.Equal(t, "<sip:"+proxyIP+":5060;lr>", req.GetHeaders("Route")[0].Value())
		}
		require.Equal(t, "1 ACK", released.Request().CSeq().Value())
		require.Equal(t, "2 BYE", bye.Request().CSeq().Value())
		// The same 2xx again gets the same ACK again, and no second BYE.
		fork(200, "one", "10.0.0.21", proxyIP)
		require.Equal(t, string(released.Data), string(proxy.next("ACK").Data))
		proxy.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "BYE"), 1)

		// The call itself noticed nothing.
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Equal(t, "two", l.d.Key().RemoteTag)
		one.quiet("BYE", time.Second)
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		last := two.next("BYE")
		require.Equal(t, "2 BYE", last.Request().CSeq().Value())
		require.Equal(t, "two", testkit.ToTag(last.Message))
		require.Equal(t, "sip:two@10.0.0.22:5060", last.Request().Recipient.String())
		two.reply(last, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
	})
}

// D5: a fork that answers while the call is given up is released as well.
func TestForksOfAGivenUpCallAreAllReleased(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, ToTag: "one"})
		synctest.Wait()
		require.NoError(t, l.d.Close())
		for _, tag := range []string{"one", "two", "three"} {
			l.answer(dialogtest.Response{Code: 200, ToTag: tag, Body: answerSDP})
			require.Equal(t, tag, testkit.ToTag(p.next("ACK").Message))
			bye := p.next("BYE")
			require.Equal(t, tag, testkit.ToTag(bye.Message))
			p.reply(bye, dialogtest.Response{Code: 200})
		}
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "BYE"), 3)
	})
}

// D5, RFC 3261 12.1.2: the peer's CSeq is counted anew for the fork that answers.
func TestForkThatAnswersCountsItsOwnRequests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		l.answer(dialogtest.Response{Code: 180, ToTag: "one"})
		synctest.Wait()
		l.ask("INFO", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "one", 100 })
		p.next("200 INFO")
		l.answer(dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.ask("BYE", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "two", 1 })
		p.next("200 BYE")
	})
}

// The CSeq numbers of other forks, known or not, made requests of the selected fork fail (RFC
// 3261 12.1.2).
func TestRequestsOfOtherForksDoNotCountForTheOneThatAnswers(t *testing.T) {
	for name, ringing := range map[string]string{"nobody rang": "", "the one that answers rang": "B", "another one rang": "A"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.calls(a, p, offer(offerSDP))
				if ringing != "" {
					l.answer(dialogtest.Response{Code: 180, ToTag: ringing})
					synctest.Wait()
				}
				l.ask("OPTIONS", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "A", 100 })
				p.next("200 OPTIONS")
				l.answer(dialogtest.Response{Code: 200, ToTag: "B", Body: answerSDP})
				require.NoError(t, l.d.WaitAnswer(context.Background()))
				l.ask("BYE", func(r *dialogtest.Request) { r.FromTag, r.CSeq = "B", 2 })
				p.next("200 BYE")
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
			})
		})
	}
}

// A further fork's 2xx that comes again after the fork has been released used
// to release it once more, with the CSeq of the first BYE.
func TestAForkIsReleasedOnceHoweverOftenItAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		call := w.calls(a, p, offer(offerSDP))
		d, invite := call.d, call.invite
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "one", Body: answerSDP})
		p.next("ACK")
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		synctest.Wait()
		p.reply(invite, dialogtest.Response{Code: 200, ToTag: "two", Body: answerSDP})
		p.next("ACK")
		p.quiet("BYE", 2*time.Second)
		hangUp(t, d, p)
	})
}

// D1: requests inside the early dialog find it too.
func TestRequestsInTheEarlyDialogFindTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.alerting(a, p)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Equal(t, farTag, l.d.Key().RemoteTag)
		l.ask("INFO")
		p.next("200 INFO")
		// ANSWERS: an INVITE while our own is pending.
		require.Equal(t, "SIP/2.0 491 Request Pending", l.reinvites(withBody(offerSDP)).startLine())
		// A REFER needs an established call.
		l.ask("REFER", withHeaders("Refer-To: <sip:dora@"+otherIP+">"))
		p.next("491 REFER")
		l.answer(dialogtest.Response{Code: 486})
		require.Error(t, l.d.WaitAnswer(context.Background()))
	})
}

// RFC 3261 15: our BYE ends one early dialog of ours, and the others go on; a 2xx of it that
// crosses the BYE is released. UPDATE goes to the one that is named (RFC 3311 5.1).
func TestRequestsInAnEarlyDialogThatIsNamed(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		require.ErrorIs(t, f.d.ByeFork(ctx, "A", dialog.ByeOpts{}), dialog.ErrInvalidArgument)
		for _, tag := range []string{"A", "B"} {
			f.says(tag, 183, answerSDP, "Require: 100rel", "RSeq: 1")
			f.at[tag].reply(f.at[tag].next("PRACK"), dialogtest.Response{Code: 200, ToTag: tag})
		}
		answers := make(chan dialog.Body, 1)
		updated := began(func() error {
			answer, err := f.d.UpdateFork(ctx, "B", dialog.NewBody("application/sdp", []byte(versioned(held(offerSDP), 2))))
			answers <- answer
			return err
		})
		got := f.at["B"].next("UPDATE")
		require.Equal(t, "B", testkit.ToTag(got.Message))
		f.at["B"].reply(got, dialogtest.Response{Code: 200, ToTag: "B", Body: versioned(answerSDP, 2)})
		require.NoError(t, <-updated)
		require.Equal(t, versioned(answerSDP, 2), string((<-answers).Data()))
		require.Equal(t, offerSDP, string(f.d.Session().Local.Data()), "that of A")

		ended := began(func() error {
			return f.d.ByeFork(ctx, "A", dialog.ByeOpts{Reason: "enough", Headers: []dialog.Header{{Name: "Subject", Value: "x"}}})
		})
		bye := f.at["A"].next("BYE")
		require.Equal(t, `SIP;text="enough"`, testkit.Value(bye.Message, "Reason"))
		require.Equal(t, "x", testkit.Value(bye.Message, "Subject"))
		f.says("A", 200, answerSDP) // it crosses
		f.at["A"].reply(bye, dialogtest.Response{Code: 200, ToTag: "A"})
		require.NoError(t, <-ended)
		f.at["A"].next("ACK")
		f.at["A"].reply(f.at["A"].next("BYE"), dialogtest.Response{Code: 481, ToTag: "A"})
		require.ErrorIs(t, f.d.ByeFork(ctx, "A", dialog.ByeOpts{}), dialog.ErrTerminated)
		require.Equal(t, dialog.DialogStateRinging, f.d.State())
		require.Equal(t, "B", f.d.Key().RemoteTag)

		f.says("B", 200, "")
		require.NoError(t, f.d.WaitAnswer(ctx))
		require.Equal(t, versioned(held(offerSDP), 2), string(f.d.Session().Local.Data()))
		require.ErrorIs(t, f.d.ByeFork(ctx, "B", dialog.ByeOpts{}), dialog.ErrState)
		f.over("B")
	})
}
