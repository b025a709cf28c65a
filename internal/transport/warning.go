package transport

import (
	"context"
	"log/slog"
	"time"

	"sipdialog.example/dialog/internal/rate"
)

// warnEvery is how often the log is told of one kind of trouble: peers, or resources
// that have run out, could fill it. Each is counted, and told at LevelDebug.
const warnEvery = 10 * time.Second

// warnings bounds the warnings of each kind.
type warnings struct {
	refused, accept, read *rate.Bucket
}

func newWarnings() warnings {
	due := func() *rate.Bucket { return rate.NewBucket(1 / warnEvery.Seconds()) }
	return warnings{refused: due(), accept: due(), read: due()}
}

// warn tells an operator, if that is due.
func (l *Layer) warn(due *rate.Bucket, text string, args ...any) {
	level := slog.LevelDebug
	if due.Take(time.Now()) {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "transport: "+text, args...)
}
