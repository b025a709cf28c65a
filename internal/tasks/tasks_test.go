package tasks

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWaitReturnsWhenAllHaveEnded(t *testing.T) {
	var g Group
	var ended atomic.Int32
	for range 100 {
		require.True(t, g.Go(func() { ended.Add(1) }))
	}
	require.Zero(t, g.Wait(context.Background()))
	require.EqualValues(t, 100, ended.Load())
}

func TestWaitSaysHowManyAreLeft(t *testing.T) {
	var g Group
	leave := make(chan struct{})
	for range 3 {
		g.Go(func() { <-leave })
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, 3, g.Wait(ctx))
	close(leave)
	require.Zero(t, g.Wait(context.Background()))
}

func TestRunCountsTheCallingGoroutine(t *testing.T) {
	var g Group
	ran := false
	require.True(t, g.Run(func() {
		ran = true
		require.Equal(t, 1, g.Running())
	}))
	require.True(t, ran)
	require.Zero(t, g.Running())
}

func TestWaitWaitsForRunningGoroutines(t *testing.T) {
	var g Group
	entered, leave := make(chan struct{}), make(chan struct{})
	go g.Run(func() { close(entered); <-leave })
	<-entered
	g.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, 1, g.Wait(ctx))
	close(leave)
	require.Zero(t, g.Wait(context.Background()))
}

func TestAPanicIsCountedOut(t *testing.T) {
	var g Group
	require.Panics(t, func() { g.Run(func() { panic("as a test") }) })
	require.Zero(t, g.Running())
}

func TestNothingStartsAfterClose(t *testing.T) {
	var g Group
	g.Close()
	require.False(t, g.Run(func() { panic("must not run") }))
	require.False(t, g.Go(func() { panic("must not run") }))
	require.Zero(t, g.Running())
}

func TestApartEndsOnlyItsOwnGoroutine(t *testing.T) {
	for _, c := range []struct {
		f        func()
		panicked any
		returned bool
	}{
		{func() {}, nil, true},
		{func() { panic("here") }, "here", false},
		{runtime.Goexit, nil, false},
	} {
		panicked, returned := Apart(c.f)
		require.Equal(t, c.panicked, panicked)
		require.Equal(t, c.returned, returned)
	}
}

func TestGoexitIsCountedOut(t *testing.T) {
	var g Group
	g.Go(runtime.Goexit)
	require.Zero(t, g.Wait(context.Background()))
}

// FT10: no function begins between the wait and the close.
func TestCloseIdleClosesInTheMomentInWhichNothingRuns(t *testing.T) {
	var g Group
	leave := make(chan struct{})
	g.Go(func() { <-leave })
	left := make(chan int)
	go func() { left <- g.CloseIdle(context.Background()) }()
	for !hasWaiter(&g) {
		runtime.Gosched()
	}
	require.True(t, g.Go(func() { <-leave }), "it waits, and is not closed yet")
	close(leave)
	require.Zero(t, <-left)
	require.False(t, g.Go(func() {}))
	require.Zero(t, g.Running())
}

func hasWaiter(g *Group) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.idle != nil
}

func TestCloseIdleClosesWhenItsContextEnds(t *testing.T) {
	var g Group
	leave := make(chan struct{})
	g.Go(func() { <-leave })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, 1, g.CloseIdle(ctx))
	require.False(t, g.Go(func() {}))
	close(leave)
	require.Zero(t, g.Wait(context.Background()))
}
