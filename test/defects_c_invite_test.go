package test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// The rows C1 to C5 and C12: calls that arrive, until they are answered.

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

// C3: Record-Route is in the 180 and the 2xx once, as it came, and is the
// callee's route in that order.
func TestRecordRouteIsCopiedOnceAndIsTheCalleesRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p, proxy := w.stack(stackIP), w.peer(peerIP), w.peer(proxyIP)
		near, far := "<sip:"+proxyIP+":5060;lr>", "<sip:p2.example:5060;lr>"
		l := w.incoming(b, p, withHeaders("Record-Route: "+near, "Record-Route: "+far))
		for _, what := range []string{"180 INVITE", "200 INVITE"} {
			require.Equal(t, []string{near, far}, w.one(stackIP, what).values("Record-Route"), what)
		}
		bye := l.hangUp(proxy)
		require.Equal(t, []string{near, far}, bye.values("Route"))
		require.Equal(t, "BYE sip:peer@"+peerIP+":5060 SIP/2.0", bye.startLine())
		require.Equal(t, proxy.Addr(), bye.to)
		require.Empty(t, w.one(stackIP, "100 INVITE").values("Record-Route"))
	})
}

// C4: the offer of the INVITE reaches an OnBody that was registered when the
// call was offered; the first to register gets it, once.
func TestOfferOfTheInviteReachesTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		got := make(chan string, 10)
		b.OnIncomingDialog(func(d dialog.IDialog) {
			d.OnBody(func(body dialog.Body) { got <- body.ContentType() + "\n" + string(body.Data()) })
			// OnBody has returned: the kept body has been delivered.
			if len(got) != 1 {
				t.Error("the offer was not delivered when OnBody returned")
			}
			d.OnBody(func(dialog.Body) { t.Error("the offer was delivered twice") })
		})
		require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:s@" + stackIP, Body: offerSDP})))
		p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(got))
	})
}

// C4: it also reaches one that registers after the callback has returned, until it
// is answered: see onbody_test.go.
func TestOfferIsKeptForWhoeverRegistersLater(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		require.Equal(t, []string{"application/sdp\n" + offerSDP}, drained(bodies(l.d)))
		require.Empty(t, drained(bodies(l.d)))
	})
}

// C5: Accept works after OnIncomingDialog has returned, and a retransmitted
// INVITE, before or after, makes no second call.
func TestRetransmittedInviteIsTheSameCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p)
		b.OnIncomingDialog(func(dialog.IDialog) { t.Error("a second call was offered") })
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		again := p.next("180 INVITE")
		synctest.Wait()
		require.Equal(t, w.sent(stackIP, "180 INVITE")[0].raw, string(again.Data))

		time.Sleep(30 * time.Second)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		l.acknowledge(1)
		synctest.Wait()
		require.NoError(t, p.Send(b.Addr(), l.inviteText))
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "180 INVITE"), 2)
		require.Len(t, w.sent(stackIP, "200 INVITE"), 1, "RFC 6026 7.1: absorbed")
		found, ok := b.DialogByKey(l.d.Key())
		require.True(t, ok)
		require.Same(t, l.d, found)
	})
}

// C5: an application that blocks in OnIncomingDialog for ever harms no other
// call, and another goroutine can answer.
func TestAcceptFromElsewhereWhileTheCallbackBlocks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		calls, end := make(chan dialog.IDialog, 2), make(chan struct{})
		defer close(end)
		b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d; <-end })
		for _, id := range []string{"one", "two"} {
			require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{Method: "INVITE", URI: "sip:s@" + stackIP, CallID: id, Branch: "z9hG4bK" + id})))
			p.next("180 INVITE")
			require.NoError(t, (<-calls).Accept(context.Background()))
			require.Equal(t, id, p.next("200 INVITE").Response().CallID().Value())
		}
	})
}

// C12: a call nobody answers gets 480 after the ringing limit, and makes room
// for another. Meanwhile it rings again every minute (RFC 3261 13.3.1.1).
func TestCallNobodyAnswersEndsWithTheRingingLimit(t *testing.T) {
	cases := []struct{ limit, ends time.Duration }{{0, 180 * time.Second}, {100 * time.Second, 100 * time.Second}}
	for _, c := range cases {
		t.Run(c.ends.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b := w.stack(stackIP, func(config *dialog.StackConfig) { config.MaxDialogs, config.RingingLimit = 1, c.limit })
				p, other := w.peer(peerIP), w.peer(otherIP)
				l := w.rings(b, p)
				another := func() {
					require.NoError(t, other.Send(b.Addr(), other.Request(dialogtest.Request{Method: "INVITE", URI: l.stackURI})))
				}
				another()
				other.next("503 INVITE")
				synctest.Wait()
				require.NotEmpty(t, w.one(stackIP, "503 INVITE").value(t, "Retry-After"))

				time.Sleep(c.ends)
				synctest.Wait()
				ringing := w.sent(stackIP, "180 INVITE")
				require.Equal(t, c.ends, w.one(stackIP, "480 INVITE").at.Sub(ringing[0].at))
				want := []time.Duration{0, time.Minute}
				if c.limit == 0 {
					want = append(want, 2*time.Minute)
				}
				// One more may leave at the very moment of the limit.
				require.Equal(t, want, slices.DeleteFunc(times(ringing), func(at time.Duration) bool { return at == c.ends }))
				require.Equal(t, "timeout INVITE", l.d.Cause().String())
				require.ErrorIs(t, l.d.Accept(context.Background()), dialog.ErrTerminated)
				another()
				other.next("180 INVITE")
			})
		})
	}
}

// C12: a negative limit is none.
func TestCallWithoutRingingLimitRingsOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(config *dialog.StackConfig) { config.RingingLimit = -1 }), w.peer(peerIP)
		l := w.rings(b, p)
		time.Sleep(time.Hour + time.Second)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.Len(t, w.sent(stackIP, "180 INVITE"), 61)
		require.NoError(t, l.d.Accept(context.Background()))
	})
}

// C12: a call that is accepted in time has no limit any more.
func TestRingingLimitEndsWithTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.incoming(b, p)
		time.Sleep(time.Hour)
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		require.Len(t, w.sent(stackIP, "180 INVITE"), 1)
		require.Empty(t, w.sent(stackIP, "480 INVITE"))
	})
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
