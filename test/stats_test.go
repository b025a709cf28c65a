package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

func TestStatsCountEvents(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2", func(c *dialog.StackConfig) { c.MaxDialogs = 1 })
		caller, _ := w.established(a, b)
		now := b.Stats()
		require.Equal(t, 1, now.Dialogs)
		require.EqualValues(t, 1, now.Arrived)
		require.EqualValues(t, 1, now.Answered)
		require.EqualValues(t, 2, now.MessagesIn, "INVITE, ACK")
		require.EqualValues(t, 3, now.MessagesOut, "100, 180, 200")

		_, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{})
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 1, b.Stats().Refused["full"])
		require.EqualValues(t, 2, a.Stats().Placed)
		require.EqualValues(t, 1, a.Stats().Ended[dialog.PartyRemote])

		caller.OnStateChange(func(dialog.DialogState) { panic("in a callback") })
		require.NoError(t, caller.Bye(context.Background(), ""))
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Panics)
		require.EqualValues(t, 1, a.Stats().Ended[dialog.PartyLocal])
		require.EqualValues(t, 1, b.Stats().Ended[dialog.PartyRemote])
		require.Equal(t, 1, b.Stats().Tombstones)
		time.Sleep(time.Minute)
		now = b.Stats()
		require.Zero(t, now.Dialogs+now.Releasing+now.Tombstones+now.ClientTransactions+now.ServerTransactions+now.Queues+now.Callbacks)

		p := w.peer("10.0.0.9")
		require.NoError(t, p.Send(b.Addr(), "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKnone\nFrom: <sip:a@b>;tag=1\nTo: <sip:b@c>;tag=2\nCall-ID: none\nCSeq: 1 INVITE\nContent-Length: 0\n\n"))
		require.NoError(t, p.Send(b.Addr(), "nonsense\n\n"))
		synctest.Wait()
		require.EqualValues(t, 1, b.Stats().Dropped["unmatched"])
		require.EqualValues(t, 1, b.Stats().Dropped["malformed"])
	})
}

func TestRetransmissionsAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.stack("10.0.0.1")
		w.peer("10.0.0.9")
		_, err := a.Do(context.Background(), sip.NewRequest(sip.OPTIONS, uri("x", "10.0.0.9")))
		require.ErrorIs(t, err, dialog.ErrTimeout)
		require.EqualValues(t, 10, a.Stats().Retransmissions, "RFC 3261 17.1.2.2: 0.5, 1, 2, 4, 4 ... s within 32 s")
	})
}

func TestStatsStandAfterShutdown(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, p := w.stack("10.0.0.1"), w.peer("10.0.0.9")
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.9"), dialog.InviteOpts{})
		require.NoError(t, err)
		p.reply(p.next("INVITE"), dialogtest.Response{Code: 486, ToTag: "x"})
		<-d.(*dialog.Dialog).Done()
		require.NoError(t, a.Shutdown(context.Background()))
		now := a.Stats()
		require.EqualValues(t, 1, now.Placed)
		require.EqualValues(t, 1, now.MessagesIn)
		require.Zero(t, now.Dialogs+now.Releasing+now.Tombstones+now.ClientTransactions+now.ServerTransactions+now.Queues+now.Callbacks)
	})
}
