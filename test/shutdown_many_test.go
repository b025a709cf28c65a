package test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/testkit"
)

// many is more calls than Shutdown ends at once, unanswered how many BYEs it leaves so.
const many, unanswered = 1700, 1000

func manyCalls(t *testing.T, test func(w *world, s *dialog.Stack, f *scriptedPeer)) {
	bubble(t, func(t *testing.T, w *world) {
		s, f := w.stack("10.0.0.1", func(c *dialog.StackConfig) { c.MaxDialogs = -1 }), w.scriptedPeer("10.0.0.9")
		defer f.close()
		w.stacks = nil // shut down by the test
		f.invite = []dialogtest.Response{takes}
		for range many {
			d, err := s.NewInvite(context.Background(), uri("far", f.ip), offer(offerSDP))
			require.NoError(t, err)
			require.NoError(t, d.(*dialog.Dialog).WaitAnswer(context.Background()))
		}
		synctest.Wait()
		f.silence()
		test(w, s, f)
	})
}

// RFC 3261 17.1.2.2 repeats a BYE after T1: the next calls end when the answers to
// those before have come, or once the peers have had half of that time.
// FA9: docs/concurrency.md (Shutdown) has the figures.
func TestShutdownOfManyCallsLetsTheFarEndsKeepUp(t *testing.T) {
	manyCalls(t, func(w *world, s *dialog.Stack, f *scriptedPeer) {
		began, done := time.Now(), make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		synctest.Wait()
		byes := w.sent("10.0.0.1", "BYE")
		require.Len(t, byes, unanswered)
		for _, bye := range byes[:800] {
			require.NoError(t, f.Reply(dialogtest.Received{From: bye.from, Message: bye.msg}, dialogtest.Response{Code: 200}))
		}
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.1", "BYE"), unanswered+500, "200 have not been answered")
		require.Zero(t, time.Since(began))
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		require.Len(t, w.sent("10.0.0.1", "BYE"), many)
		require.NoError(t, <-done, "each BYE was given 64*T1")
		require.Zero(t, testkit.Held(s))
	})
}

func TestShutdownOfManyCallsInHasteTellsAll(t *testing.T) {
	manyCalls(t, func(w *world, s *dialog.Stack, f *scriptedPeer) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(ctx) }()
		synctest.Wait()
		cancel()
		began := time.Now()
		var left *dialog.ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Zero(t, time.Since(began))
		require.Equal(t, many, left.Unanswered)
		require.Zero(t, left.Unreleased)
		require.Len(t, w.sent("10.0.0.1", "BYE"), many)
	})
}
