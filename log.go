package dialog

import (
	"io"
	"log"
	"log/slog"
	"strings"
)

// logHandler is the handler of the stack's log: Slog, else that of Logger, else nil.
func (c *StackConfig) logHandler() slog.Handler {
	switch {
	case c.Slog != nil:
		return c.Slog.Handler()
	case c.Logger != nil:
		return slog.NewTextHandler(lineWriter{c.Logger}, &slog.HandlerOptions{
			Level: slog.LevelInfo, ReplaceAttr: withoutTime,
		})
	default:
		return nil
	}
}

// log returns the dialog's logger: each record carries the call's identity.
func (d *Dialog) log() *slog.Logger {
	if d.stack == nil || d.stack.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.stack.log.With("call_id", d.callID, "local_tag", d.localTag)
}

// logOf returns the logger of a request: each record carries its Call-ID.
func (s *Stack) logOf(tx serverTx) *slog.Logger {
	return s.log.With("call_id", callID(tx.Message()))
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
