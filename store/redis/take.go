package redis

import (
	"context"
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
	answer, err := takeScript.Run(ctx, s.client, s.keys(key)[:1], owner, s.channel("")).StringSlice()
	if err != nil {
		return dialog.Record{}, failed(ctx, err)
	}
	if len(answer) == 1 {
		return dialog.Record{}, meaning(answer[0])
	}
	return readRecord(key, owner, answer)
}

// readRecord reads a record that a script returns: its fence, when it is due, when it
// expires, and its data.
func readRecord(key dialog.StoreKey, owner string, answer []string) (r dialog.Record, err error) {
	if len(answer) != 4 {
		return r, fmt.Errorf("redis: script answered %d values", len(answer))
	}
	now := time.Now()
	r = dialog.Record{Key: key, Owner: owner, Data: []byte(answer[3])}
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
		claimed, err := s.claim(ctx, first, before, owner, n-len(list))
		list = append(list, claimed...)
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

// claim takes the calls that are due in one partition.
func (s *Store) claim(ctx context.Context, first byte, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	partition := s.partition(first)
	wait := after(time.Now(), before)
	answers, err := claimScript.Run(ctx, s.client, []string{partition + "due"}, partition, wait, owner, n, dialog.ClaimTime.Milliseconds(), s.channel("")).Slice()
	if err != nil {
		return nil, failed(ctx, err)
	}
	for _, answer := range answers {
		r, err := readClaimed(owner, answer)
		if err != nil {
			return list, err
		}
		list = append(list, r)
	}
	return list, nil
}

// readClaimed reads a record with its key before it.
func readClaimed(owner string, answer any) (dialog.Record, error) {
	values, _ := answer.([]any)
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = fmt.Sprint(value)
	}
	if len(texts) == 0 {
		return dialog.Record{}, fmt.Errorf("redis: script answered %v", answer)
	}
	key, err := dialog.ParseStoreKey(texts[0])
	if err != nil {
		return dialog.Record{}, fmt.Errorf("redis: %w", err)
	}
	return readRecord(key, owner, texts[1:])
}
