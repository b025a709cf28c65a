//go:build !race

package test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a call costs a server is bounded, see docs/performance.md: above all no
// structs are made of requests that nobody asks for. What the peer allocates is in it.
func TestAllocationsOfACallAtAServerAreBounded(t *testing.T) {
	const calls = 300
	server := newBenchServer(t)
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
	allocations, bytes := (after.Mallocs-before.Mallocs)/calls, (after.TotalAlloc-before.TotalAlloc)/calls
	t.Log(allocations, "allocations,", bytes, "bytes a call")
	require.LessOrEqual(t, allocations, uint64(120))
	require.LessOrEqual(t, bytes, uint64(13500))
}
