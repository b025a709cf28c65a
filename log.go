package dialog

import (
	"context"
	"io"
	"log"
	"log/slog"
	"strings"

	"sipdialog.example/dialog/internal/tasks"
)

// newLogger returns the logger of a configuration: Slog, else Logger, else one
// that is silent. A panic in a handler of the application's costs its record
// only.
func newLogger(config *StackConfig) *slog.Logger {
	switch {
	case config.Slog != nil:
		return slog.New(safeHandler{config.Slog.Handler()})
	case config.Logger != nil:
		return slog.New(safeHandler{slog.NewTextHandler(lineWriter{config.Logger}, &slog.HandlerOptions{
			Level: slog.LevelInfo, ReplaceAttr: withoutTime,
		})})
	default:
		return slog.New(silentHandler{})
	}
}

// log returns the dialog's logger: each record carries the call's identity.
func (d *Dialog) log() *slog.Logger {
	if d.stack == nil || d.stack.log == nil {
		return slog.New(silentHandler{})
	}
	return d.stack.log.With("call_id", d.callID, "local_tag", d.localTag)
}

// logOf returns the logger of a request: each record carries its Call-ID. Those
// that got here have one.
func (s *Stack) logOf(tx serverTx) *slog.Logger {
	return s.log.With("call_id", callID(tx.Request()))
}

// lineWriter gives each line to a log.Logger, which has its own clock.
type lineWriter struct{ logger *log.Logger }

var _ io.Writer = lineWriter{}

func (w lineWriter) Write(line []byte) (int, error) {
	w.logger.Print(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// silentHandler drops everything, before it is formatted.
type silentHandler struct{}

func (silentHandler) Enabled(context.Context, slog.Level) bool  { return false }
func (silentHandler) Handle(context.Context, slog.Record) error { return nil }
func (h silentHandler) WithAttrs([]slog.Attr) slog.Handler      { return h }
func (h silentHandler) WithGroup(string) slog.Handler           { return h }

// safeHandler survives panics and runtime.Goexit of the handler it wraps:
// records come from read loops as well.
type safeHandler struct{ handler slog.Handler }

func (h safeHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	_, _ = tasks.Apart(func() { enabled = h.handler.Enabled(ctx, level) })
	return enabled
}

func (h safeHandler) Handle(ctx context.Context, record slog.Record) (err error) {
	_, _ = tasks.Apart(func() { err = h.handler.Handle(ctx, record) })
	return err
}

func (h safeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.of(func() slog.Handler { return h.handler.WithAttrs(attrs) })
}

func (h safeHandler) WithGroup(name string) slog.Handler {
	return h.of(func() slog.Handler { return h.handler.WithGroup(name) })
}

// of is safe as well, and stays h when there is no other.
func (h safeHandler) of(derive func() slog.Handler) slog.Handler {
	derived := h.handler
	_, _ = tasks.Apart(func() { derived = derive() })
	return safeHandler{derived}
}
