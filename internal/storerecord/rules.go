package storerecord

import (
	"time"

	"sipdialog.example/dialog"
)

// The rules of a dialog.Store, on the present entry, or nil. An engine reads it, has a rule
// change it, and writes the result if it has not been written meanwhile.

// Alive is the entry, or nil if it has expired.
func (e *Entry) Alive(now time.Time) *Entry {
	if e == nil || e.IsExpired(now) {
		return nil
	}
	return e
}

// IsExpired reports whether the entry counts as not there.
func (e *Entry) IsExpired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// Save returns the entry that a Save leaves.
func Save(now *Entry, r dialog.Record) (Entry, error) {
	if err := mayWrite(now, r.Fence); err != nil {
		return Entry{}, err
	}
	if now != nil && !now.Ended && now.Fence == r.Fence && now.Owner != r.Owner {
		return Entry{}, dialog.ErrMoved
	}
	return Of(r), nil
}

// mayWrite is what [dialog.Store.Check] says of an entry that is there, or nothing.
func mayWrite(now *Entry, fence uint64) error {
	switch {
	case now == nil || now.Fence < fence:
		return nil
	case now.Ended:
		return dialog.ErrEnded
	case now.Fence > fence:
		return dialog.ErrMoved
	}
	return nil
}

// Take returns the entry that a Take leaves.
func Take(now *Entry, owner string) (Entry, error) {
	switch {
	case now == nil:
		return Entry{}, dialog.ErrNotKept
	case now.Ended:
		return Entry{}, dialog.ErrEnded
	}
	taken := *now
	taken.Fence++
	taken.Owner = owner
	return taken, nil
}

// Peek returns the record that is there. It shares nothing with the entry.
func Peek(now *Entry, key dialog.StoreKey) (dialog.Record, error) {
	if _, err := Take(now, ""); err != nil {
		return dialog.Record{}, err
	}
	r := now.Record(key)
	r.Data = append([]byte(nil), r.Data...)
	return r, nil
}

// IsDue reports whether Due takes the entry.
func (e *Entry) IsDue(before time.Time) bool {
	return e != nil && !e.Ended && !e.Due.IsZero() && !e.Due.After(before)
}

// Claim returns the entry that Due leaves, and false when it is not due.
func Claim(now *Entry, before time.Time, owner string) (claimed Entry, due bool) {
	if !now.IsDue(before) {
		return Entry{}, false
	}
	claimed, _ = Take(now, owner)
	claimed.Due = before.Add(dialog.ClaimTime)
	return claimed, true
}

// Check returns the result of a Check.
func Check(now *Entry, fence uint64) error {
	if now == nil {
		return dialog.ErrNotKept
	}
	return mayWrite(now, fence)
}

// Drop returns the tombstone that a Drop leaves.
func Drop(now *Entry, fence uint64, expires time.Time) (Entry, error) {
	tomb := Entry{Fence: fence, Ended: true, Expires: expires}
	switch {
	case now == nil:
	case now.Ended:
		tomb.Fence = max(tomb.Fence, now.Fence)
	case now.Fence > fence:
		return Entry{}, dialog.ErrMoved
	}
	return tomb, nil
}
