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

// The bounds on subscriptions, and what crosses them.

// Calls that are over but for a transfer are bounded in number.
func TestCallsThatSubscriptionsOutliveAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP, func(c *dialog.StackConfig) { c.Limits.SubscribedCalls = 2 })
		p := w.peer(peerIP)
		var list []*dialog.ReferSubscription
		for _, id := range []string{"one", "two", "three"} {
			l := w.incoming(b, p, func(r *dialogtest.Request) { r.CallID = id })
			list = append(list, l.received())
			l.hangsUp()
		}
		require.Equal(t, 2, b.Stats().Subscribed)
		require.False(t, ended(list[0]))
		require.True(t, ended(list[2]))
		_, err := list[2].Wait(context.Background())
		require.ErrorIs(t, err, dialog.ErrMaxDialogs)
		require.NoError(t, list[0].Close())
		p.reply(p.next("NOTIFY"), dialogtest.Response{Code: 200})
		synctest.Wait()
		require.Equal(t, 1, b.Stats().Subscribed)
	})
}

// However often it is refreshed, a subscription ends after an hour: one that we
// hold, and one that holds us.
func TestSubscriptionEndsAfterAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		b := w.stack(stackIP)
		l := w.incoming(b, w.peer(peerIP))
		r := l.received()
		start := time.Now()
		for !ended(r) {
			require.Equal(t, 200, l.subscribes("Event: refer;id=2", "Expires: 180"))
			l.reply(l.next("NOTIFY"), dialogtest.Response{Code: 200})
			time.Sleep(140 * time.Second) // an hour is no multiple of it
		}
		require.InDelta(t, time.Hour, time.Since(start), float64(3*time.Minute))
	})
	bubble(t, func(t *testing.T, w *world) {
		l := w.outgoing(w.stack(stackIP), w.peer(peerIP))
		r := l.refers()
		result, start := waits(r), time.Now()
		for !ended(r) {
			code := l.notifies("2", "active;expires=10000", "SIP/2.0 180 Ringing")
			require.Contains(t, []int{200, 481}, code)
			time.Sleep(10 * time.Minute)
		}
		require.ErrorIs(t, (<-result).err, dialog.ErrTimeout)
		require.InDelta(t, time.Hour, time.Since(start), float64(11*time.Minute))
	})
}

// What both sides send about a transfer may cross the end of the call, and
// anything else: both agree in the end, and nothing is left.
func TestTransfersThatCrossOtherRequests(t *testing.T) {
	reports := action{"NOTIFY", func(ctx context.Context, d *dialog.Dialog) error {
		return d.GetAllReferSubscriptions()[0].SendNotify(ctx, 200, "OK")
	}}
	forgets := action{"Close of the subscription", func(_ context.Context, d *dialog.Dialog) error {
		return d.GetAllReferSubscriptions()[0].Close()
	}}
	closes := action{"Close", func(_ context.Context, d *dialog.Dialog) error { return d.Close() }}
	for _, one := range []action{hangsUp, reInvites, updates, refers, forgets, closes} {
		for _, other := range []action{reports, forgets, hangsUp, closes, reInvites} {
			t.Run(one.name+" and "+other.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					a, b := w.stack("10.0.0.1"), w.stack("10.0.0.2")
					caller, callee := w.established(a, b)
					require.NoError(t, caller.Refer(context.Background(), uri("carol", "10.0.0.3"), dialog.ReferOpts{}))
					r, err := caller.WaitRefer(context.Background())
					require.NoError(t, err)
					synctest.Wait()
					result := waits(r)
					w.delayed(50 * time.Millisecond)
					_, reported := together(caller, callee, one, other)
					if other.name == reports.name && reported == nil {
						require.Equal(t, 200, (<-result).Status, "what was answered 200 was learnt")
					}
					time.Sleep(time.Second)
					_, _ = caller.Close(), callee.Close()
					w.nothingLeft()
					require.True(t, ended(r))
				})
			})
		}
	}
}
