// Package greeter answers calls and hangs up after a minute. It shows how to test an
// application without sockets, and without waiting: see its test.
package greeter

import (
	"context"
	"time"

	"sipdialog.example/dialog"
)

// Patience is how long a call lasts.
const Patience = time.Minute

// Serve makes a stack answer every call with a session.
func Serve(stack *dialog.Stack, session dialog.Body) {
	stack.OnCall(func(call *dialog.Dialog) {
		if call.Accept(call.Context(), dialog.WithBody(session)) != nil {
			return // the caller was faster
		}
		select {
		case <-call.Done():
		case <-time.After(Patience):
			_ = call.Bye(context.Background(), "time is up")
		}
	})
}
