package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// Requests of ours in an early dialog.

var informs = action{"INFO", func(ctx context.Context, d *dialog.Dialog) error {
	return d.SendDTMF(ctx, '5', dialog.DTMFOpts{})
}}

// RFC 5057 5.1, RFC 3261 12.3: a request that the peer does not know, or does not
// answer, ends its early dialog, and the call when there is no other. Other
// failures end nothing.
func TestARequestThatFailsEndsItsEarlyDialogOnly(t *testing.T) {
	for _, ours := range []action{touches, informs} {
		for _, code := range []int{481, 404, 0, 488} {
			for _, alone := range []bool{true, false} {
				t.Run(fmt.Sprint(ours.name, code, alone), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) { failsEarly(w, ours, code, alone) })
				})
			}
		}
	}
}

func failsEarly(w *world, ours action, code int, alone bool) {
	f := w.forks(offer(offerSDP))
	f.says("A", 180, "")
	if !alone {
		f.says("B", 180, "")
	}
	result := began(func() error { return ours.do(context.Background(), f.d) })
	in := f.at["A"].next(ours.name)
	require.Equal(w.t, "2 "+ours.name, value(in.Message, "CSeq"))
	if code != 0 {
		f.at["A"].reply(in, dialogtest.Response{Code: code})
	}
	require.Error(w.t, <-result)
	synctest.Wait()
	ends := code != 488
	if ends && alone {
		f.reply(f.next("CANCEL"), dialogtest.Response{Code: 200})
		f.says("A", 487, "")
		require.Error(w.t, f.d.WaitAnswer(context.Background()))
		require.Equal(w.t, ours.name, f.d.Cause().Method)
		f.empty()
		return
	}
	require.Equal(w.t, dialog.DialogStateRinging, f.d.State())
	require.Equal(w.t, ends, f.d.Forks()[0].Ended)
	tag := map[bool]string{true: "A", false: "B"}[alone]
	f.says(tag, 200, answerSDP)
	require.NoError(w.t, f.d.WaitAnswer(context.Background()))
	f.over(tag)
}

// RFC 6086 4.2.1: an INFO needs a dialog, which may be early; keys are pressed
// before the answer to those who announce something. Either side may.
func TestKeysInAnEarlyDialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
		calls := waiting(b)
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := placed.(*dialog.Dialog), <-calls
		synctest.Wait()
		var keys []rune
		for _, d := range []*dialog.Dialog{caller, callee} {
			d.OnDTMF(func(key dialog.DTMF) { keys = append(keys, key.Digit) })
		}
		require.NoError(t, caller.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}))
		synctest.Wait()
		require.NoError(t, callee.SendDTMF(context.Background(), '2', dialog.DTMFOpts{}))
		synctest.Wait()
		require.Equal(t, []rune("12"), keys)
		var wrong *dialog.StateError
		require.ErrorAs(t, caller.SendMessage(context.Background(), nil), &wrong, "only INFO")
		require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
		require.NoError(t, caller.WaitAnswer(context.Background()))
		require.NoError(t, caller.Bye(context.Background(), ""))
		require.ErrorAs(t, caller.SendDTMF(context.Background(), '3', dialog.DTMFOpts{}), &wrong)
		w.nothingLeft()
	})
}

// Before the peer has a tag there is no dialog.
func TestNoKeysWithoutADialog(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		f := w.forks(offer(offerSDP))
		var wrong *dialog.StateError
		require.ErrorAs(t, f.d.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), &wrong)
		f.answer(dialogtest.Response{Code: 100})
		synctest.Wait()
		require.ErrorAs(t, f.d.SendDTMF(context.Background(), '1', dialog.DTMFOpts{}), &wrong)
		f.says("A", 200, answerSDP)
		require.NoError(t, f.d.WaitAnswer(context.Background()))
		f.over("A")
	})
}
