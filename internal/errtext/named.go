package errtext

import "strings"

// Prefix begins the text of each error that applications get, once.
const Prefix = "dialog: "

// Bare is the text of an error without Prefix.
func Bare(err error) string { return strings.TrimPrefix(err.Error(), Prefix) }

// Named is an error as an exported method returns it: Prefix, the method, the reason,
// each of them once.
type Named struct {
	Method string
	Reason error
}

func (e *Named) Error() string { return Prefix + e.Method + ": " + Bare(e.Reason) }

// Unwrap returns the reason.
func (e *Named) Unwrap() error { return e.Reason }

// explanation is an error with its reason: errors.Is finds both.
type explanation struct{ kind, reason error }

func (e *explanation) Error() string   { return e.kind.Error() + ": " + Bare(e.reason) }
func (e *explanation) Unwrap() []error { return []error{e.kind, e.reason} }

// Explained is an error of a kind with its reason: errors.Is finds both.
func Explained(kind, reason error) error { return &explanation{kind, reason} }

// Join joins the first failure and the next one, which it caused or which followed.
// Either may be nil.
func Join(first, next error) error {
	switch {
	case first == nil:
		return next
	case next == nil || next.Error() == first.Error():
		return first
	}
	return Explained(first, next)
}
