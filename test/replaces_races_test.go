package test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// race is a call that is about to be replaced, on three stacks: ours has the old
// call with peer, and next asks for its place.
type race struct {
	*world
	ours, peer, next, rivals *dialog.Stack
	// old and peerOld are the ends of the old call, new and nextNew of the other.
	old, peerOld, new, nextNew *dialog.Dialog
	rival                      *dialog.Dialog // waits here, too
}

const oneWay = 5 * time.Millisecond

// aboutToReplace leads up to the moment when the new call is to be accepted.
func (w *world) aboutToReplace(kind string) *race {
	w.net.SetPolicy(func(dialogtest.Packet) []time.Duration { return []time.Duration{oneWay} })
	r := &race{world: w, ours: w.stack("10.0.0.1"), peer: w.stack("10.0.0.2"), next: w.stack("10.0.0.3"), rivals: w.stack("10.0.0.4")}
	switch kind {
	case "incoming":
		r.peerOld, r.old = w.established(r.peer, r.ours)
	case "outgoing":
		r.old, r.peerOld = w.established(r.ours, r.peer)
	default:
		ringing := waiting(r.peer)
		d, err := r.ours.NewInvite(context.Background(), uri("bob", "10.0.0.2"), offer(offerSDP))
		require.NoError(w.t, err)
		r.old, r.peerOld = d.(*dialog.Dialog), <-ringing
		settled()
	}
	calls := waiting(r.ours)
	key := r.old.Key()
	for _, from := range []struct {
		stack  *dialog.Stack
		placed **dialog.Dialog
		here   **dialog.Dialog
	}{{r.next, &r.nextNew, &r.new}, {r.rivals, new(*dialog.Dialog), &r.rival}} {
		opts := offer(offerSDP)
		opts.Replaces = &dialog.ReplacesInfo{CallID: key.CallID, FromTag: key.RemoteTag, ToTag: key.LocalTag}
		d, err := from.stack.NewInvite(context.Background(), uri("service", "10.0.0.1"), opts)
		require.NoError(w.t, err)
		*from.placed, *from.here = d.(*dialog.Dialog), <-calls
		require.Equal(w.t, r.old, (*from.here).Replaces())
	}
	settled()
	return r
}

// rivalEvents is what may happen while a call is being replaced. Errors are the
// events' own affair: many come too late.
var rivalEvents = []struct {
	name  string
	event func(ctx context.Context, r *race)
}{
	{"nothing", func(context.Context, *race) {}},
	{"we hang up", func(ctx context.Context, r *race) { _ = r.old.Bye(ctx, "") }},
	{"we close", func(_ context.Context, r *race) { _ = r.old.Close() }},
	{"the peer hangs up", func(ctx context.Context, r *race) { _ = r.peerOld.Hangup(ctx) }},
	{"the peer answers", func(ctx context.Context, r *race) { _ = r.peerOld.Accept(ctx, withSDP(answerSDP)) }},
	{"we re-INVITE", func(ctx context.Context, r *race) { _ = r.old.Hold(ctx) }},
	{"the peer re-INVITEs", func(ctx context.Context, r *race) { _ = r.peerOld.Hold(ctx) }},
	{"we UPDATE", func(ctx context.Context, r *race) { _, _ = r.old.Update(ctx, nil) }},
	{"we REFER", func(ctx context.Context, r *race) {
		if r.old.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) == nil {
			_, _ = r.old.WaitRefer(ctx)
		}
	}},
	{"the peer REFERs", func(ctx context.Context, r *race) {
		if r.peerOld.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) == nil {
			_, _ = r.peerOld.WaitRefer(ctx)
		}
	}},
	{"we NOTIFY", func(ctx context.Context, r *race) {
		if r.peerOld.Refer(ctx, uri("x", "10.0.0.4"), dialog.ReferOpts{}) != nil {
			return
		}
		time.Sleep(2 * oneWay)
		for _, refer := range r.old.GetAllReferSubscriptions() {
			_ = refer.SendNotify(ctx, 200, "OK")
		}
	}},
	{"INFO", func(ctx context.Context, r *race) {
		_ = r.peerOld.SendInfo(ctx, dialog.NewBody("text/plain", []byte("x")))
	}},
	{"the new one is cancelled", func(_ context.Context, r *race) { _ = r.nextNew.Close() }},
	{"the new one is refused", func(ctx context.Context, r *race) { _ = r.new.Reject(ctx, 486, "") }},
	{"the new one is hung up", func(ctx context.Context, r *race) { _ = r.new.Hangup(ctx) }},
	{"a rival is accepted", func(ctx context.Context, r *race) { _ = r.rival.Accept(ctx, withSDP(answerSDP)) }},
	{"a rival is refused", func(ctx context.Context, r *race) { _ = r.rival.Reject(ctx, 603, "") }},
	{"the peer shuts down", func(ctx context.Context, r *race) { _ = r.peer.Shutdown(ctx) }},
}

// TestReplacesAgainstEverythingElse accepts a call that replaces another, while
// something else happens, before and after, and at the very moment.
func TestReplacesAgainstEverythingElse(t *testing.T) {
	for _, kind := range []string{"incoming", "outgoing", "ringing"} {
		for _, e := range rivalEvents {
			for i, offset := range []time.Duration{-oneWay, 0, 0, oneWay, 2 * oneWay} {
				t.Run(fmt.Sprint(kind, "/", e.name, "/", offset, "/", i), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) { playRace(t, w.aboutToReplace(kind), e.event, offset) })
				})
			}
		}
	}
}

func playRace(t *testing.T, r *race, event func(context.Context, *race), offset time.Duration) {
	ctx := context.Background()
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Second + offset)
		event(ctx, r)
	}()
	time.Sleep(time.Second)
	err := r.new.Accept(ctx, withSDP(answerSDP))
	<-done
	time.Sleep(time.Minute) // all that repeats has its answer by now
	synctest.Wait()
	if err == nil || r.rival.State() == dialog.DialogStateEstablished {
		require.Equal(t, dialog.DialogStateTerminated, r.old.State(), "replaced")
	}
	if err == nil {
		require.NotEqual(t, dialog.DialogStateEstablished, r.rival.State(), "one only has the place")
	}
	agree(t, r.old, r.peerOld)
	agree(t, r.new, r.nextNew)
	for _, d := range []*dialog.Dialog{r.old, r.peerOld, r.new, r.nextNew, r.rival} {
		_ = d.Hangup(ctx) // it may tell what came of a BYE that crossed another
	}
	time.Sleep(10 * time.Minute)
	for _, s := range []*dialog.Stack{r.ours, r.peer, r.next, r.rivals} {
		require.Zero(t, testkit.Held(s))
	}
}

// agree checks that neither end of a call is left with half of it.
func agree(t *testing.T, a, b *dialog.Dialog) {
	t.Helper()
	over := func(d *dialog.Dialog) bool { return d.State() == dialog.DialogStateTerminated }
	require.Equal(t, over(a), over(b), "%v (%v) and %v (%v)", a.State(), a.Cause(), b.State(), b.Cause())
}
