package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
)

// partitions is how many there are: as many as a StoreKey has first bytes.
const partitions = 256

// Take is [dialog.Store.Take].
func (s *Store) Take(ctx context.Context, key dialog.StoreKey, owner string) (dialog.Record, error) {
	if err := ctx.Err(); err != nil {
		return dialog.Record{}, err
	}
	return s.record(ctx, key, takeScript, owner, s.channel(""))
}

// Peek is [dialog.Peeker.Peek].
func (s *Store) Peek(ctx context.Context, key dialog.StoreKey) (dialog.Record, error) {
	if err := ctx.Err(); err != nil {
		return dialog.Record{}, err
	}
	return s.record(ctx, key, peekScript)
}

// record runs a script whose result is a record, or one word.
func (s *Store) record(ctx context.Context, key dialog.StoreKey, script *redis.Script, args ...any) (dialog.Record, error) {
	answer, err := script.Run(ctx, s.client, s.keys(key)[:1], args...).StringSlice()
	if err != nil {
		return dialog.Record{}, failed(ctx, err)
	}
	if len(answer) == 1 {
		return dialog.Record{}, meaning(answer[0])
	}
	return readRecord(key, answer)
}

// readRecord reads a record that a script returns: its fence, when it is due, when it
// expires, its data, and its owner.
func readRecord(key dialog.StoreKey, answer []string) (r dialog.Record, err error) {
	if len(answer) != 5 {
		return r, fmt.Errorf("redis: script answered %d values", len(answer))
	}
	now := time.Now()
	r = dialog.Record{Key: key, Owner: answer[4], Data: []byte(answer[3])}
	if _, err := fmt.Sscan(answer[0], &r.Fence); err != nil {
		return r, fmt.Errorf("redis: fence %q", answer[0])
	}
	if r.Due, err = at(now, answer[1]); err != nil {
		return r, err
	}
	r.Expires, err = at(now, answer[2])
	return r, err
}

// Due is [dialog.Store.Due]. It looks into all sorted sets at once, and then takes from
// those in which something is due, in random order, so that several callers do not meet.
func (s *Store) Due(ctx context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	return s.fromEach(ctx, before, n, func(first byte, most int) ([]dialog.Record, error) {
		return s.claim(ctx, first, before, owner, most)
	})
}

// DueIf is [dialog.Peeker.DueIf].
func (s *Store) DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(dialog.Record) bool) ([]dialog.Record, error) {
	return s.fromEach(ctx, before, n, func(first byte, most int) ([]dialog.Record, error) {
		wanted, err := s.wanted(ctx, first, before, most, usable)
		if err != nil || len(wanted) == 0 {
			return nil, err
		}
		return s.claim(ctx, first, before, owner, most, wanted...)
	})
}

// fromEach takes n records from the partitions in which something is due.
func (s *Store) fromEach(ctx context.Context, before time.Time, n int, take func(first byte, most int) ([]dialog.Record, error)) (list []dialog.Record, err error) {
	if err := ctx.Err(); err != nil || n <= 0 {
		return nil, err
	}
	ready, err := s.ready(ctx, before)
	if err != nil {
		return nil, err
	}
	for _, first := range ready {
		if len(list) >= n {
			break
		}
		taken, err := take(first, n-len(list))
		list = append(list, taken...)
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

// ready returns the partitions in which something is due.
func (s *Store) ready(ctx context.Context, before time.Time) ([]byte, error) {
	counts := make([]*redis.Cmd, partitions)
	order := rand.Perm(partitions)
	wait := after(time.Now(), before)
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, first := range order {
			counts[first] = p.Eval(ctx, readyText, []string{s.partition(byte(first)) + "due"}, wait)
		}
		return nil
	})
	if err != nil {
		return nil, failed(ctx, err)
	}
	var ready []byte
	for _, first := range order {
		if n, err := counts[first].Int(); err == nil && n > 0 {
			ready = append(ready, byte(first))
		}
	}
	return ready, nil
}

// page is how many records are shown at once.
const page = 100

// wanted returns the keys and fences of at most so many usable calls that are due in one
// partition.
func (s *Store) wanted(ctx context.Context, first byte, before time.Time, most int, usable func(dialog.Record) bool) (wanted []any, err error) {
	partition := s.partition(first)
	for from := 0; ; from += page {
		answers, err := dueScript.Run(ctx, s.client, []string{partition + "due"}, partition, after(time.Now(), before), page, from).Slice()
		if err != nil {
			return nil, failed(ctx, err)
		}
		for _, answer := range answers {
			values := texts(answer)
			if len(values) == 1 {
				wanted = append(wanted, values[0], "") // it has gone: claim forgets it
				continue
			}
			r, err := readKeyed(values)
			if err != nil {
				return nil, err
			}
			if usable(r) {
				wanted, most = append(wanted, values[0], values[1]), most-1
			}
			if most == 0 {
				return wanted, nil
			}
		}
		if len(answers) < page {
			return wanted, nil
		}
	}
}

// claim takes the calls that are due in one partition; of those that were seen, if any are
// given by key and fence.
func (s *Store) claim(ctx context.Context, first byte, before time.Time, owner string, most int, seen ...any) (list []dialog.Record, err error) {
	partition := s.partition(first)
	args := append([]any{partition, after(time.Now(), before), owner, dialog.ClaimTime.Milliseconds(), s.channel(""), most}, seen...)
	answers, err := claimScript.Run(ctx, s.client, []string{partition + "due"}, args...).Slice()
	if err != nil {
		return nil, failed(ctx, err)
	}
	for _, answer := range answers {
		r, err := readKeyed(texts(answer))
		if err != nil {
			return list, err
		}
		list = append(list, r)
	}
	return list, nil
}

// texts are the values of an answer.
func texts(answer any) []string {
	values, _ := answer.([]any)
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = fmt.Sprint(value)
	}
	return texts
}

// readKeyed reads a record with its key before it.
func readKeyed(values []string) (dialog.Record, error) {
	if len(values) == 0 {
		return dialog.Record{}, errors.New("redis: script answered nothing")
	}
	key, err := dialog.ParseStoreKey(values[0])
	if err != nil {
		return dialog.Record{}, fmt.Errorf("redis: %w", err)
	}
	return readRecord(key, values[1:])
}
