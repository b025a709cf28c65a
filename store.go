package dialog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// A Store keeps the calls of several processes, so that a call outlives the process that
// has it. What is in it is a [Record] a call. Each record has one owner, and a fence, a
// number that grows with each change of owner: whoever has a lower fence has lost the
// call. docs/cluster.md describes the whole; package storetest tests an implementation.
//
// A record that has expired is not there, and neither is one that was never saved or was
// forgotten by a Store that lost it. A call that was dropped leaves a tombstone, a fence
// without a record, for as long as Drop says.
//
// All methods may be called from any goroutine. They keep none of their arguments and
// return nothing that is used again. They return soon after ctx ends, with its error; the
// change may then have been made or not. Each can be repeated after an error: Save, Check
// and Drop come out the same, and a second Take is one more change of owner, to the same.
// An error that is none of this package's says that the Store is not reachable or broken.
type Store interface {
	// Save writes a record, whole, in place of the one before, the tombstone of a lower
	// fence included. The owner whose first Save of a call that is has fence 1.
	//
	// Errors: ErrMoved (the stored fence is higher, or the same with another owner),
	// ErrEnded (a tombstone with that fence or a higher one).
	Save(ctx context.Context, r Record) error
	// Take makes owner the owner of a record, with the next fence, and returns it so. Of
	// several at once each gets a fence of its own: who has the highest has the call.
	//
	// Errors: ErrNotKept, ErrEnded.
	Take(ctx context.Context, key StoreKey, owner string) (Record, error)
	// Check returns nil as long as nobody has a higher fence.
	//
	// Errors: ErrMoved (the stored fence is higher), ErrEnded (a tombstone with that fence
	// or a higher one), ErrNotKept (nothing is stored: save the call again).
	Check(ctx context.Context, key StoreKey, fence uint64) error
	// Drop puts a tombstone in place of a record, for that long; with tomb zero it leaves
	// nothing. It does so where nothing is stored, too, and returns nil for a call that was
	// dropped before.
	//
	// Errors: ErrMoved (the stored fence is higher: the record stays).
	Drop(ctx context.Context, key StoreKey, fence uint64, tomb time.Duration) error
	// Due takes, as Take does, records that are due at before, at most n, and returns
	// them. Each becomes due again [ClaimTime] after before, unless its new owner saves
	// it: so it goes to one of several callers, and to another when that one dies. Which
	// of the records are taken, when there are more, is not said.
	//
	// Records that are returned with an error have been taken all the same.
	Due(ctx context.Context, before time.Time, owner string, n int) ([]Record, error)
}

// Record is a call in a [Store].
type Record struct {
	Key StoreKey
	// Fence grows by one with each change of owner. It is 1 at least, and below 2^53.
	Fence uint64
	// Owner names the process that has the call, such as "node-7.3f9a".
	Owner string
	// Due is when somebody has to see to the call, whoever has it; zero: never.
	Due time.Time
	// Expires is when the Store forgets the record; zero: when it is dropped.
	Expires time.Time
	// Data is the call: a [Snapshot]. The Store does not look into it.
	Data []byte
}

// ClaimTime is how long a record that [Store.Due] has taken is not due again.
const ClaimTime = 30 * time.Second

// StoreKey names a call in a [Store]: a hash of its Call-ID and our tag. Any request of
// the peer's inside the call has both.
type StoreKey [16]byte

// NewStoreKey returns the key of the call with that Call-ID and tag of ours.
func NewStoreKey(callID, localTag string) StoreKey {
	sum := sha256.Sum256([]byte(callID + "\x00" + localTag))
	return StoreKey(sum[:len(StoreKey{})])
}

// ParseStoreKey reads what String has written.
//
// Errors: ErrInvalidArgument.
func ParseStoreKey(text string) (key StoreKey, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(key) {
		return key, opErr("ParseStoreKey", fmt.Errorf("%w: store key %q", ErrInvalidArgument, text))
	}
	return StoreKey(raw), nil
}

// String returns the key as 32 hex digits.
func (k StoreKey) String() string { return hex.EncodeToString(k[:]) }

// Errors of a [Store].
var (
	// ErrMoved says that another process has the call.
	ErrMoved = errors.New("dialog: call moved to another process")
	// ErrNotKept says that the Store has no such call.
	ErrNotKept = errors.New("dialog: call not kept")
	// ErrEnded says that the call has ended.
	ErrEnded = errors.New("dialog: call has ended")
)
