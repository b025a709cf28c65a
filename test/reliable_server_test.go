package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// RFC 3262 3: which provisional responses are sent reliably.
func TestProvisionalResponsesAreReliableWhereTheCallerAllowsIt(t *testing.T) {
	sdp, mark := withSDP(answerSDP), dialog.WithReliable()
	for _, c := range []struct {
		name     string
		caller   string
		set      dialog.Reliability
		opts     []dialog.ResponseOpt
		reliable bool
	}{
		{"demanded", demands, dialog.ReliableSupported, nil, true},
		{"known, with a body", knows, dialog.ReliableSupported, []dialog.ResponseOpt{sdp}, true},
		{"known, and asked for", knows, dialog.ReliableSupported, []dialog.ResponseOpt{mark}, true},
		{"known, and we insist", knows, dialog.ReliableRequired, []dialog.ResponseOpt{sdp}, true},
		{"known, but worth nothing", knows, dialog.ReliableSupported, nil, false},
		{"known, but off", knows, dialog.ReliableOff, []dialog.ResponseOpt{sdp, mark}, false},
		{"not known", "Supported: timer", dialog.ReliableSupported, []dialog.ResponseOpt{sdp, mark}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP, reliability(c.set), func(s *dialog.StackConfig) { s.NoAutoRinging = true }), w.peer(peerIP)
				calls := make(chan dialog.IDialog, 1)
				b.OnIncomingDialog(func(d dialog.IDialog) { calls <- d })
				require.NoError(t, p.Send(b.Addr(), p.Request(dialogtest.Request{
					Method: "INVITE", URI: "sip:b@" + stackIP, Headers: []string{c.caller}, Body: offerSDP,
				})))
				d := (<-calls).(*dialog.Dialog)
				require.NoError(t, d.Provisional(context.Background(), 183, "", c.opts...))
				p.next("183 INVITE")
				synctest.Wait()
				sent := w.sent(stackIP, "183 INVITE")[0]
				if c.reliable {
					require.Equal(t, "100rel", sent.value(t, "Require"))
					require.NotZero(t, testkit.RSeq(sent.msg))
					require.Less(t, testkit.RSeq(sent.msg), uint32(1<<31))
				} else {
					require.Empty(t, sent.values("Require"))
					require.Empty(t, sent.values("RSeq"))
				}
				require.Empty(t, w.one(stackIP, "100 INVITE").values("RSeq"), "100 is never reliable")
				require.NoError(t, d.Reject(context.Background(), 486, ""))
			})
		})
	}
}

// RFC 3262 3: T1, doubling without a cap, until the PRACK; 504 after 64*T1. A
// PRACK that crosses the 504 gets its 200.
func TestProvisionalThatIsNeverAcknowledgedEndsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		accepted := began(func() error { return l.d.Accept(context.Background()) })
		p.next("504 INVITE")
		require.ErrorIs(t, <-accepted, dialog.ErrAnswered)
		synctest.Wait()
		at := func(list ...float64) (times []time.Duration) {
			for _, s := range list {
				times = append(times, time.Duration(s*float64(time.Second)))
			}
			return times
		}
		sent := w.sent(stackIP, "183 INVITE")
		require.Equal(t, at(0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5), times(sent))
		require.Equal(t, sent[0].raw, sent[6].raw)
		require.Equal(t, 32*time.Second, w.one(stackIP, "504 INVITE").at.Sub(sent[0].at))
		cause := l.d.Cause()
		require.Equal(t, dialog.PartyTimeout, cause.By)
		require.Equal(t, "PRACK", cause.Method)
		require.ErrorIs(t, cause.Err, dialog.ErrTimeout)

		l.ask("PRACK", withHeaders(fmt.Sprintf("RAck: %d 1 INVITE", testkit.RSeq(early)+1)))
		p.next("481 PRACK")
		l.pracked(early)
		time.Sleep(33 * time.Second)
		l.prack(early)
		p.next("481 PRACK")
		l.settled(b)
	})
}

// RFC 3262 3: the PRACK ends the repetition; the same one again gets the same
// answer, and a new one for the same response 481.
func TestPRACKEndsTheRepetition(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		text := l.prack(early)
		first := p.next("200 PRACK")
		require.Empty(t, first.Message.Body())
		require.NoError(t, p.Send(b.Addr(), text))
		require.Equal(t, string(first.Data), string(p.next("200 PRACK").Data))
		l.prack(early)
		p.next("481 PRACK")
		p.quiet("183 INVITE", 10*time.Second)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		p.next("486 INVITE")
		l.settled(b)
	})
}

// RFC 3262 7.2, 3: what is no RAck gets 400, what fits nothing 481, and neither
// ends the repetition.
func TestPRACKThatFitsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.ask("PRACK", withHeaders("RAck: 0 0 INVITE"))
		p.next("481 PRACK") // nothing has been sent reliably
		l.progress(183, withSDP(answerSDP))
		early := p.next("183 INVITE").Message
		n := testkit.RSeq(early)
		for _, c := range []struct {
			headers []string
			status  int
		}{
			{nil, 400},
			{[]string{"RAck: "}, 400},
			{[]string{"RAck: x 1 INVITE"}, 400},
			{[]string{"RAck: -1 1 INVITE"}, 400},
			{[]string{fmt.Sprintf("RAck: %d INVITE", n)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE x", n)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 4294967297 INVITE", n)}, 400},
			{[]string{rackFor(early), rackFor(early)}, 400},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE", n+1)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 INVITE", n-1)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 2 INVITE", n)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 invite", n)}, 481},
			{[]string{fmt.Sprintf("RAck: %d 1 UPDATE", n)}, 481},
		} {
			l.ask("PRACK", withHeaders(c.headers...))
			require.Equal(t, c.status, p.final("PRACK").StatusCode, "%v", c.headers)
		}
		l.ask("PRACK", withHeaders(rackFor(early)), func(r *dialogtest.Request) { r.ToTag = "nosuch" })
		p.next("481 PRACK")
		l.ask("PRACK", withHeaders(rackFor(early)), func(r *dialogtest.Request) { r.CSeq = 1 })
		p.next("500 PRACK") // RFC 3261 12.2.2
		require.Equal(t, string(p.next("183 INVITE").Data), w.sent(stackIP, "183 INVITE")[0].raw)
		l.ask("PRACK", withHeaders(fmt.Sprintf("RAck:  %d   1\tINVITE", n)))
		p.next("200 PRACK")
		require.NoError(t, l.d.Close())
		l.settled(b)
	})
}

// RFC 3262 3: one after the other, each with the next number; the application
// does not wait for it.
func TestProvisionalResponsesLeaveOneAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		codes := []int{181, 182, 183, 199}
		for _, code := range codes {
			l.progress(code)
		}
		last := w.sent(stackIP, "180 INVITE")[0].msg
		for _, code := range codes {
			time.Sleep(4 * time.Second)
			synctest.Wait()
			require.Empty(t, w.sent(stackIP, fmt.Sprint(code, " INVITE")), "the one before is not acknowledged")
			l.pracked(last)
			next := p.next(fmt.Sprint(code, " INVITE")).Message
			require.Equal(t, testkit.RSeq(last)+1, testkit.RSeq(next))
			last = next
		}
		// A final answer ends the queue; the PRACK may still come.
		l.progress(183)
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
		p.next("200 INVITE")
		l.acknowledge(1)
		l.pracked(last)
		p.quiet("183 INVITE", time.Minute)
		require.Len(t, w.sent(stackIP, "183 INVITE"), 4, "at 0, 0.5, 1.5 and 3.5 s: the later one has never left")
		l.ask("BYE")
		p.next("200 BYE")
		l.settled(b)
	})
}

func TestTheQueueOfProvisionalResponsesIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		for range 16 {
			l.progress(183)
		}
		require.ErrorIs(t, l.d.Provisional(context.Background(), 183, ""), dialog.ErrPending)
		require.NoError(t, l.d.Reject(context.Background(), 486, ""))
		require.ErrorIs(t, l.d.Provisional(context.Background(), 183, ""), dialog.ErrState)
		l.settled(b)
	})
}

// RFC 3262 3: the 2xx waits for the PRACK of a response with a session
// description; ctx bounds the waiting, and the call goes on.
func TestAcceptWaitsForThePRACKOfASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		first := w.sent(stackIP, "180 INVITE")[0].msg
		l.progress(183, withSDP(answerSDP)) // behind the 180
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		require.ErrorIs(t, l.d.Accept(ctx), context.DeadlineExceeded)
		require.Equal(t, dialog.DialogStateRinging, l.d.State())

		accepted := began(func() error { return l.d.Accept(context.Background()) })
		l.pracked(first)
		early := p.next("183 INVITE").Message
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Empty(t, w.sent(stackIP, "200 INVITE"))
		l.pracked(early)
		require.Empty(t, p.next("200 INVITE").Message.Body())
		require.NoError(t, <-accepted)
		l.acknowledge(1)
		synctest.Wait()
		p.quiet("183 INVITE", 5*time.Second)
		l.hangUp(p)
		l.settled(b)
	})
}

// RFC 3262 3: without a session description the 2xx waits for nothing, and a
// PRACK that crosses it gets its 200.
func TestAcceptDoesNotWaitForAPRACKWithoutASession(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(knows))
		l.progress(180, dialog.WithReliable())
		early := p.next("180 INVITE").Message
		require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP), dialog.WithReliable()))
		require.Empty(t, value(p.next("200 INVITE").Message, "Require"))
		l.acknowledge(1)
		l.pracked(early)
		l.prack(early)
		p.next("481 PRACK")
		p.quiet("180 INVITE", 5*time.Second)
		l.hangUp(p)
		l.settled(b)
	})
}

// RFC 3262 3: while it rings reliably, it says so every two and a half minutes.
func TestRingingReliablyIsSaidAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 5 * time.Minute }), w.peer(peerIP)
		l := w.rings(b, p, withHeaders(demands))
		first := w.sent(stackIP, "180 INVITE")[0]
		l.pracked(first.msg)
		again := p.next("180 INVITE").Message
		require.Equal(t, testkit.RSeq(first.msg)+1, testkit.RSeq(again))
		l.pracked(again)
		time.Sleep(time.Minute)
		third := p.next("180 INVITE").Message
		require.Equal(t, testkit.RSeq(again)+1, testkit.RSeq(third))
		synctest.Wait()
		require.Equal(t, []time.Duration{0, time.Minute, 210 * time.Second}, times(w.sent(stackIP, "180 INVITE")))
		l.pracked(third)
		p.next("480 INVITE")
		l.settled(b)
	})
}

// FT11: a call that has ended and expects no PRACK takes none for the one that it does
// not expect.
func TestALatePRACKThatNobodyExpectsGets481(t *testing.T) {
	for _, rack := range []string{"0 0 BYE", "0 0 INVITE", "1 1 INVITE", "0 1 INVITE"} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.incoming(w.stack(stackIP), p)
			l.ask("PRACK", withHeaders("RAck: "+rack))
			require.Equal(t, 481, p.final("PRACK").StatusCode)
			l.ask("BYE")
			p.next("200 BYE")
			synctest.Wait()
			l.ask("PRACK", withHeaders("RAck: "+rack))
			require.Equal(t, 481, p.final("PRACK").StatusCode, rack)
		})
	}
}
