package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

func TestCallFromEndToEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		incoming := make(chan *dialog.Dialog, 1)
		var atB *states
		b.OnIncomingDialog(func(d dialog.IDialog) {
			atB = watch(d)
			incoming <- d.(*dialog.Dialog)
		})
		opts, atA := watchedOffer(offerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), opts)
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), <-incoming
		synctest.Wait()
		require.Equal(t, dialog.DialogStateRinging, caller.State())
		require.Equal(t, dialog.DialogStateRinging, callee.State())

		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateEstablished, caller.State())

		require.NoError(t, callee.Bye(context.Background(), "done"))
		synctest.Wait()
		require.Equal(t, dialog.DialogStateTerminated, caller.State())
		require.Equal(t, []dialog.DialogState{
			dialog.DialogStateTrying, dialog.DialogStateRinging, dialog.DialogStateEstablished, dialog.DialogStateTerminated,
		}, atA.seen())
		require.Equal(t, []dialog.DialogState{dialog.DialogStateEstablished, dialog.DialogStateTerminated}, atB.seen())
		require.Equal(t, []string{
			"10.0.0.1 INVITE", "10.0.0.2 100 INVITE", "10.0.0.2 180 INVITE", "10.0.0.2 200 INVITE",
			"10.0.0.1 ACK", "10.0.0.2 BYE", "10.0.0.1 200 BYE",
		}, w.flow())
		require.Equal(t, "remote BYE done", caller.Cause().String())
		require.Equal(t, "local BYE done", callee.Cause().String())
	})
}
