// Package journal passes log records to the handler of an application: in order, and
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

// Journal passes log records to the application's handler: in order, with no lock held, on
// a goroutine that exists only while records wait. So a blocking handler does not delay
// calls, and a record may be made under a lock. A nil Journal belongs to a stack without a
// log.
type Journal struct {
	// Set at construction.

	handler slog.Handler
	began   time.Time

	// The fields below are safe for concurrent use.

	box   mailbox.Mailbox
	tasks tasks.Group // of the one goroutine
	// debug is true if the handler accepts records of LevelDebug. asked is the time of the
	// last check, in seconds since began: the wall clock may be set.
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

// Debugs reports whether LevelDebug is enabled. It calls no code of the application, and
// may be called under a lock.
func (j *Journal) Debugs() bool { return j != nil && j.debug.Load() }

// Ask checks at most once a second whether the handler accepts records of LevelDebug, since
// the application may have switched that. It is called for each message, and does not wait.
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

// Dropped returns the number of records that were dropped.
func (j *Journal) Dropped() uint64 {
	if j == nil {
		return 0
	}
	return j.box.Dropped()
}

// Running returns 1 while the goroutine that calls the handler exists, else 0.
func (j *Journal) Running() int {
	if j == nil {
		return 0
	}
	return j.tasks.Running()
}

// Wait waits until the handler has got the present records, or ctx ends.
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

// recorder is the handler of Logger's result.
type recorder struct {
	journal *Journal
	// derive applies With and WithGroup to the application's handler. It is code of the
	// application, and runs where the handler runs.
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
