package transport

import (
	"context"
	"log/slog"
	"time"

	"sipdialog.example/dialog/internal/rate"
)

// warnEvery is the interval of warnings of one kind: peers, or exhausted resources, could fill
// the log. Each event is counted, and logged at LevelDebug.
const warnEvery = 10 * time.Second

// warnings bounds the warnings of each kind.
type warnings struct {
	refused, accept, read *rate.Bucket
}

func newWarnings() warnings {
	due := func() *rate.Bucket { return rate.NewBucket(1 / warnEvery.Seconds()) }
	return warnings{refused: due(), accept: due(), read: due()}
}

// warn logs a warning, unless there was one shortly before.
func (l *Layer) warn(due *rate.Bucket, text string, args ...any) {
	level := slog.LevelDebug
	if due.Take(time.Now()) {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "transport: "+text, args...)
}
