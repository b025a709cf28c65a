package test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// Each pair of requests, one of either side, that cross on the wire: between two
// stacks here, with a scripted peer in crossing_script_test.go. Whatever they are,
// both sides agree in the end and nothing is left (RFC 5407, RFC 6141, RFC 3261
// 14).

// action is what an application does with a call, or what its session timer does.
type action struct {
	name string
	do   func(ctx context.Context, d *dialog.Dialog) error
}

// refreshAt is when the session timer of a call of 90 s refreshes it.
const refreshAt = 45 * time.Second

var (
	reInvites = action{"re-INVITE", func(ctx context.Context, d *dialog.Dialog) error {
		return d.ReInvite(ctx, offer(answerSDP))
	}}
	updates = action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error {
		_, err := d.Update(ctx, ourSession())
		return err
	}}
	refreshes = action{"refresh", func(context.Context, *dialog.Dialog) error { return nil }} // by itself
	renews    = action{"refresh by re-INVITE", refreshes.do}                                  // by itself, where the peer takes no UPDATE
	refers    = action{"REFER", func(ctx context.Context, d *dialog.Dialog) error {
		return d.Refer(ctx, uri("carol", "10.0.0.3"), dialog.ReferOpts{NoReferSub: true})
	}}
	hangsUp  = action{"BYE", func(ctx context.Context, d *dialog.Dialog) error { return d.Bye(ctx, "") }}
	holds    = action{"hold", func(ctx context.Context, d *dialog.Dialog) error { return d.Hold(ctx) }}
	accepts  = action{"200", func(ctx context.Context, d *dialog.Dialog) error { return d.Accept(ctx, withSDP(answerSDP)) }}
	rejects  = action{"486", func(ctx context.Context, d *dialog.Dialog) error { return d.Reject(ctx, 486, "") }}
	proceeds = action{"183", func(ctx context.Context, d *dialog.Dialog) error { return d.Provisional(ctx, 183, "") }}
	touches  = action{"UPDATE", func(ctx context.Context, d *dialog.Dialog) error { _, err := d.Update(ctx, nil); return err }}
	cancels  = action{"CANCEL", func(ctx context.Context, d *dialog.Dialog) error { return d.Hangup(ctx) }}
)

// delayed lets every message take that long.
func (w *world) delayed(by time.Duration) {
	w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{by} })
}

// together has both sides act at once, and returns what came of it.
func together(caller, callee *dialog.Dialog, one, other action) (error, error) {
	first := began(func() error { return one.do(context.Background(), caller) })
	err := other.do(context.Background(), callee)
	return <-first, err
}

// nothingLeft waits until the stacks have had the time to forget, and checks that
// they did.
func (w *world) nothingLeft() {
	w.t.Helper()
	time.Sleep(3 * time.Minute)
	for _, s := range w.stacks {
		require.Zero(w.t, testkit.Held(s))
	}
}

// versionsTell checks that two sessions of one side that differ have two versions
// (RFC 3264 8, RFC 6337 5.2.5).
func (w *world) versionsTell() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	said := make(map[string]string)
	for _, m := range w.log {
		_, rest, found := strings.Cut(m.body(), "o=")
		if !found {
			continue
		}
		origin, _, _ := strings.Cut(rest, "\r\n")
		origin = m.from.String() + " " + origin
		if before, known := said[origin]; known {
			require.Equal(w.t, before, m.body(), describe(m.msg))
		}
		said[origin] = m.body()
	}
}

// What each side answers to the other's request: as sent by the callee, and by the
// caller. With a BYE the other request gets 481, if it is not answered before.
func TestRequestsOfTwoStacksThatCross(t *testing.T) {
	pending := []string{"491 INVITE", "491 UPDATE"}
	for _, c := range []struct {
		one, other         action
		byCallee, byCaller string
	}{
		{reInvites, reInvites, "491 INVITE", "491 INVITE"},
		{reInvites, updates, "491 INVITE", "491 UPDATE"},
		{updates, reInvites, "491 UPDATE", "491 INVITE"},
		{holds, holds, "491 INVITE", "491 INVITE"},
		{updates, updates, "491 UPDATE", "491 UPDATE"},
		{refreshes, reInvites, "200 UPDATE", "200 INVITE"},
		{refreshes, updates, "200 UPDATE", "200 UPDATE"},
		{refreshes, refers, "200 UPDATE", "202 REFER"},
		{refreshes, touches, "200 UPDATE", "200 UPDATE"},
		{refreshes, holds, "200 UPDATE", "200 INVITE"},
		{renews, reInvites, "491 INVITE", "491 INVITE"},
		{renews, updates, "491 INVITE", "491 UPDATE"},
		{renews, holds, "491 INVITE", "491 INVITE"},
		{renews, touches, "200 INVITE", "200 UPDATE"},
		{renews, refers, "200 INVITE", "202 REFER"},
		{renews, hangsUp, "481 INVITE", "200 BYE"},
		{holds, updates, "491 INVITE", "491 UPDATE"},
		{updates, holds, "491 UPDATE", "491 INVITE"},
		{holds, touches, "200 INVITE", "200 UPDATE"},
		{holds, refers, "200 INVITE", "202 REFER"},
		{refers, holds, "202 REFER", "200 INVITE"},
		{holds, hangsUp, "481 INVITE", "200 BYE"},
		{hangsUp, holds, "200 BYE", "481 INVITE"},
		{reInvites, refers, "200 INVITE", "202 REFER"},
		{refers, reInvites, "202 REFER", "200 INVITE"},
		{updates, refers, "200 UPDATE", "202 REFER"},
		{refers, updates, "202 REFER", "200 UPDATE"},
		{refers, refers, "202 REFER", "202 REFER"},
		{hangsUp, reInvites, "200 BYE", "481 INVITE"},
		{reInvites, hangsUp, "481 INVITE", "200 BYE"},
		{hangsUp, updates, "200 BYE", "481 UPDATE"},
		{updates, hangsUp, "481 UPDATE", "200 BYE"},
		{hangsUp, refers, "200 BYE", "481 REFER"},
		{refers, hangsUp, "481 REFER", "200 BYE"},
		{refreshes, hangsUp, "481 UPDATE", "200 BYE"},
		{hangsUp, hangsUp, "200 BYE", "200 BYE"},
	} {
		t.Run(c.one.name+" and "+c.other.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				takes := func(*dialog.StackConfig) {}
				if c.one.name == renews.name {
					takes = withoutUpdate
				}
				a, b := w.stack("10.0.0.1", lasting(90*time.Second)), w.stack("10.0.0.2", takes)
				caller, callee := w.established(a, b)
				w.delayed(50 * time.Millisecond)
				if c.one.name == refreshes.name || c.one.name == renews.name {
					time.Sleep(refreshAt)
				}
				err1, err2 := together(caller, callee, c.one, c.other)
				time.Sleep(5 * time.Second) // a refresh that was put off
				require.NotEmpty(t, w.sent("10.0.0.2", c.byCallee))
				require.NotEmpty(t, w.sent("10.0.0.1", c.byCaller))

				if c.one.name == "BYE" || c.other.name == "BYE" {
					require.Equal(t, dialog.DialogStateTerminated, caller.State())
					require.Equal(t, dialog.DialogStateTerminated, callee.State())
				} else {
					require.NoError(t, err1)
					require.NoError(t, err2)
					for _, answer := range pending { // once: the windows of RFC 3261 14.1 do not meet
						require.LessOrEqual(t, len(w.sent("10.0.0.1", answer)), 1)
					}
					_, err := callee.Renegotiate(context.Background(), nil)
					require.NoError(t, err, "no offer is open")
					time.Sleep(10 * refreshAt)
					require.Equal(t, dialog.DialogStateEstablished, caller.State(), "it has been refreshed meanwhile")
					require.Equal(t, dialog.DialogStateEstablished, callee.State())
					require.NoError(t, caller.Bye(context.Background(), ""))
				}
				w.nothingLeft()
				w.versionsTell()
			})
		})
	}
}

// Before the answer: the caller's CANCEL and UPDATE, and its PRACK, which leaves by
// itself, against what the callee does.
func TestRequestsBeforeTheAnswerThatCross(t *testing.T) {
	nothing := action{"PRACK", func(context.Context, *dialog.Dialog) error { return nil }}
	for _, reliable := range []dialog.Reliability{dialog.ReliableOff, dialog.ReliableRequired} {
		for _, one := range []action{cancels, touches, nothing} {
			for _, other := range []action{accepts, rejects, proceeds, touches, cancels} {
				name := one.name + " and " + other.name
				if other.name == cancels.name {
					name = one.name + " and 480"
				}
				if reliable == dialog.ReliableRequired {
					name += ", reliably"
				}
				t.Run(name, func(t *testing.T) { crossesBeforeTheAnswer(t, reliable, one, other) })
			}
		}
	}
}

func crossesBeforeTheAnswer(t *testing.T, reliable dialog.Reliability, one, other action) {
	bubble(t, func(t *testing.T, w *world) {
		as := func(c *dialog.StackConfig) { c.Reliable = reliable }
		a, b := w.stack("10.0.0.1", as), w.stack("10.0.0.2", as)
		calls := waiting(b)
		w.delayed(50 * time.Millisecond)
		placed, err := a.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(t, err)
		caller, callee := placed.(*dialog.Dialog), <-calls
		time.Sleep(50 * time.Millisecond) // the 180 is there, and its PRACK leaves
		synctest.Wait()
		err1, err2 := together(caller, callee, one, other)
		time.Sleep(5 * time.Second)
		if one.name == cancels.name {
			require.NoError(t, err1)
			require.Equal(t, dialog.DialogStateTerminated, caller.State())
			require.Equal(t, dialog.DialogStateTerminated, callee.State())
			require.NotEmpty(t, w.sent("10.0.0.1", "CANCEL"))
			w.nothingLeft()
			return
		}
		if err1 != nil { // the call was over before the UPDATE was answered
			require.True(t, errors.Is(err1, dialog.ErrTerminated) || callee.State() == dialog.DialogStateTerminated, "%v", err1)
		}
		require.NoError(t, err2)
		want := map[string]dialog.DialogState{"200": dialog.DialogStateEstablished, "486": dialog.DialogStateTerminated, "CANCEL": dialog.DialogStateTerminated}
		if state, ok := want[other.name]; ok {
			require.Equal(t, state, caller.State())
			require.Equal(t, state, callee.State())
		} else {
			require.Equal(t, dialog.DialogStateRinging, caller.State())
			require.NoError(t, callee.Accept(context.Background(), withSDP(answerSDP)))
			require.NoError(t, caller.WaitAnswer(context.Background()))
		}
		require.NoError(t, caller.Bye(context.Background(), ""))
		w.nothingLeft()
	})
}
