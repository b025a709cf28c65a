package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// revision is the content of a key: an entry, or nil, and the number of the message that
// has it.
type revision struct {
	entry  *storerecord.Entry
	number uint64
}

func (s *Store) subject(key dialog.StoreKey) string { return s.prefix + "call." + key.String() }

// read reads the entry of a call, from the leader of the stream.
func (s *Store) read(ctx context.Context, key dialog.StoreKey) (revision, error) {
	msg, err := s.last(ctx, s.subject(key))
	if msg == nil || err != nil {
		return revision{}, err
	}
	e, err := storerecord.Decode(msg.Data)
	if err != nil {
		return revision{}, fmt.Errorf("nats: %v: %w", key, err)
	}
	return revision{e.Alive(time.Now()), msg.Sequence}, nil
}

// last returns the message of a subject, or nil.
func (s *Store) last(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	msg, err := inBucket(ctx, s, func() (*jetstream.RawStreamMsg, error) { return s.stream.GetLastMsgForSubject(ctx, subject) })
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return msg, failed(ctx, err)
}

// write writes an entry if the revision that was read is still the latest.
func (s *Store) write(ctx context.Context, key dialog.StoreKey, now revision, next storerecord.Entry) error {
	life, lives := lifeOf(next.Expires)
	if !lives {
		return s.remove(ctx, now.number)
	}
	_, err := s.publish(ctx, s.subject(key), next.Encode(), life, jetstream.WithExpectLastSequencePerSubject(now.number))
	return err
}

func (s *Store) publish(ctx context.Context, subject string, data []byte, life time.Duration, opts ...jetstream.PublishOpt) (number uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if life > 0 {
		opts = append(opts, jetstream.WithMsgTTL(life))
	}
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}, opts...)
	if err != nil {
		return 0, failed(ctx, err)
	}
	return ack.Sequence, nil
}

// errLate says that a message was replaced or removed meanwhile.
var errLate = errors.New("nats: message replaced concurrently")

// remove removes a message; zero is none.
func (s *Store) remove(ctx context.Context, number uint64) error {
	if number == 0 {
		return nil
	}
	err := s.stream.DeleteMsg(ctx, number)
	if isGone(err) {
		return errLate
	}
	return failed(ctx, err)
}

// lifeOf is the time until an entry expires, in whole seconds as the server counts; zero:
// never. lives is false when it has expired.
func lifeOf(expires time.Time) (life time.Duration, lives bool) {
	if expires.IsZero() {
		return 0, true
	}
	life = time.Until(expires)
	return (life + time.Second - 1).Truncate(time.Second), life > 0
}

// isLate reports whether a write came to nothing because of another one.
func isLate(err error) bool {
	var e *jetstream.APIError
	return errors.Is(err, errLate) || errors.As(err, &e) && (e.ErrorCode == wrongSequence || e.ErrorCode == wrongSequenceReplicated)
}

// isGone reports whether the message to be removed was not there.
func isGone(err error) bool {
	var e *jetstream.APIError
	return errors.As(err, &e) && (e.ErrorCode == notFound || e.ErrorCode == removeFailed)
}

// Error codes of the server.
const (
	notFound                = 10037
	removeFailed            = 10057
	wrongSequence           = 10071
	wrongSequenceReplicated = 10164
)

// failed is the error of an operation; the context's where that has ended.
func failed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("nats: %w", err)
}
