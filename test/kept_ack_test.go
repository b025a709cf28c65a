package test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
	"sipdialog.example/dialog/store/memory"
)

// answeredTwice is a call of a stack's whose 200 the peer repeats once after has happened: the
// ACK was lost. It returns the ACK to the repetition.
func (l *peerCall) answeredTwice(body string, after func()) dialogtest.Received {
	l.t.Helper()
	ok := dialogtest.Response{Code: 200, Body: body, Headers: []string{"Record-Route: <sip:10.0.0.9:5060;lr>"}}
	l.answer(ok)
	first := l.next("ACK")
	require.NoError(l.t, l.d.WaitAnswer(context.Background()))
	synctest.Wait()
	after()
	l.answer(ok)
	again := l.next("ACK")
	require.Equal(l.t, first.Request().CSeq().SeqNo, again.Request().CSeq().SeqNo)
	require.Equal(l.t, first.Request().Recipient.String(), again.Request().Recipient.String())
	require.Equal(l.t, testkit.Value(first.Message, "Route"), testkit.Value(again.Message, "Route"))
	require.Equal(l.t, body == offerSDP, len(first.Message.Body()) > 0)
	require.Equal(l.t, string(first.Message.Body()), string(again.Message.Body()))
	return again
}

// answers decides an offer in a 200.
func answers(context.Context, *dialog.OfferRequest) (dialog.Body, error) {
	return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
}

// A process dies, or hands its calls over, and the ACK to a 200 was lost. Whoever gets the 200
// again acknowledges it, with the answer if that was in the ACK: the peer would end the call
// after 64*T1 (RFC 3261 13.3.1.4).
func TestRepeated200OfACallThatHasMovedIsAcknowledged(t *testing.T) {
	for name, c := range map[string]struct {
		opts dialog.InviteOpts
		body string
	}{
		"the answer is in the 200": {offer(offerSDP), answerSDP},
		"the answer is in the ACK": {dialog.InviteOpts{}, offerSDP},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) { // killed, and started anew
				store, p := memory.New(), w.peer(peerIP)
				s, k := w.process(stackIP, store)
				s.OnOfferRequest(answers)
				l := w.calls(s, p, c.opts)
				var taken *restores
				l.answeredTwice(c.body, func() {
					s, k = l.failsOver(k, store)
					taken = restoring(s)
				})
				synctest.Wait()
				l.takenOver(taken, "INVITE")
				hangUp(t, l.d, p)
				require.Zero(t, store.Len())
				l.answer(dialogtest.Response{Code: 200, Body: c.body})
				synctest.Wait()
				require.Equal(t, 1, k.calls("Take"), "it has ended here")
			})
			bubble(t, func(t *testing.T, w *world) { // handed over, and still there
				store, p := memory.New(), w.peer(peerIP)
				s, _ := w.process(stackIP, store)
				s.OnOfferRequest(answers)
				l := w.calls(s, p, c.opts)
				l.answeredTwice(c.body, func() { require.NoError(t, s.HandOver(context.Background())) })
			})
			bubble(t, func(t *testing.T, w *world) { // handed over, and replaced
				store, p := memory.New(), w.peer(peerIP)
				s, k := w.process(stackIP, store)
				s.OnOfferRequest(answers)
				l := w.calls(s, p, c.opts)
				l.answeredTwice(c.body, func() {
					require.NoError(t, s.HandOver(context.Background()))
					s, _ = l.failsOver(k, store)
					time.Sleep(10 * time.Second) // it looks for what is due
					l.d = oneCall(t, s)
				})
				hangUp(t, l.d, p)
			})
		})
	}
}

// A call that was restored from a snapshot, without a Store, acknowledges too. A 200 that
// belongs to no call, or to one that was not restored, is dropped; so is any other response.
func TestRepeated200OfARestoredCallIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP), w.peer(peerIP)
		l := w.calls(s, p, offer(offerSDP))
		l.answeredTwice(answerSDP, func() { l.restart() })
		acks := len(w.sent(stackIP, "ACK"))
		text := p.Response(l.invite.Request(), dialogtest.Response{Code: 200, ToTag: farTag, Body: answerSDP})
		for _, change := range [][2]string{
			{"tag=" + farTag, "tag=stranger"},
			{"tag=" + l.stackTag, "tag=stranger"},
			{l.callID, "another"},
			{" INVITE\r\n", " BYE\r\n"},
			{"SIP/2.0 200", "SIP/2.0 180"},
			{"SIP/2.0 200", "SIP/2.0 486"},
			{"CSeq: ", "CSeq: 99999"},
			{";tag=" + farTag, ""},
		} {
			require.Contains(t, text, change[0])
			require.NoError(t, p.Send(l.stack, strings.Replace(text, change[0], change[1], 1)))
			synctest.Wait()
			require.Len(t, w.sent(stackIP, "ACK"), acks, change[0])
		}
		hangUp(t, l.d, p)
		require.NoError(t, p.Send(l.stack, text))
		synctest.Wait()
		require.Len(t, w.sent(stackIP, "ACK"), acks, "it has ended")
	})
}
