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
)

// RFC 3326: a BYE or CANCEL that the stack sends by itself says why, where a SIP
// status does.
func TestTheStackSaysWhyItEndsACall(t *testing.T) {
	says := func(t *testing.T, req dialogtest.Received, reason string) {
		t.Helper()
		require.Equal(t, reason, value(req.Message, "Reason"))
	}
	for name, c := range map[string]struct {
		reason string
		play   func(w *world) (*peer, dialogtest.Received)
	}{
		"an offer in a 2xx that is refused": {`SIP;cause=488;text="offer refused"`, func(w *world) (*peer, dialogtest.Received) {
			a, p := w.stack(stackIP), w.peer(peerIP)
			l := w.calls(a, p, dialog.InviteOpts{})
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return nil, errors.New("no") })
			l.answer(dialogtest.Response{Code: 200, Body: offerSDP})
			p.next("ACK")
			return p, p.next("BYE")
		}},
		"a session that expires": {`SIP;cause=408;text="session expired"`, func(w *world) (*peer, dialogtest.Received) {
			b, p := w.stack("10.0.0.2"), w.peer("10.0.0.9")
			w.timed(b, p, "90;refresher=uac")
			time.Sleep(60 * time.Second)
			return p, p.next("BYE")
		}},
		"no ACK": {`SIP;cause=408;text="no ACK"`, func(w *world) (*peer, dialogtest.Received) {
			b, p := w.stack(stackIP), w.peer(peerIP)
			l := w.rings(b, p)
			require.NoError(w.t, l.d.Accept(context.Background(), withSDP(answerSDP)))
			time.Sleep(33 * time.Second)
			return p, p.next("BYE")
		}},
		"no answer": {`SIP;cause=408;text="no answer"`, func(w *world) (*peer, dialogtest.Received) {
			a, p := w.stack(stackIP, func(c *dialog.StackConfig) { c.RingingLimit = 20 * time.Second }), w.peer(peerIP)
			l := w.calls(a, p, offer(offerSDP))
			l.answer(dialogtest.Response{Code: 180})
			time.Sleep(20 * time.Second)
			cancel := p.next("CANCEL")
			l.answer(dialogtest.Response{Code: 487})
			return p, cancel
		}},
		"another fork that answers": {`SIP;cause=200;text="Call completed elsewhere"`, func(w *world) (*peer, dialogtest.Received) {
			f := w.forks(offer(offerSDP))
			f.says("A", 200, answerSDP)
			f.says("B", 200, answerSDP)
			return f.at["B"], f.at["B"].next("BYE")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, end := c.play(w)
				says(t, end, c.reason)
				p.reply(end, dialogtest.Response{Code: 200, ToTag: farTag})
				synctest.Wait()
			})
		})
	}
}
