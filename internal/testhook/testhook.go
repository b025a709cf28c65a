// Package testhook is how the tests of this module see what a stack holds. Its types
// are internal, so that no other module can ask.
package testhook

import "sipdialog.example/dialog/internal/txn"

// Key is what Stack.Held asks for. Only this module can make one.
type Key struct{ _ struct{} }

// Held is what a stack holds: nothing, in the end.
type Held struct {
	Dialogs, Aliases, Releasing, Subscribed, Replacing, Tombstones int
	// Sources are the addresses of which another number of calls is counted than
	// are in progress.
	Sources int
	// Subscriptions are those of the REFERs in what is left of all calls.
	Subscriptions int
	// TombstoneTimer is whether the timer runs that forgets the calls that have ended.
	TombstoneTimer     bool
	Tasks, Byes, Calls int
	Transactions       txn.Counts
}
