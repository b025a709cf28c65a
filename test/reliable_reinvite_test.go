package test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Reliable responses to a re-INVITE of ours.

// renegotiated is a re-INVITE of ours that the peer has read: body is what
// Renegotiate returns.
type renegotiated struct {
	*peerCall
	in    dialogtest.Received
	body  dialog.Body
	ended <-chan error
}

func (l *peerCall) renegotiates(ctx context.Context, offer string) *renegotiated {
	l.t.Helper()
	r := &renegotiated{peerCall: l}
	var ours dialog.Body
	if offer != "" {
		ours = dialog.NewBody("application/sdp", []byte(offer))
	}
	r.ended = began(func() (err error) {
		r.body, err = l.d.Renegotiate(ctx, ours)
		return err
	})
	r.in = l.next("INVITE")
	return r
}

// says answers the re-INVITE.
func (r *renegotiated) says(code int, body string, headers ...string) {
	r.t.Helper()
	r.reply(r.in, dialogtest.Response{Code: code, Body: body, Headers: append([]string{contactOfPeer}, headers...)})
}

// acknowledged reads the PRACK to a response, answers it and returns its body.
func (r *renegotiated) acknowledged(rack string, code int) string {
	r.t.Helper()
	in := r.next("PRACK")
	require.Equal(r.t, rack, testkit.Value(in.Message, "RAck"))
	r.reply(in, dialogtest.Response{Code: code})
	return string(in.Message.Body())
}

// The answer in a reliable response is the answer: it moves session and target,
// and the 2xx has none.
func TestReliableResponseAnswersOurReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		got := bodies(l.d)
		r := l.renegotiates(context.Background(), held(offerSDP))
		r.reply(r.in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: append(reliably(7), movedTo("there"))})
		require.Empty(t, r.acknowledged("7 2 INVITE", 200))
		r.reply(r.in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(7)}) // repeated
		p.quiet("PRACK", 100*time.Millisecond)
		require.Equal(t, "there", l.targetUser())
		require.Contains(t, drained(got), "application/sdp\n"+answerSDP)

		// Agreed: an UPDATE may offer anew while the re-INVITE is open.
		l.ask("UPDATE", withBody(offerSDP))
		require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=sendonly", "what we put on hold stays so")

		r.reply(r.in, dialogtest.Response{Code: 200, Headers: []string{movedTo("there")}})
		require.Empty(t, p.next("ACK").Message.Body())
		require.NoError(t, <-r.ended)
		require.Equal(t, answerSDP, string(r.body.Data()))
		l.hangUp(p)
	})
}

func TestUnreliableResponseToOurReINVITEChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		r := l.renegotiates(context.Background(), held(offerSDP))
		before := l.targetUser()
		r.reply(r.in, dialogtest.Response{Code: 183, Body: answerSDP, Headers: []string{movedTo("there")}})
		synctest.Wait()
		require.Equal(t, before, l.targetUser())
		r.says(488, "")
		p.next("ACK")
		require.Error(t, <-r.ended)
		l.ask("UPDATE", withBody(offerSDP))
		require.Contains(t, string(p.next("200 UPDATE").Message.Body()), "a=sendrecv", "nothing is on hold")
		require.Empty(t, w.sent(stackIP, "PRACK"))
		l.hangUp(p)
	})
}

// The offer in a reliable response is answered by its PRACK; the ACK has nothing.
func TestReliableOfferInsideOurReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		decide := make(chan struct{})
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { <-decide; return ourSession(), nil })
		r := l.renegotiates(context.Background(), "")
		r.says(183, offerSDP, reliably(1)...)
		synctest.Wait()

		// It is open: no other offer is allowed.
		_, err := l.d.Update(context.Background(), ourSession())
		require.ErrorIs(t, err, dialog.ErrPending)
		l.meets("UPDATE", 500)
		close(decide)
		require.Equal(t, versioned(answerSDP, 2), r.acknowledged("1 2 INVITE", 200))
		r.says(180, "", reliably(2)...)
		require.Empty(t, r.acknowledged("2 2 INVITE", 200))
		r.says(200, "")
		require.Empty(t, p.next("ACK").Message.Body())
		require.NoError(t, <-r.ended)
		require.Equal(t, offerSDP, string(r.body.Data()))
		l.hangUp(p)
	})
}

// An offer that a PRACK has to refuse ends the call, as one in a 2xx does.
func TestReliableOfferInsideOurReINVITERefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
		r := l.renegotiates(context.Background(), "")
		r.says(183, offerSDP, reliably(1)...)
		require.Contains(t, r.acknowledged("1 2 INVITE", 200), "m=audio 0 ")
		p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
		r.says(487, "")
		require.Error(t, <-r.ended)
		l.settled(w.stacks[0])
	})
}

// RFC 6141 3.4: a refusal that undoes what a reliable response had changed leaves
// the ends apart: the session from before is offered anew.
func TestRefusalThatUndoesAReliableAnswerIsMended(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		r := l.renegotiates(context.Background(), held(offerSDP)+"m=video 4002 RTP/AVP 31\r\n")
		r.says(183, held(answerSDP), reliably(1)...)
		r.acknowledged("1 2 INVITE", 200)
		r.says(403, "")
		p.next("ACK")
		require.Error(t, <-r.ended)
		again := p.next("INVITE")
		body := string(again.Message.Body())
		require.Contains(t, body, "m=audio 4000 RTP/AVP 0 8\r\na=sendrecv")
		require.Contains(t, body, "m=video 0 ", "an m-line is never taken away (RFC 3264 8)")
		require.Contains(t, body, "o=alice 1 3 ", "above the version that was refused")
		p.reply(again, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
		p.next("ACK")
		l.stands(p)
	})
}

// A later agreement of both sides is not undone.
func TestRefusalThatUndoesAReliableAnswerBeforeAnotherOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		r := l.renegotiates(context.Background(), held(offerSDP))
		r.says(183, held(answerSDP), reliably(1)...)
		r.acknowledged("1 2 INVITE", 200)
		r.says(403, "")
		require.Error(t, <-r.ended)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 491})
		l.ask("UPDATE", withBody(answerSDP))
		require.Equal(t, 200, p.final("UPDATE").StatusCode)
		p.quiet("INVITE", time.Minute)
		l.stands(p)
	})
}

// RFC 5057: a PRACK that the peer does not know, or does not answer, ends the call.
func TestPRACKOfOurReINVITEThatFails(t *testing.T) {
	for _, code := range []int{481, 0} {
		bubble(t, func(t *testing.T, w *world) {
			p := w.peer(peerIP)
			l := w.outgoing(w.stack(stackIP), p)
			r := l.renegotiates(context.Background(), offerSDP)
			r.says(183, "", reliably(1)...)
			in := p.next("PRACK")
			if code != 0 {
				p.reply(in, dialogtest.Response{Code: code})
			}
			p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
			r.says(487, "")
			require.Error(t, <-r.ended)
			require.Equal(t, "PRACK", l.d.Cause().Method)
			l.settled(w.stacks[0])
		})
	}
}

// One that is given up gets its PRACK all the same: the peer repeats the response
// until then.
func TestReliableResponseToACancelledReINVITE(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		ctx, cancel := context.WithCancel(context.Background())
		r := l.renegotiates(ctx, offerSDP)
		r.says(180, "")
		cancel()
		require.ErrorIs(t, <-r.ended, context.Canceled)
		p.reply(p.next("CANCEL"), dialogtest.Response{Code: 200})
		r.says(183, answerSDP, reliably(3)...)
		r.acknowledged("3 2 INVITE", 200)
		r.says(200, "")
		p.next("ACK")
		l.stands(p)
	})
}

// A retry makes its offer anew: what was agreed on between is in it.
func TestRetriedHoldIsOfTheSessionAsItIsThen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.outgoing(w.stack(stackIP), p)
		ended := began(func() error { return l.d.Hold(context.Background()) })
		first := p.next("INVITE")
		require.Contains(t, string(first.Message.Body()), "o=alice 1 2 ")
		p.reply(first, dialogtest.Response{Code: 491})
		p.next("ACK")
		l.ask("UPDATE", withBody(held(offerSDP)))
		answer := string(p.next("200 UPDATE").Message.Body())
		require.Contains(t, answer, "o=alice 1 3 ", "the peer has seen another session with version 2")
		require.Contains(t, answer, "a=recvonly")
		again := p.next("INVITE")
		require.Contains(t, string(again.Message.Body()), "o=alice 1 4 ")
		require.Contains(t, string(again.Message.Body()), "a=sendonly", "we hold as if the peer did not (RFC 6337 5.3)")
		p.reply(again, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
		require.NoError(t, <-ended)
		l.hangUp(p)
	})
}
