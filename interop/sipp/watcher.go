package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sipdialog.example/dialog"
)

// watcher collects the notifications of a dialog. It registers after NewInvite has sent
// the INVITE. Earlier states are not replayed, so a caller's first states may be missing.
type watcher struct {
	dialog     *dialog.Dialog
	terminated chan struct{}
	late       bool // the call had ended when the watching began
	// body gets a value for each body.
	body chan struct{}

	// mu guards the fields below.
	mu         sync.Mutex
	seenStates []string
	seenBodies []string
}

func watch(d *dialog.Dialog) *watcher {
	w := &watcher{dialog: d, terminated: make(chan struct{}), body: make(chan struct{}, 1)}
	d.OnStateChange(w.stateChanged)
	d.OnBody(w.bodyCame)
	w.late = d.IsUAC() && d.State() == dialog.DialogStateTerminated
	return w
}

func (w *watcher) stateChanged(state dialog.DialogState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seenStates = append(w.seenStates, state.String())
	if state == dialog.DialogStateTerminated {
		close(w.terminated)
	}
}

func (w *watcher) bodyCame(body dialog.Body) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seenBodies = append(w.seenBodies, string(body.Data()))
	select {
	case w.body <- struct{}{}:
	default:
	}
}

// untilBodies waits until n bodies have come.
func (w *watcher) untilBodies(ctx context.Context, n int) error {
	for {
		w.mu.Lock()
		came := len(w.seenBodies)
		w.mu.Unlock()
		if came >= n {
			return nil
		}
		select {
		case <-w.body:
		case <-ctx.Done():
			return fmt.Errorf("%d bodies came, expected %d: %w", came, n, ctx.Err())
		}
	}
}

// untilTerminated waits for the last state.
func (w *watcher) untilTerminated(ctx context.Context) error {
	if w.late {
		return nil
	}
	select {
	case <-w.terminated:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("dialog is %s, and did not end: %w", w.dialog.State(), ctx.Err())
	}
}

// states compares the states seen with those expected. For a caller it compares only the
// end of the expected ones, and leaves out Ringing.
func (w *watcher) states(expected ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, due := w.seenStates, expected
	if w.dialog.IsUAC() {
		if len(seen) > 0 && seen[0] == dialog.DialogStateRinging.String() {
			seen = seen[1:]
		}
		due = due[max(0, len(due)-len(seen)):]
	}
	if !slices.Equal(seen, due) {
		return fmt.Errorf("states were %v, expected %v", seen, expected)
	}
	return nil
}

// bodies checks that there is one body for each part, which contains it, in this order.
func (w *watcher) bodies(parts ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seenBodies) != len(parts) {
		return fmt.Errorf("%d bodies came, expected %d", len(w.seenBodies), len(parts))
	}
	for i, part := range parts {
		if !strings.Contains(w.seenBodies[i], part) {
			return fmt.Errorf("body %d does not contain %q:\n%s", i+1, part, indent(w.seenBodies[i]))
		}
	}
	return nil
}
