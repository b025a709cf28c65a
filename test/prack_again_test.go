package test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// PRACKs and ACKs that did not get through, and leave once more when the response comes
// again.

// RFC 3261 12.2.2: what was sent after the PRACK has come before it, so it gets 500.
func TestPRACKThatALaterRequestHasOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls, lost := w.progressing(b, answerSDP), false
		w.net.SetPolicy(func(p dialogtest.Packet) []time.Duration {
			if !lost && string(p.Data[:5]) == "PRACK" {
				lost = true
				return nil
			}
			return []time.Duration{time.Millisecond}
		})
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller := placed.(*dialog.Dialog)
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, caller.SendInfo(context.Background(), dialog.NewBody("text/plain", []byte("hello"))))
		require.NoError(t, (<-calls).Accept(context.Background()))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NotEmpty(t, w.sent("10.0.0.2", "500 PRACK"))
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// RFC 6337 2.3: a peer that does not take the offer in a PRACK gets one without;
// an answer goes out again.
func TestPRACKThatIsRefusedIsSentAgain(t *testing.T) {
	for _, code := range []int{488, 500} {
		bubble(t, func(t *testing.T, w *world) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.calls(a, p, proposing(make(chan dialog.ForkInfo, 9)))
			ring := dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)}
			l.answer(ring)
			first := p.next("PRACK")
			require.NotEmpty(t, first.Message.Body())
			p.reply(first, dialogtest.Response{Code: code})
			p.quiet("PRACK", time.Second)
			l.answer(ring)
			second := p.next("PRACK")
			require.Empty(t, second.Message.Body())
			require.Equal(t, "1 1 INVITE", value(second.Message, "RAck"))
			require.Equal(t, "3 PRACK", value(second.Message, "CSeq"))
			p.reply(second, dialogtest.Response{Code: 200})
			l.answer(ring)
			p.quiet("PRACK", time.Second)
			l.answer(dialogtest.Response{Code: 200})
			require.NoError(t, l.d.WaitAnswer(context.Background()))
			l.hangUp(p)
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, dialog.InviteOpts{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return ourSession(), nil })
		ring := dialogtest.Response{Code: 183, Body: offerSDP, Headers: reliably(1)}
		for range 2 {
			l.answer(ring)
			in := p.next("PRACK")
			require.Equal(t, answerSDP, string(in.Message.Body()))
			p.reply(in, dialogtest.Response{Code: 500})
		}
		l.answer(dialogtest.Response{Code: 200})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.hangUp(p)
	})
}

// RFC 3262 3: numbers are those of one transaction: a re-INVITE that goes out again
// with credentials has others, and its offer is open again.
func TestReliableResponsesToAReINVITEThatIsChallenged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP, func(c *dialog.StackConfig) {
			c.Credentials = func(string) (string, string, bool) { return "alice", "secret", true }
		}), p)
		r := l.renegotiates(context.Background(), held(offerSDP))
		r.says(183, held(answerSDP), reliably(70)...)
		r.acknowledged("70 2 INVITE", 200)
		r.says(407, "", `Proxy-Authenticate: Digest realm="far", nonce="n", algorithm=MD5`)
		r.in = p.next("INVITE")
		l.meets("UPDATE", 491)
		r.says(183, answerSDP, reliably(5)...)
		r.acknowledged("5 4 INVITE", 200)
		r.says(200, "")
		require.Empty(t, p.next("ACK").Message.Body())
		require.NoError(t, <-r.ended)
		require.Equal(t, answerSDP, string(r.body.Data()))
		l.stands(p)
	})
}

// A peer that answers no PRACK does not have us keep all that it sends.
func TestPRACKsThatWaitAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(a, p, offer(offerSDP))
		for n := range 40 {
			l.answer(dialogtest.Response{Code: 180 + n%4, Headers: reliably(1 + n)})
		}
		for n := 1; n <= 16; n++ {
			in := p.next("PRACK")
			require.Equal(t, fmt.Sprintf("%d 1 INVITE", n), value(in.Message, "RAck"))
			p.reply(in, dialogtest.Response{Code: 200})
		}
		p.quiet("PRACK", time.Second)
		l.answer(dialogtest.Response{Code: 180, Headers: reliably(17)})
		p.reply(p.next("PRACK"), dialogtest.Response{Code: 200})
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		l.hangUp(p)
	})
}

// The 2xx to the INVITE comes again while the ACK to that of a re-INVITE waits for its
// answer: the first ACK was lost.
func TestACKIsRepeatedWhileAnotherWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		p.next("ACK")
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		r := l.renegotiates(context.Background(), "")
		r.says(200, offerSDP)
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.Equal(t, "1 ACK", value(p.next("ACK").Message, "CSeq"))
		r.says(200, offerSDP)
		p.quiet("ACK", time.Second)
		close(decide)
		require.Equal(t, "2 ACK", value(p.next("ACK").Message, "CSeq"))
		require.NoError(t, <-r.ended)
		l.stands(p)
	})
}
