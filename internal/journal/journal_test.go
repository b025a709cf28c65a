package journal_test

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/journal"
)

// gate is a handler that takes records from its level on, and waits with each until it
// is opened.
type gate struct {
	level *slog.LevelVar
	open  chan struct{}
	out   slog.Handler
}

func (g gate) Enabled(_ context.Context, level slog.Level) bool { return level >= g.level.Level() }

func (g gate) Handle(ctx context.Context, r slog.Record) error {
	<-g.open
	return g.out.Handle(ctx, r)
}

func (g gate) WithAttrs(attrs []slog.Attr) slog.Handler {
	g.out = g.out.WithAttrs(attrs)
	return g
}

func (g gate) WithGroup(name string) slog.Handler {
	g.out = g.out.WithGroup(name)
	return g
}

func TestRecordsArriveInOrderThoughTheHandlerBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written bytes.Buffer
		g := gate{new(slog.LevelVar), make(chan struct{}), journal.Lines(log.New(&written, "", 0))}
		j := journal.New(g)
		logger := j.Logger().With("call", 1).WithGroup("of")
		logger.Info("first", "n", 1)
		logger.Info("second", "n", 2) // does not wait
		synctest.Wait()
		require.Equal(t, 1, j.Running())
		close(g.open)
		j.Wait(context.Background())
		require.Zero(t, j.Running(), "no goroutine without records")
		require.Equal(t, "level=INFO msg=first call=1 of.n=1\nlevel=INFO msg=second call=1 of.n=2\n", written.String())
	})
}

func TestRecordsBeyondTheBoundAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{new(slog.LevelVar), make(chan struct{}), slog.DiscardHandler}
		j := journal.New(g)
		j.Logger().Info("is being handled")
		synctest.Wait()
		for range 1005 {
			j.Logger().Info("waits")
		}
		require.EqualValues(t, 5, j.Dropped())
		close(g.open)
		j.Close(context.Background())
		j.Logger().Info("after the end")
		require.Zero(t, j.Running())
	})
}

func TestTheHandlerIsAskedForItsLevelOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{new(slog.LevelVar), make(chan struct{}), slog.DiscardHandler}
		close(g.open)
		j := journal.New(g)
		require.False(t, j.Debugs())
		g.level.Set(slog.LevelDebug)
		j.Ask()
		synctest.Wait()
		require.False(t, j.Debugs(), "it was asked less than a second ago")
		time.Sleep(time.Second)
		j.Ask()
		synctest.Wait()
		require.True(t, j.Debugs())
		require.True(t, j.Logger().Enabled(context.Background(), slog.LevelDebug))
	})
}

func TestNoHandlerIsNoJournal(t *testing.T) {
	j := journal.New(nil)
	require.Nil(t, j)
	j.Ask()
	j.Logger().Error("nobody hears")
	j.Wait(context.Background())
	j.Close(context.Background())
	require.False(t, j.Debugs())
	require.Zero(t, j.Dropped())
	require.Zero(t, j.Running())
}
