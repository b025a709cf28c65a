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
			require.Equal(t, fmt.Sprint(seq+2, " ", ours.name), value(in.Message, "CSeq"))
			f.at["A"].reply(in, dialogtest.Response{Code: 200})
			require.NoError(t, <-result)
		}
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("A")
		require.Equal(t, "4 BYE", w.one(stackIP, "BYE").value(t, "CSeq"))
	})
}
