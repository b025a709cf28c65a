// Package redis is a [dialog.Store] in Redis or Valkey, one server, replicated or a
// cluster: for several machines.
//
// A call is a hash with the fields f (fence), o (owner), d (due, in milliseconds by the
// server's clock), b (the snapshot), or for a tombstone f and t. It expires like any key of
// Redis. The due calls are in 256 sorted sets, one for each first byte of a
// StoreKey. The hash tag of a set puts its calls into one slot of a cluster:
//
//	sipdialog:{3f}:3f0c…    a call
//	sipdialog:{3f}:due      the due calls, by time
//
// The channel sipdialog:moved:OWNER has the notices for an owner about calls that were taken
// from it.
//
// Each operation is one script, and so is atomic. Times are sent to the server and returned
// as differences, so that different clocks do no harm.
package redis

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
)

// Options change how a Store works. The zero value is the default.
type Options struct {
	// Prefix is the prefix of all keys; empty means "sipdialog:". It must not have braces.
	Prefix string
}

// Store is a Store in Redis. Make it with [New].
type Store struct {
	client redis.UniversalClient
	prefix string
}

var (
	_ dialog.MoveNotifier = (*Store)(nil)
	_ dialog.Peeker       = (*Store)(nil)
	_ dialog.PromptStore  = (*Store)(nil)
)

// New returns a Store that uses a client, which the caller closes. Set
// ContextTimeoutEnabled in the client's options: without it an operation waits for the
// client's own timeouts, even if its context ends earlier, and each call costs the process more:
// see [Store.Prompt]. Nil opts mean the defaults.
func New(client redis.UniversalClient, opts *Options) *Store {
	prefix := "sipdialog:"
	if opts != nil && opts.Prefix != "" {
		prefix = opts.Prefix
	}
	return &Store{client: client, prefix: prefix}
}

// partition is the prefix of the keys of one slot.
func (s *Store) partition(first byte) string {
	return s.prefix + "{" + hex.EncodeToString([]byte{first}) + "}:"
}

// keys are the keys of a call and of the sorted set that it is in when it is due.
func (s *Store) keys(key dialog.StoreKey) []string {
	partition := s.partition(key[0])
	return []string{partition + key.String(), partition + "due"}
}

// Save is [dialog.Store.Save].
func (s *Store) Save(ctx context.Context, r dialog.Record) error {
	now := time.Now()
	return s.run(ctx, saveScript, s.keys(r.Key), r.Key.String(), r.Fence, r.Owner, after(now, r.Due), after(now, r.Expires), r.Data)
}

// Check is [dialog.Store.Check].
func (s *Store) Check(ctx context.Context, key dialog.StoreKey, fence uint64) error {
	return s.run(ctx, checkScript, s.keys(key)[:1], fence)
}

// Drop is [dialog.Store.Drop].
func (s *Store) Drop(ctx context.Context, key dialog.StoreKey, fence uint64, tomb time.Duration) error {
	return s.run(ctx, dropScript, s.keys(key), key.String(), fence, tomb.Milliseconds())
}

// Prompt is [dialog.PromptStore.Prompt]: nil for a client without ContextTimeoutEnabled, or one
// that is not of package redis.
func (s *Store) Prompt() dialog.Store {
	isPrompt := false
	switch client := s.client.(type) {
	case *redis.Client:
		isPrompt = client.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		isPrompt = client.Options().ContextTimeoutEnabled
	}
	if !isPrompt {
		return nil
	}
	return s
}

// DropAll is [dialog.PromptStore.DropAll]: one round trip for all calls of a server.
func (s *Store) DropAll(ctx context.Context, calls []dialog.Record, tomb time.Duration) []error {
	errs := make([]error, len(calls))
	if len(calls) > 1 {
		s.dropTogether(ctx, calls, tomb, errs)
		return errs
	}
	for i, r := range calls {
		errs[i] = s.Drop(ctx, r.Key, r.Fence, tomb)
	}
	return errs
}

// dropTogether sends all calls at once. Those that meet a server which does not have the
// script follow one by one: the first of them brings it.
func (s *Store) dropTogether(ctx context.Context, calls []dialog.Record, tomb time.Duration, errs []error) {
	answers := make([]*redis.Cmd, len(calls))
	_, _ = s.client.Pipelined(ctx, func(p redis.Pipeliner) error { // each answer has its error
		for i, r := range calls {
			answers[i] = dropScript.EvalSha(ctx, p, s.keys(r.Key), r.Key.String(), r.Fence, tomb.Milliseconds())
		}
		return nil
	})
	for i, r := range calls {
		word, err := answers[i].Text()
		switch {
		case err == nil:
			errs[i] = meaning(word)
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			errs[i] = s.Drop(ctx, r.Key, r.Fence, tomb)
		default:
			errs[i] = failed(ctx, err)
		}
	}
}

// run runs a script whose result is one word.
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	word, err := script.Run(ctx, s.client, keys, args...).Text()
	if err != nil {
		return failed(ctx, err)
	}
	return meaning(word)
}

// meaning is the error that a script's word means.
func meaning(word string) error {
	switch word {
	case "ok":
		return nil
	case "moved":
		return dialog.ErrMoved
	case "ended":
		return dialog.ErrEnded
	case "not kept":
		return dialog.ErrNotKept
	}
	return fmt.Errorf("redis: script answered %q", word)
}

// failed is the error of an operation; the context's where that has ended.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("redis: %w", err)
}

// after is a time as a script gets it, in milliseconds from now; empty for never.
func after(now, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return strconv.FormatInt(at.Sub(now).Milliseconds(), 10)
}

// at is a time as a script returns it.
func at(now time.Time, after string) (time.Time, error) {
	if after == "" {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(after, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("redis: time %q", after)
	}
	return now.Add(time.Duration(ms) * time.Millisecond), nil
}
