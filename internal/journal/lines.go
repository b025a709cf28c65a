package journal

import (
	"log"
	"log/slog"
	"strings"
)

// Lines returns a handler that writes each record as a line of a log.Logger, which adds its
// own time. It does not accept records of LevelDebug.
func Lines(logger *log.Logger) slog.Handler {
	return slog.NewTextHandler(lineWriter{logger}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutTime})
}

type lineWriter struct{ logger *log.Logger }

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
