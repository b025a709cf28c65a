package testkit

import (
	"errors"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/testhook"
)

// Held is what a stack holds: zero, once its calls have ended and been forgotten.
func Held(s *dialog.Stack) testhook.Held { return s.Held(testhook.Key{}) }

// OnlyUnreachable reports whether a Shutdown with time enough has left nothing but
// calls whose peer has no place, a Contact that was damaged, and, where connections
// were lost meanwhile, those that have not confirmed their end.
func OnlyUnreachable(err error, lost bool) bool {
	var left *dialog.ShutdownError
	return err == nil || errors.As(err, &left) && (lost || left.Unanswered == 0) && left.Callbacks == 0
}
