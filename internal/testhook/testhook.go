// Package testhook lets the tests of this module see the objects that a stack holds. Its
// types are internal, so that no other module can do so.
package testhook

import (
	"sipdialog.example/dialog/internal/registry"
	"sipdialog.example/dialog/internal/txn"
)

// Key is the argument of Stack.Held. Only this module can make one.
type Key struct{ _ struct{} }

// Held has the numbers of objects that a stack holds: zero, after its calls have ended.
type Held struct {
	registry.Sizes
	// Subscriptions is the number of REFER subscriptions in all calls that are left.
	Subscriptions int
	// TombstoneTimer is true while the timer that forgets ended calls runs.
	TombstoneTimer     bool
	Tasks, Byes, Calls int
	Transactions       txn.Counts
}
