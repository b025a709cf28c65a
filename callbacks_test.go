package dialog

import (
	"log/slog"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// A function of the application's that panics, or ends its goroutine, is counted, and
// what has to follow follows; only a Goexit ends the caller.
func TestFunctionsOfTheApplicationAreGuarded(t *testing.T) {
	for name, row := range map[string]struct {
		callback func()
		panics   uint64
		returns  bool
	}{
		"returns":            {func() {}, 0, true},
		"panics":             {func() { panic("in the application") }, 1, true},
		"panics with nil":    {func() { panic(nil) }, 1, true},
		"ends its goroutine": {runtime.Goexit, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, followed, returns := new(Stack), false, false
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.guard(func() *slog.Logger { return slog.New(slog.DiscardHandler) }, name, row.callback, func() { followed = true })
				returns = true
			}()
			<-done
			require.True(t, followed)
			require.Equal(t, row.returns, returns)
			require.EqualValues(t, row.panics, s.counters.panics.Load())
		})
	}
}
