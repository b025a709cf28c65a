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

func TestNothingStartsAfterClose(t *testing.T) {
	var g Group
	g.Close()
	require.False(t, g.Go(func() { panic("must not run") }))
	require.Zero(t, g.Running())
}

func TestGoexitIsCountedOut(t *testing.T) {
	var g Group
	g.Go(runtime.Goexit)
	require.Zero(t, g.Wait(context.Background()))
}
