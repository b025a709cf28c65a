package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// minute counts minutes since 1970.
type minute int64

func minuteOf(t time.Time) minute { return minute(t.Unix() / 60) }

const (
	// slack is how many minutes of the past are looked at once more: for clocks that
	// differ, and for a call that was being written. Older keys that lead to nothing are
	// removed.
	slack minute = 5
	// most is for how many minutes each is looked up by itself.
	most minute = 30
	// hintLife is how long a key by minute stays after its minute.
	hintLife = 24 * time.Hour
)

// hints are the keys by minute of one call while it is changed.
type hints struct {
	store *Store
	key   dialog.StoreKey
	// written is the key that was written, by its minute and number; zero: none.
	written minute
	number  uint64
}

func (s *Store) hint(m minute, key dialog.StoreKey) string {
	return fmt.Sprint(s.prefix, "due.", int64(m), ".", key)
}

// mark points a key by minute at the next entry, before that is written: a process that dies
// in between leaves a key without a call, not a call that cannot be found.
func (h *hints) mark(ctx context.Context, now, next *storerecord.Entry) error {
	if next.Due.IsZero() || next.Ended {
		next.Mark = 0
		return nil
	}
	// An entry that is due already is filed where the next Due looks.
	at := max(minuteOf(next.Due), minuteOf(time.Now()))
	switch {
	case now != nil && now.Mark != 0 && !now.Due.IsZero() && minuteOf(now.Due) == at:
		next.Mark = now.Mark
		return nil
	case h.written != at:
		number, err := h.store.publish(ctx, h.store.hint(at, h.key), nil, max(0, time.Until(next.Due)).Truncate(time.Second)+hintLife)
		if err != nil {
			return err
		}
		h.written, h.number = at, number
	}
	next.Mark = h.number
	return nil
}

// left removes the key by minute that has led to the entry before. It would do no harm,
// but cost time in each of several sweeps.
func (h *hints) left(ctx context.Context, before *storerecord.Entry, now storerecord.Entry) {
	if before != nil && before.Mark != now.Mark {
		_ = h.store.remove(ctx, before.Mark)
	}
}

// drop removes a key by minute that leads to nothing.
func (h *hints) drop(ctx context.Context) { _ = h.store.remove(ctx, h.number) }

// Due is [dialog.Store.Due].
func (s *Store) Due(ctx context.Context, before time.Time, owner string, n int) (list []dialog.Record, err error) {
	return s.DueIf(ctx, before, owner, n, func(dialog.Record) bool { return true })
}

// DueIf is [dialog.Peeker.DueIf].
func (s *Store) DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(dialog.Record) bool) (list []dialog.Record, err error) {
	if err := ctx.Err(); err != nil || n <= 0 {
		return nil, err
	}
	found, err := s.hinted(ctx, minuteOf(before))
	if err != nil {
		return nil, err
	}
	seen := min(minuteOf(before), minuteOf(time.Now()))
	for _, f := range found {
		if len(list) >= n {
			return list, nil
		}
		switch r, err := s.claim(ctx, f, before, owner, usable); {
		case err == nil:
			list = append(list, r)
		case errors.Is(err, errUnusable):
			seen = min(seen, f.minute) // it is still due then
		case !errors.Is(err, errNotDue):
			return list, err
		}
	}
	s.sweptUntil(seen)
	return list, nil
}

var (
	errNotDue   = errors.New("nats: not due")
	errUnusable = errors.New("nats: not usable")
)

// claim takes a call that is due, and usable.
func (s *Store) claim(ctx context.Context, f found, before time.Time, owner string, usable func(dialog.Record) bool) (dialog.Record, error) {
	former := ""
	claimed, err := s.change(ctx, f.key, func(now *storerecord.Entry) (storerecord.Entry, error) {
		claimed, due := storerecord.Claim(now, before, owner)
		switch {
		case !due:
			return storerecord.Entry{}, errNotDue
		case !usable(now.Record(f.key)):
			return storerecord.Entry{}, errUnusable
		}
		former = now.Owner
		return claimed, nil
	})
	if errors.Is(err, errNotDue) && f.minute < minuteOf(before)-slack {
		if err := s.forget(ctx, f); err != nil {
			return dialog.Record{}, err
		}
	}
	if err == nil {
		s.tellMoved(f.key, former, owner)
	}
	return claimed.Record(f.key), err
}

// forget removes an old key by minute unless the call still goes by it.
func (s *Store) forget(ctx context.Context, f found) error {
	msg, err := s.last(ctx, s.hint(f.minute, f.key))
	if msg == nil || err != nil {
		return err
	}
	now, err := s.read(ctx, f.key)
	if err != nil || now.entry != nil && now.entry.Mark == msg.Sequence {
		return err
	}
	if err := s.remove(ctx, msg.Sequence); !errors.Is(err, errLate) {
		return err
	}
	return nil
}

// found is a key by minute.
type found struct {
	minute minute
	key    dialog.StoreKey
}

// hinted returns the calls that may be due in a minute or before, in random order.
func (s *Store) hinted(ctx context.Context, until minute) (list []found, err error) {
	s.mu.Lock()
	from := min(s.swept, until) - slack
	s.mu.Unlock()
	filters := []string{s.prefix + "due.>"}
	if until-from < most {
		filters = filters[:0]
		for m := from; m <= until; m++ {
			filters = append(filters, fmt.Sprint(s.prefix, "due.", int64(m), ".*"))
		}
	}
	// Info writes to the handle it is called on, which other goroutines read.
	own, err := inBucket(ctx, s, func() (jetstream.Stream, error) { return s.js.Stream(ctx, s.config.Name) })
	if err != nil {
		return nil, failed(ctx, err)
	}
	for _, filter := range filters {
		info, err := own.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err != nil {
			return nil, failed(ctx, err)
		}
		for subject := range info.State.Subjects {
			if f, ok := s.found(subject); ok && f.minute <= until {
				list = append(list, f)
			}
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, nil
}

// found reads the subject of a key by minute.
func (s *Store) found(subject string) (f found, ok bool) {
	text, ok := strings.CutPrefix(subject, s.prefix+"due.")
	at, key, both := strings.Cut(text, ".")
	if !ok || !both {
		return f, false
	}
	number, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return f, false
	}
	parsed, err := dialog.ParseStoreKey(key)
	return found{minute(number), parsed}, err == nil
}

func (s *Store) sweptUntil(m minute) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept = max(s.swept, m)
}
