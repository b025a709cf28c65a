// Package store is the interface between a stack and what keeps its calls outside of the process.
// Package dialog has the same types under the names Store, Record, StoreKey, MoveNotifier, Peeker
// and PromptStore. The engines are in folders of their own; docs/cluster.md describes the concept;
// package storetest tests an implementation.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
)

// A Store keeps the calls of several processes, so that a call outlives its process. It has
// one [Record] for each call. Each record has one owner, and a fence: a number that grows
// with each change of owner. A process with a lower fence has lost the call.
// docs/cluster.md describes the concept; package storetest tests an implementation.
//
// A record is not found if it has expired, was never saved, or was lost by the Store. A
// dropped call leaves a tombstone, a fence without a record, for the time given to Drop.
//
// All methods may be called from any goroutine. They do not keep their arguments, and do
// not use their results again. They return soon after ctx ends, with its error; the change
// may then have been made or not. Each can be repeated after an error: Save, Check and Drop
// have the same result, and a second Take is one more change of owner, to the same owner.
// An error that is not of this package means that the Store cannot be reached, or is
// broken.
type Store interface {
	// Save writes a whole record in place of the earlier one, or of a tombstone with a
	// lower fence. The first Save of a call has fence 1.
	//
	// Errors: ErrMoved (the stored fence is higher, or the same with another owner),
	// ErrEnded (a tombstone with that fence or a higher one).
	Save(ctx context.Context, r Record) error
	// Take makes owner the owner of a record, with the next fence, and returns the record.
	// Of several calls at once each gets another fence: the owner with the highest has the
	// call.
	//
	// Errors: ErrNotKept, ErrEnded.
	Take(ctx context.Context, key Key, owner string) (Record, error)
	// Check returns nil as long as no owner has a higher fence.
	//
	// Errors: ErrMoved (the stored fence is higher), ErrEnded (a tombstone with that fence
	// or a higher one), ErrNotKept (nothing is stored: save the call again).
	Check(ctx context.Context, key Key, fence uint64) error
	// Drop replaces a record by a tombstone for the time tomb; with zero it leaves nothing.
	// It also does so if nothing is stored, and returns nil for a call that was dropped
	// before.
	//
	// Errors: ErrMoved (the stored fence is higher: the record stays).
	Drop(ctx context.Context, key Key, fence uint64, tomb time.Duration) error
	// Due takes at most n records that are due at before, as Take does, and returns them.
	// Each becomes due again [ClaimTime] after before, unless its new owner saves it. So one
	// of several callers gets it, and another one if that process dies. If more than n are
	// due, the choice is not specified.
	//
	// Records that are returned together with an error have been taken too.
	Due(ctx context.Context, before time.Time, owner string, n int) ([]Record, error)
}

// A MoveNotifier is a [Store] that can tell an owner of calls that were taken from it. It
// is optional: without it a process learns from its next Check, within five minutes, that
// another one has a call.
type MoveNotifier interface {
	Store
	// NotifyMoved calls moved with the key of each call that another owner takes from
	// owner, until stop is called. It does not wait for the Store. moved may be called from
	// any goroutine, and returns at once. A key may be missed, or come more than once.
	NotifyMoved(owner string, moved func(Key)) (stop func())
}

// A Peeker is a [Store] that shows records without taking them. It is optional: with it a
// process that cannot go on with a call, because its record is of a later version for
// example, leaves it to its owner and to the other processes. Without it such a process finds
// that out when it has taken the call: its owner, if it lives, has lost it, and the next
// request of the peer brings it back.
type Peeker interface {
	Store
	// Peek returns a record as it stands.
	//
	// Errors: ErrNotKept, ErrEnded.
	Peek(ctx context.Context, key Key) (Record, error)
	// DueIf is Due for the records for which usable returns true; the others stay as they
	// are. usable gets a record as it stands, is called with no lock held, and may be called
	// more than once for a record.
	DueIf(ctx context.Context, before time.Time, owner string, n int, usable func(Record) bool) ([]Record, error)
}

// A Prompt is a [Store] whose calls cost a process less. It is optional.
type Prompt interface {
	Store
	// Prompt returns the Store itself, as a promise: whatever happens, its methods return
	// when ctx ends. Calls are then saved by the goroutine that waits for that. Nil is no
	// promise. A Store that embeds this one is another, of which nothing is known.
	Prompt() Store
	// DropAll is Drop of several calls, of which Key and Fence are set. It returns an error
	// or nil for each.
	DropAll(ctx context.Context, calls []Record, tomb time.Duration) []error
}

// Record is a call in a [Store].
type Record struct {
	Key Key
	// Fence grows by one with each change of owner. It is at least 1, and below 2^53.
	Fence uint64
	// Owner names the process that has the call, such as "node-7.3f9a".
	Owner string
	// Due is the time at which a process must work on the call; zero means never.
	Due time.Time
	// Expires is the time at which the Store forgets the record; zero means only Drop.
	Expires time.Time
	// Data is the call: a Snapshot of package dialog, as JSON. The Store does not read it.
	Data []byte
}

// ClaimTime is the time for which a record that [Store.Due] has taken is not due again.
const ClaimTime = 30 * time.Second

// Key names a call in a [Store]: a hash of its Call-ID and our tag. Every request of
// the peer inside the call has both.
type Key [16]byte

// NewKey returns the key of the call with that Call-ID and tag of ours.
func NewKey(callID, localTag string) Key {
	sum := sha256.Sum256([]byte(callID + "\x00" + localTag))
	return Key(sum[:len(Key{})])
}

// ParseKey reads the text of String, and reports false for any other.
func ParseKey(text string) (key Key, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(key) {
		return key, false
	}
	return Key(raw), true
}

// String returns the key as 32 hex digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Errors of a [Store].
var (
	// ErrMoved says that another process has the call.
	ErrMoved = errors.New("dialog: call moved to another process")
	// ErrNotKept says that the Store does not have the call.
	ErrNotKept = errors.New("dialog: no record of the call")
	// ErrEnded says that the call has ended.
	ErrEnded = errors.New("dialog: call has ended")
)
