// Package nats is a [dialog.Store] in NATS JetStream, as a key-value bucket: for several
// machines. With three replicas no acknowledged change is lost when a server fails.
//
// The bucket has two kinds of keys:
//
//	call.<key>            a call
//	due.<minute>.<key>    that the call is due in that minute
//
// Each change of a call is written only if no other change was made since the read. The
// keys by minute are only an index: the call itself has the time at which it is due. Times
// are those of the processes, whose clocks should not differ by more than a minute.
//
// The server must be 2.11 or later, since calls expire one by one.
package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// Options change how a Store works. The zero value is the default.
type Options struct {
	// Bucket is the name of the key-value bucket; empty means "sipdialog".
	Bucket string
	// Replicas is the number of servers that have the bucket; zero means 1. It is used
	// only when the bucket is created.
	Replicas int
	// Memory keeps the bucket in memory and not in files. It is used only when the bucket
	// is created.
	Memory bool
}

// Store is a Store in JetStream. Make it with [Open].
type Store struct {
	js     jetstream.JetStream
	config jetstream.StreamConfig
	stream jetstream.Stream
	bucket string
	prefix string // of subjects

	mu sync.Mutex // guards swept
	// swept is the minute until which Due has seen everything; zero: nothing yet.
	swept minute
}

var (
	_ dialog.MoveNotifier = (*Store)(nil)
	_ dialog.Peeker       = (*Store)(nil)
)

// Open opens the bucket, and creates it if there is none. The caller closes the connection.
//
// Errors: those of nats.go; a bucket whose keys cannot expire one by one.
func Open(ctx context.Context, js jetstream.JetStream, opts Options) (*Store, error) {
	if opts.Bucket == "" {
		opts.Bucket = "sipdialog"
	}
	s := &Store{js: js, bucket: opts.Bucket, prefix: "$KV." + opts.Bucket + "."}
	s.config = jetstream.StreamConfig{
		Name: "KV_" + opts.Bucket, Subjects: []string{s.prefix + ">"}, Replicas: max(opts.Replicas, 1),
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowMsgTTL: true,
	}
	if opts.Memory {
		s.config.Storage = jetstream.MemoryStorage
	}
	stream, err := s.create(ctx)
	if err != nil {
		return nil, fmt.Errorf("nats: bucket %s: %w", opts.Bucket, err)
	}
	if c := stream.CachedInfo().Config; !c.AllowMsgTTL || c.AllowDirect || c.MaxMsgsPerSubject != 1 {
		return nil, fmt.Errorf("nats: bucket %s was not created by this package", opts.Bucket)
	}
	s.stream = stream
	return s, nil
}

// create creates the bucket unless it is there.
func (s *Store) create(ctx context.Context) (jetstream.Stream, error) {
	stream, err := s.js.CreateStream(ctx, s.config)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return s.js.Stream(ctx, s.config.Name)
	}
	return stream, err
}

// inBucket asks for something in the bucket. If there is none, since the server has lost
// everything, it is created, and asked once more: the owners save their calls again.
func inBucket[T any](ctx context.Context, s *Store, ask func() (T, error)) (T, error) {
	value, err := ask()
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return value, err
	}
	if _, err := s.create(ctx); err != nil {
		return value, err
	}
	return ask()
}

// Save is [dialog.Store.Save].
func (s *Store) Save(ctx context.Context, r dialog.Record) error {
	_, err := s.change(ctx, r.Key, func(now *storerecord.Entry) (storerecord.Entry, error) { return storerecord.Save(now, r) })
	return err
}

// Take is [dialog.Store.Take].
func (s *Store) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	former := ""
	taken, err := s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		taken, err := storerecord.Take(now, owner)
		if err == nil {
			former = now.Owner
		}
		return taken, err
	})
	if err != nil {
		return dialog.Record{}, err
	}
	s.tellMoved(key, former, owner)
	return taken.Record(key), nil
}

// Peek is [dialog.Peeker.Peek].
func (s *Store) Peek(ctx context.Context, key dialog.StoreKey) (dialog.Record, error) {
	now, err := s.read(ctx, key)
	if err != nil {
		return dialog.Record{}, err
	}
	return storerecord.Peek(now.entry, key)
}

// Check is [dialog.Store.Check].
func (s *Store) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	now, err := s.read(ctx, key)
	if err != nil {
		return err
	}
	return storerecord.Check(now.entry, fence)
}

// Drop is [dialog.Store.Drop].
func (s *Store) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	_, err := s.change(ctx, key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		return storerecord.Drop(now, fence, time.Now().Add(tomb))
	})
	return err
}

// change applies a rule to the present entry and writes the result; it starts again if another
// entry was written meanwhile.
func (s *Store) change(ctx context.Context, key dialog.StoreKey, rule func(now *storerecord.Entry) (storerecord.Entry, error)) (storerecord.Entry, error) {
	h := hints{store: s, key: key}
	for {
		now, err := s.read(ctx, key)
		if err != nil {
			return storerecord.Entry{}, err
		}
		next, err := rule(now.entry)
		if err != nil {
			h.drop(ctx)
			return storerecord.Entry{}, err
		}
		if err := h.mark(ctx, now.entry, &next); err != nil {
			return storerecord.Entry{}, err
		}
		switch err := s.write(ctx, key, now, next); {
		case err == nil:
			h.left(ctx, now.entry, next)
			return next, nil
		case !isLate(err):
			return storerecord.Entry{}, err
		}
	}
}
