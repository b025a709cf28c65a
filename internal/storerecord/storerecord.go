// Package storerecord writes a record of a dialog.Store as bytes, for engines that keep
// nothing but bytes.
package storerecord

import (
	"encoding/binary"
	"errors"
	"time"

	"sipdialog.example/dialog"
)

// Entry is what is stored under a key.
type Entry struct {
	Fence uint64
	Owner string
	// Due and Expires are zero for never.
	Due, Expires time.Time
	// Ended is true for a tombstone, which has nothing but a fence.
	Ended bool
	// Mark is the engine's own.
	Mark uint64
	Data []byte
}

// version is the first byte of an entry.
const version = 1

var errUnreadable = errors.New("storerecord: malformed entry")

// Of is the entry of a record.
func Of(r dialog.Record) Entry {
	return Entry{Fence: r.Fence, Owner: r.Owner, Due: r.Due, Expires: r.Expires, Data: r.Data}
}

// Record is the record of an entry.
func (e Entry) Record(key dialog.StoreKey) dialog.Record {
	return dialog.Record{Key: key, Fence: e.Fence, Owner: e.Owner, Due: e.Due, Expires: e.Expires, Data: e.Data}
}

// Encode writes an entry.
func (e Entry) Encode() []byte {
	data := make([]byte, 0, 40+len(e.Owner)+len(e.Data))
	data = append(data, version, flag(e.Ended))
	data = binary.AppendUvarint(data, e.Fence)
	data = binary.AppendUvarint(data, e.Mark)
	data = binary.AppendVarint(data, millis(e.Due))
	data = binary.AppendVarint(data, millis(e.Expires))
	data = binary.AppendUvarint(data, uint64(len(e.Owner)))
	data = append(data, e.Owner...)
	return append(data, e.Data...)
}

// Decode reads an entry. It shares nothing with data.
func Decode(data []byte) (e Entry, err error) {
	r := reader{rest: data}
	if r.byte() != version {
		return Entry{}, errUnreadable
	}
	e.Ended = r.byte() != 0
	e.Fence, e.Mark = r.uvarint(), r.uvarint()
	e.Due, e.Expires = fromMillis(r.varint()), fromMillis(r.varint())
	e.Owner = string(r.take(r.uvarint()))
	e.Data = append([]byte(nil), r.rest...)
	if r.failed {
		return Entry{}, errUnreadable
	}
	return e, nil
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// millis is a time as it is stored; zero for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// reader reads what is left of an entry. After a failure it reads zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) fail() {
	r.rest, r.failed = nil, true
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	value, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return value
}

func (r *reader) varint() int64 {
	value, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return value
}
