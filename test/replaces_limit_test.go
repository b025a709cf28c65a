package test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

func mostCalls(n int) func(*dialog.StackConfig) {
	return func(c *dialog.StackConfig) { c.MaxDialogs = n }
}

// At MaxDialogs an INVITE that replaces a call makes the room that it needs;
// other calls wait for that until they have it.
func TestInviteWithReplacesNeedsNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP, mostCalls(1)), w.peer(peerIP), w.peer(otherIP)
		old := w.incoming(s, p)
		calls := accepting(t, s)
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s).StatusCode)
		require.Equal(t, 200, other.invited(s, "Replaces: "+old.naming()).StatusCode)
		bye := p.next("BYE")
		require.Equal(t, 503, w.peer("10.0.0.4").invited(s).StatusCode, "the replaced call is here still")
		p.reply(bye, dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Len(t, s.Dialogs(), 1)
		require.Zero(t, testkit.Held(s).Replacing)
		require.Equal(t, 503, w.peer("10.0.0.5").invited(s).StatusCode, "the new one has its place")
		hangUp(t, <-calls, other)
		third := w.peer("10.0.0.6")
		require.Equal(t, 200, third.invited(s).StatusCode)
		hangUp(t, <-calls, third)
	})
}

// What names no call that it may have waits for room as any other.
func TestInviteThatMakesNoRoomGets503(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.stack(stackIP, mostCalls(1), authorizing(func(context.Context, dialog.TakeoverRequest) dialog.Answer {
			return dialog.Answer{Status: 403}
		}))
		old := w.incoming(s, w.peer(peerIP))
		s.OnIncomingDialog(func(dialog.IDialog) { t.Error("offered") })
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s, "Join: "+old.naming()).StatusCode)
		require.Equal(t, 481, w.peer("10.0.0.4").invited(s, "Replaces: x"+old.naming()).StatusCode)
		require.Equal(t, 403, w.peer("10.0.0.5").invited(s, "Replaces: "+old.naming()).StatusCode)
		synctest.Wait()
		require.Zero(t, testkit.Held(s).Replacing)
		require.Equal(t, 503, w.peer("10.0.0.6").invited(s).StatusCode)
		old.over()
	})
}

// One at a time may wait for the place of a call; when that one is refused, or the
// call ends by itself, the bound holds again.
func TestOneInviteAtATimeWaitsForThePlaceOfACall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p, other := w.stack(stackIP, mostCalls(2)), w.peer(peerIP), w.peer(otherIP)
		bystander := w.incoming(s, w.peer("10.0.0.7"))
		old := w.incoming(s, p)
		calls := waiting(s)
		other.invites(s, "Replaces: "+old.naming())
		first := <-calls
		require.Equal(t, 503, w.peer("10.0.0.3").invited(s, "Replaces: "+old.naming()).StatusCode)
		require.NoError(t, first.Reject(context.Background(), 486, ""))
		require.Equal(t, 486, other.final("INVITE").StatusCode)
		require.Equal(t, 503, w.peer("10.0.0.4").invited(s).StatusCode)

		second := w.peer("10.0.0.5")
		second.invites(s, "Replaces: "+old.naming())
		d := <-calls
		old.over()
		require.Equal(t, 503, w.peer("10.0.0.6").invited(s).StatusCode, "it has the room of the call that ended")
		require.NoError(t, d.Accept(context.Background(), withSDP(answerSDP)))
		second.acknowledges(s, second.final("INVITE"))
		hangUp(t, d, second)
		bystander.over()
	})
}

// Calls that replace each other while no BYE is answered are no more than twice as
// many.
func TestCallsThatReplaceEachOtherInTurnAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s, p := w.stack(stackIP, mostCalls(2)), w.peer(peerIP)
		calls := accepting(t, s)
		// Nobody is at home there who would answer a BYE.
		require.Equal(t, 200, p.invited(s).StatusCode)
		require.Equal(t, 200, w.peer(otherIP).invited(s).StatusCode)
		latest, replaced := <-calls, 0
		<-calls
		for _, ip := range []string{"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"} {
			key := latest.Key()
			name := key.CallID + ";from-tag=" + key.RemoteTag + ";to-tag=" + key.LocalTag
			if w.peer(ip).invited(s, "Replaces: "+name).StatusCode == 200 {
				latest, replaced = <-calls, replaced+1
			}
			require.LessOrEqual(t, len(s.Dialogs()), 4)
		}
		require.Equal(t, 2, replaced)
	})
}
