package dialog

import (
	"context"
	"io"
	"log"
	"log/slog"
	"strings"
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

// safeHandler survives panics of the handler it wraps.
type safeHandler struct{ handler slog.Handler }

func (h safeHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }()
	return h.handler.Enabled(ctx, level)
}

func (h safeHandler) Handle(ctx context.Context, record slog.Record) error {
	defer func() { _ = recover() }()
	return h.handler.Handle(ctx, record)
}

func (h safeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return safeHandler{h.handler.WithAttrs(attrs)}
}

func (h safeHandler) WithGroup(name string) slog.Handler {
	return safeHandler{h.handler.WithGroup(name)}
}
