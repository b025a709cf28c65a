package test

import (
	"context"
	"encoding/json"
	"slices"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// crash ends a stack as kill -9 does: nothing that it still says is heard, and its
// connections are reset.
func (w *world) crash(s *dialog.Stack) {
	w.t.Helper()
	host := w.net.Host(s.Addr().Addr().String())
	w.hush(true)
	host.Unreachable(true)
	host.BreakStreams()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(ended) // its calls cannot be ended
	synctest.Wait()
	host.Unreachable(false)
	w.hush(false)
	w.stacks = slices.DeleteFunc(w.stacks, func(o *dialog.Stack) bool { return o == s })
}

func (w *world) hush(quiet bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = quiet
}

// written is a snapshot of a call as it is stored.
func (w *world) written(d *dialog.Dialog) []byte {
	w.t.Helper()
	snapshot, err := d.Snapshot()
	require.NoError(w.t, err)
	text, err := json.Marshal(snapshot)
	require.NoError(w.t, err)
	return text
}

// restored goes on with a call on a stack.
func (w *world) restored(s *dialog.Stack, text []byte) *dialog.Dialog {
	w.t.Helper()
	snapshot := new(dialog.Snapshot)
	require.NoError(w.t, json.Unmarshal(text, snapshot))
	d, err := s.Restore(context.Background(), snapshot)
	require.NoError(w.t, err)
	require.Equal(w.t, dialog.DialogStateEstablished, d.State())
	return d
}

// restart kills the stack of a call, and has another at the same address go on with it.
func (l *peerCall) restart(change ...func(*dialog.StackConfig)) *dialog.Stack {
	l.t.Helper()
	text := l.w.written(l.d)
	old, _ := l.w.stackAt(l.stack)
	l.w.crash(old)
	s := l.w.stack(l.stack.Addr().String(), change...)
	l.d = l.w.restored(s, text)
	return s
}
