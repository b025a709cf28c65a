package redis

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
)

const (
	// listenAgain is the pause before a lost connection is opened again.
	listenAgain = time.Second
	// silence is the time after which a connection without a message is tried, and after
	// twice of which it counts as lost.
	silence = 30 * time.Second
)

// channel is the channel of an owner.
func (s *Store) channel(owner string) string { return s.prefix + "moved:" + owner }

// NotifyMoved is [dialog.MoveNotifier.NotifyMoved]. It has a goroutine and a connection of
// its own, until stop is called; the client is closed after that. Notices are lost while that
// connection is. A user of the server's who may not use the channels prefix + "moved:*" gets
// none.
func (s *Store) NotifyMoved(owner string, moved func(dialog.StoreKey)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go s.listen(ctx, s.channel(owner), moved)
	return cancel
}

// listen listens until ctx ends.
func (s *Store) listen(ctx context.Context, channel string, moved func(dialog.StoreKey)) {
	for ctx.Err() == nil {
		if err := s.listenOnce(ctx, channel, moved); errors.Is(err, redis.ErrClosed) {
			return
		}
		select {
		case <-time.After(listenAgain):
		case <-ctx.Done():
		}
	}
}

// listenOnce listens until the connection is lost.
func (s *Store) listenOnce(ctx context.Context, channel string, moved func(dialog.StoreKey)) error {
	subscription := s.client.Subscribe(ctx, channel)
	defer func() { _ = subscription.Close() }()
	interrupt := context.AfterFunc(ctx, func() { _ = subscription.Close() })
	defer interrupt()
	for tried := false; ; {
		received, err := subscription.ReceiveTimeout(ctx, silence)
		switch {
		case err == nil:
			tried = false
		case isTimeout(err) && !tried:
			tried = true
			err = subscription.Ping(ctx)
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		if message, ok := received.(*redis.Message); ok {
			if key, err := dialog.ParseStoreKey(message.Payload); err == nil {
				moved(key)
			}
		}
	}
}

func isTimeout(err error) bool {
	var failure net.Error
	return errors.As(err, &failure) && failure.Timeout()
}
