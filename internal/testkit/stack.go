package testkit

import (
	"errors"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testhook"
)

// Held returns the numbers of objects that a stack holds: zero, once its calls have ended
// and been forgotten.
func Held(s *dialog.Stack) testhook.Held { return s.Held(testhook.Key{}) }

// OnlyUnreachable reports whether a Shutdown with enough time has left only calls whose
// peer cannot be reached because of a damaged Contact, and, if lost is true, calls on lost
// connections that have not confirmed their end.
func OnlyUnreachable(err error, lost bool) bool {
	var left *dialog.ShutdownError
	return err == nil || errors.As(err, &left) && (lost || left.Unanswered == 0) && left.Callbacks == 0
}
