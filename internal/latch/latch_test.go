package latch

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// The effect of each call on earlier and later waiters.
func TestLatch(t *testing.T) {
	for name, row := range map[string]struct {
		do            func(l *Latch)
		before, after bool
	}{
		"nothing":         {func(*Latch) {}, false, false},
		"Open":            {(*Latch).Open, true, true},
		"Open twice":      {func(l *Latch) { l.Open(); l.Open() }, true, true},
		"Wake":            {(*Latch).Wake, true, false},
		"Wake twice":      {func(l *Latch) { l.Wake(); l.Wake() }, true, false},
		"Wake, then Open": {func(l *Latch) { l.Wake(); l.Open() }, true, true},
		"Open, then Wake": {func(l *Latch) { l.Open(); l.Wake() }, true, true},
		"OpenIf true":     {func(l *Latch) { l.OpenIf(true) }, true, true},
		"OpenIf false":    {func(l *Latch) { l.OpenIf(false) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var waited, alone Latch
			first, second := waited.C(), waited.C()
			require.Equal(t, first, second)
			row.do(&waited)
			row.do(&alone)
			require.Equal(t, row.before, isClosed(first))
			require.Equal(t, row.after, isClosed(waited.C()))
			require.Equal(t, row.after, isClosed(alone.C()), "without anybody who waits")
		})
	}
	require.Equal(t, unsafe.Sizeof(uintptr(0)), unsafe.Sizeof(Latch{}))
}

func TestALatchWithoutWaitersAllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var l Latch
		l.Wake()
		l.Open()
		l.C()
	}))
}
