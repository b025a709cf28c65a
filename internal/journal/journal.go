// Package journal gives log records to the handler of an application: in order, and
// with no lock held.
package journal

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"sipdialog.example/dialog/internal/mailbox"
	"sipdialog.example/dialog/internal/tasks"
)

// maxRecords bounds the records that wait for the application's handler; more are
// dropped.
const maxRecords = 1000

// Journal gives log records to the application's handler: in order, on a goroutine of
// its own that exists only while there are records, with no lock held. So calls go on
// whatever the handler does, and a record may be made under a lock. nil is the journal
// of a stack without a log.
type Journal struct {
	// Set at construction.

	handler slog.Handler
	began   time.Time

	// What synchronises itself.

	box   mailbox.Mailbox
	tasks tasks.Group // of the one goroutine
	// debug is whether the handler takes records of LevelDebug, asked when it was
	// asked last, in seconds since began: the wall clock may be set.
	debug atomic.Bool
	asked atomic.Int64
}

// New returns nil for a nil handler.
func New(handler slog.Handler) *Journal {
	if handler == nil {
		return nil
	}
	j := &Journal{handler: handler, began: time.Now()}
	j.box.Go, j.box.Bound = j.tasks.Go, maxRecords
	_, _ = tasks.Apart(j.askNow)
	return j
}

// Logger returns a logger whose records go into the journal.
func (j *Journal) Logger() *slog.Logger {
	if j == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(recorder{journal: j})
}

// Debugs reports whether records of LevelDebug are wanted. It calls nothing of the
// application's, and may be called under a lock.
func (j *Journal) Debugs() bool { return j != nil && j.debug.Load() }

// Ask asks the handler once a second whether it takes records of LevelDebug, since the
// application may have switched that. It is called when a message passes, and does not
// wait.
func (j *Journal) Ask() {
	if j == nil {
		return
	}
	last, now := j.asked.Load(), int64(time.Since(j.began)/time.Second)
	if now != last && j.asked.CompareAndSwap(last, now) {
		j.box.Offer(j.askNow)
	}
}

func (j *Journal) askNow() { j.debug.Store(j.handler.Enabled(context.Background(), slog.LevelDebug)) }

// Dropped counts the records that were lost.
func (j *Journal) Dropped() uint64 {
	if j == nil {
		return 0
	}
	return j.box.Dropped()
}

// Running counts the goroutine on which the handler is called, while there is one.
func (j *Journal) Running() int {
	if j == nil {
		return 0
	}
	return j.tasks.Running()
}

// Wait waits until the present records have left, or ctx ends.
func (j *Journal) Wait(ctx context.Context) {
	if j != nil {
		j.tasks.Wait(ctx)
	}
}

// Close is Wait, and drops later records.
func (j *Journal) Close(ctx context.Context) {
	if j != nil {
		j.tasks.CloseIdle(ctx)
	}
}

// recorder is the handler of that logger.
type recorder struct {
	journal *Journal
	// derive makes the application's handler of those that With and WithGroup have
	// made: it is the application's code, and called where the records are.
	derive []func(slog.Handler) slog.Handler
}

func (r recorder) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || r.journal.Debugs()
}

func (r recorder) Handle(ctx context.Context, record slog.Record) error {
	own := record.Clone()
	r.journal.box.Offer(func() {
		handler := r.journal.handler
		for _, derive := range r.derive {
			handler = derive(handler)
		}
		if handler.Enabled(ctx, own.Level) {
			_ = handler.Handle(ctx, own) // whose errors are the application's
		}
	})
	return nil
}

func (r recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (r recorder) WithGroup(name string) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (r recorder) with(derive func(slog.Handler) slog.Handler) slog.Handler {
	return recorder{r.journal, append(r.derive[:len(r.derive):len(r.derive)], derive)}
}
