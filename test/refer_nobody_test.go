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

// FD21. A REFER is answered 202 whatever the application does, and where nobody takes
// it the outcome is known at once.
func TestReferNobodyTakesIsDeclinedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		b.OnIncomingRefer(nil)
		caller, callee := w.established(a, b)
		began := time.Now()
		for range 3 {
			require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
			r, err := caller.WaitRefer(context.Background())
			require.NoError(t, err)
			outcome, err := r.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, dialog.Progress{Status: 603, Reason: "Decline"}, outcome)
			<-r.Done()
		}
		require.Zero(t, time.Since(began))
		synctest.Wait()
		require.Empty(t, callee.GetAllReferSubscriptions())
		require.Len(t, w.sent("10.0.0.2", "202 REFER"), 3)
		notifies := w.sent("10.0.0.2", "NOTIFY")
		require.Len(t, notifies, 3)
		require.Equal(t, "terminated;reason=noresource", notifies[0].value(t, "Subscription-State"))
		require.Equal(t, "SIP/2.0 603 Decline\r\n", notifies[0].body())
		_, err := callee.FollowRefer(context.Background(), uri("carol", "10.0.0.3"), dialog.InviteOpts{})
		require.ErrorIs(t, err, dialog.ErrNoRefer)
		require.Equal(t, dialog.DialogStateEstablished, caller.State())
		require.NoError(t, caller.Bye(context.Background(), ""))
	})
}

// Who takes REFERs in whatever way is not spoken for.
func TestReferSomebodyTakesIsNotDeclined(t *testing.T) {
	accept := func(context.Context, *dialog.ReferRequest) dialog.Answer { return dialog.Answer{} }
	for name, takes := range map[string]func(s *dialog.Stack){
		"OnIncomingRefer": func(s *dialog.Stack) { s.OnIncomingRefer(func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {}) },
		"OnReferRequest":  func(s *dialog.Stack) { s.OnReferRequest(accept) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				b, p := w.stack(stackIP), w.peer(peerIP)
				b.OnIncomingRefer(nil)
				l := w.incoming(b, p)
				takes(b)
				l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
				p.next("202 REFER")
				notify := p.next("NOTIFY")
				require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
				p.reply(notify, dialogtest.Response{Code: 200})
				synctest.Wait()
				require.Len(t, l.d.GetAllReferSubscriptions(), 1)
				hangUp(t, l.d, p)
			})
		})
	}
}

// Without a subscription there is nobody to tell; and a peer that has never heard of
// the subscription, or does not answer, costs the call nothing.
func TestReferNobodyTakesAndNobodyWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">", "Refer-Sub: false"))
		require.Equal(t, "false", value(p.next("202 REFER").Message, "Refer-Sub"))
		p.quiet("NOTIFY", time.Minute)

		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 481})
		synctest.Wait()
		require.Empty(t, l.d.GetAllReferSubscriptions())
		l.ask("REFER", withHeaders("Refer-To: <sip:carol@"+otherIP+">"))
		p.next("NOTIFY")
		time.Sleep(time.Minute)
		require.Empty(t, l.d.GetAllReferSubscriptions())
		require.Equal(t, dialog.DialogStateEstablished, l.d.State())
		l.hangUp(p)
	})
}

// An application that takes a REFER by HandleIncomingRefer takes it.
func TestReferHandedInIsNotDeclined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b, p := w.stack(stackIP), w.peer(peerIP)
		b.OnIncomingRefer(nil)
		l := w.incoming(b, p)
		req := sip.NewRequest(sip.REFER, uri("service", stackIP))
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 7, MethodName: sip.REFER})
		require.NoError(t, l.d.HandleIncomingRefer(req, uri("carol", otherIP), nil))
		notify := p.next("NOTIFY")
		require.Equal(t, "SIP/2.0 100 Trying\r\n", string(notify.Message.Body()))
		p.reply(notify, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, l.d.GetAllReferSubscriptions(), 1)
		hangUp(t, l.d, p)
	})
}
