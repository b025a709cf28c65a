package test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Transfers between three stacks on a bad network: a third of the datagrams is
// lost, others come twice and out of order. The outcome is learnt all the same,
// whoever hangs up meanwhile, and nothing is left.
func TestTransfersOnABadNetworkTellTheTruth(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, c := w.stack(stackIP), w.stack(peerIP), w.stack(otherIP)
				caller, callee := w.established(a, b)
				results := followsRefers(context.Background(), b, offer(offerSDP))
				c.OnIncomingDialog(func(d dialog.IDialog) {
					if d.(*dialog.Dialog).Request().Recipient.User == "busy" {
						_ = d.Reject(context.Background(), 486, "")
						return
					}
					_ = d.Accept(context.Background(), withSDP(answerSDP))
				})
				w.net.SetPolicy(dialogtest.Lossy(seed, 0.3, 0.2, 700*time.Millisecond))
				learnt := began(func() error { return learnsOutcomes(caller) })
				if seed%2 == 0 {
					time.Sleep(2 * time.Second)
					_ = caller.Bye(context.Background(), "")
				}
				require.NoError(t, <-learnt)
				w.net.SetPolicy(nil)
				for range len(results) {
					if got := <-results; got.call != nil {
						require.NoError(t, got.call.Bye(context.Background(), ""))
					}
				}
				_, _ = caller.Close(), callee.Close()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				for _, s := range w.stacks {
					require.Zero(t, testkit.Held(s))
				}
			})
		})
	}
}

// learnsOutcomes refers a call twice and checks what is learnt of it. A REFER
// that the call's end overtakes is refused.
func learnsOutcomes(d *dialog.Dialog) error {
	for _, user := range []string{"busy", "dora"} {
		target := sip.Uri{Scheme: "sip", User: user, Host: otherIP, Port: 5060}
		if err := d.Refer(context.Background(), target, dialog.ReferOpts{}); err != nil {
			return fmt.Errorf("%s: %w", user, err)
		}
	}
	for _, want := range []int{486, 200} {
		r, err := d.WaitRefer(context.Background())
		var refused *dialog.ResponseError
		switch {
		case errors.As(err, &refused):
			continue
		case err != nil:
			return err
		}
		if got, err := r.Wait(context.Background()); err != nil || got.Status != want {
			return fmt.Errorf("%s: want %d, got %v, %w", r.ID, want, got, err)
		}
	}
	return nil
}
