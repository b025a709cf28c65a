package test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// The ACK to a 2xx of ours: what it brings, and who waits for it.

// FT6: an ACK that brings no answer leaves our offer as the session that there is
// (judgement: RFC 3264 wants an answer): Hold has something to hold.
func TestOurOfferIsTheSessionAfterAnACKWithoutAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.incoming(w.stack(stackIP), p, withoutBody)
		result := began(func() error { return l.d.Hold(context.Background()) })
		in := p.next("INVITE")
		require.Contains(t, string(in.Message.Body()), "m=audio 5000 ")
		require.Contains(t, string(in.Message.Body()), "a=sendonly")
		p.reply(in, dialogtest.Response{Code: 200, Body: offerSDP})
		require.NoError(t, <-result)
		l.hangUp(p)
	})
}

// FT6: whoever waits for the ACK learns at once that the call has ended, whatever
// ended it.
func TestWhoWaitsForTheACKLearnsThatTheCallHasEnded(t *testing.T) {
	for name, end := range map[string]func(l *peerCall) error{
		"Close":  func(l *peerCall) error { return l.d.Close() },
		"hangup": func(l *peerCall) error { l.ask("BYE"); l.next("200 BYE"); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.peer(peerIP)
				l := w.rings(w.stack(stackIP), p)
				require.NoError(t, l.d.Accept(context.Background(), withSDP(answerSDP)))
				waiting := map[string]<-chan error{
					"ReInvite": began(func() error { return l.d.ReInvite(context.Background(), offer(offerSDP)) }),
					"Hold":     began(func() error { return l.d.Hold(context.Background()) }),
				}
				time.Sleep(3 * time.Second)
				start := time.Now()
				require.NoError(t, end(l))
				for op, result := range waiting {
					require.ErrorIs(t, <-result, dialog.ErrTerminated, op)
				}
				require.ErrorIs(t, l.d.ReInvite(context.Background(), offer(offerSDP)), dialog.ErrTerminated)
				require.Zero(t, time.Since(start))
				if name == "Close" { // RFC 3261 15: the BYE waits for it as well
					l.acknowledge(1)
					p.reply(p.next("BYE"), dialogtest.Response{Code: 200})
				}
			})
		})
	}
}
