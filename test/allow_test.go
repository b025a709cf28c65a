package test

import (
	"context"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

const (
	servedAnyhow = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, REFER, SUBSCRIBE, NOTIFY, INFO, PRACK"
	servedToo    = servedAnyhow + ", DANCE, MESSAGE"
)

// serves has a call serve what is not served anyhow.
func serves(t *testing.T, d *dialog.Dialog) {
	for _, method := range []string{"MESSAGE", "DANCE", "INFO"} {
		if err := d.OnRequest(method, func(context.Context, *sip.Request) dialog.Answer { return dialog.Answer{} }); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// FD11. RFC 3261 20.5: what a call serves is listed in all that it says of that, and
// what it refuses is not.
func TestAllowListsWhatACallServes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		l := w.rings(w.stack(stackIP), p)
		require.Equal(t, servedAnyhow, w.one(stackIP, "180 INVITE").value(t, "Allow"))
		serves(t, l.d)
		require.NoError(t, l.d.Provisional(context.Background(), 183, ""))
		l.accepted()
		require.Equal(t, servedToo, w.one(stackIP, "183 INVITE").value(t, "Allow"))
		require.Equal(t, servedToo, value(l.final.Message, "Allow"))
		for _, method := range []string{"UPDATE", "OPTIONS"} {
			l.ask(method)
			require.Equal(t, servedToo, value(l.peer.final(method), "Allow"), method)
		}
		for method, code := range map[string]int{"PUBLISH": 405, "SING": 501} {
			l.ask(method)
			res := l.peer.final(method)
			require.Equal(t, code, res.StatusCode)
			require.Equal(t, servedToo, value(res, "Allow"))
		}
		l.hangUp(p)
	})
	bubble(t, func(t *testing.T, w *world) {
		p := w.peer(peerIP)
		opts := offer(offerSDP)
		opts.Setup = func(d *dialog.Dialog) { serves(t, d) }
		l := w.calls(w.stack(stackIP), p, opts)
		require.Equal(t, servedToo, value(l.invite.Message, "Allow"))
		l.answer(dialogtest.Response{Code: 200, Body: answerSDP})
		require.NoError(t, l.d.WaitAnswer(context.Background()))
		done := began(func() error { _, err := l.d.Update(context.Background(), nil); return err })
		update := p.next("UPDATE")
		require.Equal(t, servedToo, value(update.Message, "Allow"))
		p.reply(update, dialogtest.Response{Code: 200})
		require.NoError(t, <-done)
		l.hangUp(p)
	})
}
