package dialog

import (
	"fmt"

	"sipdialog.example/dialog/store"
)

// A Store keeps the calls of several processes, so that a call outlives its process: see
// [store.Store], and docs/cluster.md for the concept.
type Store = store.Store

// MoveNotifier, Peeker and PromptStore are what a Store may be besides, see [store.MoveNotifier],
// [store.Peeker] and [store.Prompt].
type (
	MoveNotifier = store.MoveNotifier
	Peeker       = store.Peeker
	PromptStore  = store.Prompt
)

// Record is a call in a [Store], see [store.Record].
type Record = store.Record

// ClaimTime is the time for which a record that Due has taken is not due again.
const ClaimTime = store.ClaimTime

// StoreKey names a call in a [Store]: a hash of its Call-ID and our tag.
type StoreKey = store.Key

// NewStoreKey returns the key of the call with that Call-ID and tag of ours.
func NewStoreKey(callID, localTag string) StoreKey { return store.NewKey(callID, localTag) }

// ParseStoreKey reads the text of String.
//
// Errors: ErrInvalidArgument.
func ParseStoreKey(text string) (key StoreKey, err error) {
	key, ok := store.ParseKey(text)
	if !ok {
		return key, opErr("ParseStoreKey", fmt.Errorf("%w: store key %q", ErrInvalidArgument, text))
	}
	return key, nil
}

// Errors of a [Store].
var (
	// ErrMoved says that another process has the call.
	ErrMoved = store.ErrMoved
	// ErrNotKept says that the Store does not have the call.
	ErrNotKept = store.ErrNotKept
	// ErrEnded says that the call has ended.
	ErrEnded = store.ErrEnded
)
