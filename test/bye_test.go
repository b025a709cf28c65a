package test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// How a call ends by a BYE, by Hangup or by Close, on either side.

// C1: the remote target is the caller's Contact, not our own.
func TestBYEOfTheCalleeGoesToTheContactOfTheCaller(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, away := w.stack(stackIP), w.peer(peerIP), w.peer(otherIP)
		l := w.incoming(b, p, withHeaders("Contact: <sip:carol@"+otherIP+":5060;x=1>"))
		bye := l.hangUp(away)
		require.Equal(t, "BYE sip:carol@"+otherIP+":5060;x=1 SIP/2.0", bye.startLine())
		require.Equal(t, away.Addr(), bye.to)
	})
}

// C2: in requests of the callee From is the callee and To the caller, with
// the tags of each.
func TestRequestsOfTheCalleeCarryTheTagsTheRightWayRound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		require.NoError(t, l.d.Refer(context.Background(), uri("dora", otherIP), dialog.ReferOpts{}))
		reinvite := began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) })
		l.reply(l.next("INVITE"), dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, <-reinvite)
		l.hangUp(p)
		for i, what := range []string{"REFER", "INVITE", "ACK", "BYE"} {
			m := w.one(stackIP, what)
			require.Equal(t, "<"+l.stackURI+">;tag="+l.stackTag, m.value(t, "From"), what)
			require.Equal(t, "<"+l.peerURI+">;tag="+farTag, m.value(t, "To"), what)
			require.Equal(t, l.callID, m.value(t, "Call-ID"))
			// CSeq counts from our own first request; an ACK has its INVITE's.
			seq := []int{1, 2, 2, 3}[i]
			require.Equal(t, fmt.Sprintf("%d %s", seq, what), m.value(t, "CSeq"))
		}
		require.Equal(t, dialog.DialogKey{CallID: l.callID, LocalTag: l.stackTag, RemoteTag: farTag}, l.d.Key())
	})
}

// C9, RFC 3261 15: the callee's BYE waits for the ACK, or for 64*T1.
func TestBYEOfTheCalleeWaitsForTheACK(t *testing.T) {
	for _, acked := range []bool{true, false} {
		t.Run(strconv.FormatBool(acked), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				l := w.rings(b, p)
				require.NoError(t, l.d.Accept(context.Background()))
				result := began(func() error { return l.d.Bye(context.Background(), "enough") })
				time.Sleep(10 * time.Second)
				require.Empty(t, w.sent(stackIP, "BYE"))
				wait := 32 * time.Second
				if acked {
					l.acknowledge(1)
					wait = 10 * time.Second
				}
				p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
				require.NoError(t, <-result)
				bye := w.one(stackIP, "BYE")
				require.Equal(t, wait, bye.at.Sub(w.sent(stackIP, "200 INVITE")[0].at))
				require.Equal(t, `SIP;text="enough"`, bye.value(t, "Reason"))
				require.Equal(t, "local BYE enough", l.d.Cause().String())
			})
		})
	}
}

// C12: a BYE before the answer is answered 200 and the INVITE 487 (RFC 3261
// 15.1.2).
func TestBYEBeforeTheAnswerEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		l.ask("BYE")
		p.next("200 BYE")
		p.next("487 INVITE")
		synctest.Wait()
		require.Equal(t, l.stackTag, testkit.ToTag(w.one(stackIP, "487 INVITE").msg))
		require.Equal(t, uint32(1), w.one(stackIP, "487 INVITE").msg.CSeq().SeqNo)
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
		require.Equal(t, "remote BYE", l.d.Cause().String())
		require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
		_, ok := b.DialogByKey(l.d.Key())
		require.False(t, ok)
	})
}

// FD2. RFC 3261 12.2.2 refuses a CSeq that is lower than the last one.
func TestByeMayRepeatTheLastCSeq(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		require.Equal(t, 200, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 500, p.ask(b, inside("OPTIONS", 11)).StatusCode, "another method does not")
		require.Equal(t, 500, p.ask(b, inside("BYE", 10)).StatusCode, "a lower one is refused")
		require.Equal(t, dialog.DialogStateEstablished, d.State())
		require.Equal(t, 200, p.ask(b, inside("BYE", 11)).StatusCode)
		<-d.Done()
		require.Equal(t, dialog.PartyRemote, d.Cause().By)
		require.Equal(t, "BYE", d.Cause().Method)
	})
}

// Right after the INVITE, and while that is not answered.
func TestByeMayRepeatTheCSeqOfTheInvite(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		l.ask("BYE", func(r *dialogtest.Request) { r.CSeq = 1 })
		require.Equal(t, 200, l.peer.final("BYE").StatusCode)
		require.Equal(t, 487, l.peer.final("INVITE").StatusCode)
		<-l.d.Done()
	})
}

// D7: any final answer to the BYE ends the dialog, and so does none (RFC 3261
// 15.1.1).
func TestAnyResponseToBYEEndsTheCall(t *testing.T) {
	cases := []struct {
		name  string
		codes []int
		after time.Duration
		err   error
	}{
		{"200", []int{200}, 0, nil},
		{"481", []int{481}, 0, nil},
		{"408", []int{408}, 0, nil},
		{"500", []int{500}, 0, nil},
		{"503", []int{503}, 0, nil},
		{"603", []int{603}, 0, nil},
		{"100 and then 200", []int{100, 200}, 0, nil},
		{"100 and then nothing", []int{100}, 32 * time.Second, dialog.ErrTimeout},
		{"nothing", nil, 32 * time.Second, dialog.ErrTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, p := w.stack(stackIP), w.peer(peerIP)
				l := w.outgoing(a, p)
				seen := watch(l.d)
				start := time.Now()
				result := began(func() error { return l.d.Bye(context.Background(), "bye bye") })
				bye := p.next("BYE")
				require.Equal(t, `SIP;text="bye bye"`, bye.Request().GetHeaders("Reason")[0].Value())
				for _, code := range c.codes {
					p.reply(bye, dialogtest.Response{Code: code})
				}
				require.ErrorIs(t, <-result, c.err)
				require.Equal(t, c.after, time.Since(start))
				synctest.Wait()
				require.Equal(t, dialog.DialogStateTerminated, l.d.State())
				require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, seen.seen())
				_, ok := a.DialogByKey(l.d.Key())
				require.False(t, ok)
				require.NoError(t, l.d.Close())
			})
		})
	}
}

// D7: with the shorter timeout that was configured.
func TestTxTimeoutBoundsTheBYE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.TxTimeout = 3 * time.Second }), w.peer(peerIP)
		l := w.outgoing(a, p)
		start := time.Now()
		require.ErrorIs(t, l.d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, dialog.DialogStateTerminated, l.d.State())
	})
}

// D7: the two sides' BYEs may cross; each gets its 200 (RFC 5407 3.2.1).
func TestBYEsThatCrossAreBothAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.outgoing(a, p)
		result := began(func() error { return l.d.Bye(context.Background(), "") })
		mine := p.next("BYE")
		l.ask("BYE")
		p.next("200 BYE")
		p.reply(mine, dialogtest.Response{Code: 200})
		require.NoError(t, <-result)
		// And one that comes late, for a dialog that is gone.
		l.ask("BYE")
		p.next("200 BYE")
		// Nothing else is taken there any more.
		l.ask("INFO")
		p.next("481 INFO")
	})
}

// RFC 5407 3.2.1, 3.2.2: while our BYE is on its way a BYE gets 200, anything
// else 481; and so it is for 64*T1 after the end.
func TestMortalDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
		d, inside := w.called(b, p, answerSDP)
		require.NoError(t, d.Close())
		bye := p.next("BYE")
		require.Equal(t, 481, p.ask(b, inside("INFO", 11)).StatusCode)
		require.Equal(t, 481, p.ask(b, inside("INVITE", 12, contactOfPeer)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 13)).StatusCode)
		require.Equal(t, 200, p.ask(b, inside("BYE", 14)).StatusCode, "the dialog is buried, but a BYE may still come")
		require.Equal(t, 481, p.ask(b, inside("INFO", 15)).StatusCode)
		p.reply(bye, dialogtest.Response{Code: 200})
		time.Sleep(33 * time.Second) // on the fake clock: 64*T1
		require.Equal(t, 481, p.ask(b, inside("BYE", 16)).StatusCode)
	})
}

// Bye of a call that had ended, with an error, returned that error again.
func TestByeAfterTheEndIsNoError(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		d, _ := w.toPeer(w.stack(stackIP), w.peer(peerIP))
		require.ErrorIs(t, d.Bye(context.Background(), ""), dialog.ErrTimeout)
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// Hangup ends a call in any state, by what that state has for it.
func TestHangupEndsACallInAnyState(t *testing.T) {
	ctx := context.Background()
	t.Run("trying", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
			d, err := a.NewInvite(ctx, uri("bob", "10.0.0.9"), offer(offerSDP))
			require.NoError(t, err)
			invite := p.next("INVITE")
			result := began(func() error { return d.(*dialog.Dialog).Hangup(ctx) })
			synctest.Wait()
			require.Empty(t, w.sent("10.0.0.1", "CANCEL"), "RFC 3261 9.1: not before a response")
			p.reply(invite, dialogtest.Response{Code: 100})
			p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
			p.reply(invite, dialogtest.Response{Code: 487, ToTag: "x"})
			require.NoError(t, <-result)
			<-d.(*dialog.Dialog).Done()
		})
	})
	t.Run("ringing here", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			calls := waiting(b)
			require.NoError(t, p.Send(b.Addr(), p.Request(p.invite("rings"))))
			d := <-calls
			require.NoError(t, d.Hangup(ctx))
			require.Equal(t, 480, p.final("INVITE").StatusCode)
			<-d.Done()
		})
	})
	for name, caller := range map[string]bool{"established, by the caller": true, "established, by the callee": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				first, second := w.established(w.stack("10.0.0.1"), w.stack("10.0.0.2"))
				if !caller {
					first, second = second, first
				}
				require.NoError(t, first.Hangup(ctx))
				<-second.Done()
				require.Equal(t, dialog.Cause{By: dialog.PartyRemote, Method: "BYE"}, second.Cause())
				require.Equal(t, dialog.PartyLocal, first.Cause().By)
				require.NoError(t, first.Hangup(ctx), "it has ended")
				require.NoError(t, second.Hangup(ctx))
			})
		})
	}
}

// Hangup used to ask whether the call was answered and then act: an Accept in
// between left the call standing.
func TestHangupAgainstAcceptEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		for range 50 {
			_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
			require.NoError(t, err)
			call := <-calls
			accepted := make(chan error, 1)
			go func() { accepted <- call.Accept(context.Background(), withSDP(answerSDP)) }()
			require.NoError(t, call.Hangup(context.Background()))
			require.Equal(t, dialog.DialogStateTerminated, call.State())
			if err := <-accepted; err != nil && !errors.Is(err, dialog.ErrAnswered) {
				require.ErrorIs(t, err, dialog.ErrState)
			}
		}
	})
}

// A9: Close any number of times, at once, from callbacks and by another
// reference: one end, one BYE.
func TestCloseMayBeCalledAnyNumberOfTimes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		caller, callee := w.established(a, b)
		found, ok := a.DialogByKey(caller.Key())
		require.True(t, ok)
		ends, done := watch(caller), caller.Done()
		caller.OnStateChange(func(dialog.DialogState) { _ = caller.Close() })
		callee.OnStateChange(func(dialog.DialogState) { _ = callee.Close() })
		atOnce(50, func(i int) {
			d := []*dialog.Dialog{caller, found}[i%2]
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if d.State() != dialog.DialogStateTerminated {
				t.Errorf("closed, but %v", d.State())
			}
		})
		synctest.Wait()
		require.Equal(t, []dialog.DialogState{dialog.DialogStateTerminated}, ends.seen())
		require.Len(t, w.sent("10.0.0.1", "BYE"), 1)
		require.Empty(t, w.sent("10.0.0.2", "BYE"))
		require.NoError(t, callee.Close())
		select {
		case <-done:
		default:
			require.Fail(t, "not done")
		}
	})
}

// A9: Close crosses every other way a call can end.
func TestCloseCrossesTheOtherWaysToEndACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		for range 20 {
			caller, callee := w.established(a, b)
			atA, atB := watch(caller), watch(callee)
			ctx := context.Background()
			ways := []func(){
				func() { _ = caller.Close() }, func() { _ = caller.Bye(ctx, "") }, func() { _ = callee.Close() },
				func() { _ = callee.Bye(ctx, "") }, func() { _ = callee.Hangup(ctx) },
			}
			atOnce(len(ways), func(i int) { ways[i]() })
			synctest.Wait()
			once := []dialog.DialogState{dialog.DialogStateTerminated}
			require.Equal(t, once, atA.seen())
			require.Equal(t, once, atB.seen())
		}
	})
}

// The same for a BYE: both ends know that the call is over.
func TestAByeRepeatedOnANewConnectionEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		caller, callee := w.breaks("BYE")
		require.NoError(t, caller.Bye(context.Background(), ""))
		<-callee.Done()
		require.Equal(t, dialog.PartyLocal, caller.Cause().By)
		require.Equal(t, dialog.PartyRemote, callee.Cause().By)
	})
}
