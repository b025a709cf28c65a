package dialog

import "strings"

// opError is an error as an exported method returns it: this package, the method,
// the reason, each of them once.
type opError struct {
	op     string
	reason error
}

func (e *opError) Error() string { return prefix + e.op + ": " + unprefixed(e.reason) }

func (e *opError) Unwrap() error { return e.reason }

const prefix = "dialog: "

func unprefixed(err error) string { return strings.TrimPrefix(err.Error(), prefix) }

// opErr names the method that returns an error: the caller's own, where one is made
// of others. nil stays nil.
func opErr(op string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *opError:
		return &opError{op, e.reason}
	case *StateError:
		own := *e
		own.Op = op
		return &own
	case *ResponseError:
		own := *e
		own.op = op
		return &own
	case *ShutdownError:
		return e // its text says so
	}
	return &opError{op, err}
}

// naming is opErr for the result of a method, which defers it.
func naming(op string, result *error) { *result = opErr(op, *result) }

// explanation is an error of this package with its reason: errors.Is finds both.
type explanation struct{ kind, reason error }

func (e *explanation) Error() string   { return e.kind.Error() + ": " + unprefixed(e.reason) }
func (e *explanation) Unwrap() []error { return []error{e.kind, e.reason} }

func explained(kind, reason error) error { return &explanation{kind, reason} }

// behind is what failed first, and what failed because of that, or next to it; either
// may be nil.
func behind(first, next error) error {
	switch {
	case first == nil:
		return next
	case next == nil || next.Error() == first.Error():
		return first
	}
	return explained(first, next)
}
