package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// progressing has a stack send a reliable 183 with a body, and return the call
// unanswered.
func (w *world) progressing(b *dialog.Stack, body string) <-chan *dialog.Dialog {
	calls := make(chan *dialog.Dialog, 1)
	b.OnIncomingDialog(func(d dialog.IDialog) {
		call := d.(*dialog.Dialog)
		if err := call.Provisional(context.Background(), 183, "", withSDP(body)); err != nil {
			w.t.Errorf("provisional: %v", err)
		}
		calls <- call
	})
	return calls
}

// Two stacks agree upon the session before the call is answered, whatever
// either insists on, and over a network that loses what it likes.
func TestStacksAgreeBeforeTheAnswer(t *testing.T) {
	sets := []dialog.Reliability{dialog.ReliableSupported, dialog.ReliableRequired}
	for _, caller := range sets {
		for _, callee := range sets {
			for _, lossy := range []bool{false, true} {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1", reliability(caller)), w.stack("10.0.0.2", reliability(callee))
					if lossy {
						w.net.SetPolicy(dialogtest.Lossy(uint64(caller)*2+uint64(callee), 0.2, 0.2, 400*time.Millisecond))
					}
					calls := w.progressing(b, answerSDP)
					d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
					require.NoError(t, err)
					got := bodies(d)
					call := <-calls
					require.NoError(t, call.Accept(context.Background()))
					require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
					synctest.Wait()
					require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))
					w.net.SetPolicy(nil)
					require.NoError(t, call.Hold(context.Background()))
					require.NoError(t, d.Bye(context.Background(), ""))
				})
			}
		}
	}
}

// UPDATE both ways before the answer, once the PRACK has settled the session.
func TestStacksUpdateBeforeTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := w.progressing(b, answerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := d.(*dialog.Dialog), <-calls
		synctest.Wait()
		for _, c := range []struct {
			d          *dialog.Dialog
			body, want string
		}{{caller, offerSDP, "a=recvonly"}, {callee, answerSDP, "a=inactive"}} {
			answer, err := c.d.Update(context.Background(), dialog.NewBody("application/sdp", []byte(held(c.body))))
			require.NoError(t, err)
			require.Contains(t, string(answer.Data()), c.want)
		}
		require.NoError(t, callee.Accept(context.Background()))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		synctest.Wait()
		require.NoError(t, callee.Bye(context.Background(), ""))
	})
}

// The INVITE has no offer: the callee's is in the 183, and the caller's
// application answers it in the PRACK.
func TestStacksAgreeUponTheCalleesOffer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := w.progressing(b, offerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), dialog.InviteOpts{Setup: func(d *dialog.Dialog) {
			d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) {
				time.Sleep(time.Second)
				return dialog.NewBody("application/sdp", []byte(answerSDP)), nil
			})
		}})
		require.NoError(t, err)
		callee := <-calls
		got := bodies(callee)
		require.NoError(t, callee.Accept(context.Background()))
		synctest.Wait()
		require.Equal(t, []string{"application/sdp\n" + answerSDP}, drained(got))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, callee.Hold(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
	})
}

// A caller that is off gets an unreliable 183, and one that a stack insists on
// and does not know it is turned away.
func TestStacksThatDoNotWantTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1", reliability(dialog.ReliableOff)), w.stack("10.0.0.2")
		calls := w.progressing(b, answerSDP)
		d, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		require.NoError(t, (<-calls).Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		require.NoError(t, d.Bye(context.Background(), ""))
		require.Empty(t, w.sent("10.0.0.1", "PRACK"))

		c := w.stack("10.0.0.3", reliability(dialog.ReliableRequired))
		c.OnIncomingDialog(func(dialog.IDialog) { t.Error("must not reach the application") })
		d, err = a.NewInvite(context.Background(), uri("bob", "10.0.0.3"), offer(offerSDP))
		require.NoError(t, err)
		var refused *dialog.ResponseError
		require.ErrorAs(t, d.(*dialog.Dialog).WaitAnswer(context.Background()), &refused)
		require.Equal(t, 421, refused.StatusCode)
	})
}
