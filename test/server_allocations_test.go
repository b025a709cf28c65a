//go:build !race

package test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
)

// The allocations of a call at a server are bounded, see docs/performance.md: above all, no
// structs of requests are made without demand. The allocations of the peer are included.
func TestAllocationsOfACallAtAServerAreBounded(t *testing.T) {
	allocations, bytes := allocationsOfACall(t)
	t.Log(allocations, "allocations,", bytes, "bytes a call")
	require.LessOrEqual(t, allocations, uint64(120))
	require.LessOrEqual(t, bytes, uint64(13500))
}

// A Store costs a call some 6 KB at most, of which the store in memory is a part.
func TestAllocationsOfACallWithAStoreAreBounded(t *testing.T) {
	_, without := allocationsOfACall(t)
	more, with := allocationsOfACall(t, keeping(memory.New()))
	t.Log(more, "allocations,", with, "bytes a call,", with-without, "for the store")
	require.LessOrEqual(t, with, without+6<<10)
}

func allocationsOfACall(t *testing.T, change ...func(*dialog.StackConfig)) (allocations, bytes uint64) {
	t.Helper()
	const calls = 300
	server := newBenchServer(t, change...)
	defer server.close()
	for i := range calls { // tables and pools are filled
		server.call(i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range calls {
		server.call(calls + i)
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / calls, (after.TotalAlloc - before.TotalAlloc) / calls
}
