package takeover

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Unix(1000, 0)

func at(after time.Duration) time.Time { return start.Add(after) }

// looked looks up a key, and reports whether it was.
func looked(g *Gate[int], key int, outcome Outcome, now time.Time) bool {
	_, may := g.Begin(key, now)
	if may {
		g.End(key, outcome, now)
	}
	return may
}

// In no second there are more look-ups than allowed, whenever it begins.
func TestRateHoldsInEachSecond(t *testing.T) {
	const rate = 100
	g := New[int](rate, 0)
	var times []time.Duration
	for i := range 50_000 {
		now := time.Duration(i) * 100 * time.Microsecond
		if i >= 10_000 && i < 20_000 {
			continue // a quiet second does not add up
		}
		if looked(g, i, NotKept, at(now)) {
			times = append(times, now)
		}
	}
	require.Len(t, times, 4*rate)
	for i := rate; i < len(times); i++ {
		require.GreaterOrEqual(t, times[i]-times[i-rate], time.Second)
	}
}

// An outcome of the store is not asked for again within 64*T1; a failure is.
func TestOutcomesAreRemembered(t *testing.T) {
	for _, outcome := range []Outcome{NotKept, Ended, Unusable} {
		g := New[int](0, 0)
		require.True(t, looked(g, 1, outcome, at(0)))
		known, may := g.Begin(1, at(32*time.Second-1))
		require.False(t, may)
		require.Equal(t, outcome, known)
		require.True(t, looked(g, 2, outcome, at(time.Second)), "another key")
		require.True(t, looked(g, 1, outcome, at(32*time.Second)))
		g.Begin(3, at(100*time.Second))
		known2, flights := g.Held()
		require.Zero(t, known2, "what is too old is forgotten")
		require.Equal(t, 1, flights)
	}
	g := New[int](0, 0)
	for _, outcome := range []Outcome{Failed, Taken} {
		require.True(t, looked(g, 1, outcome, at(0)))
		require.True(t, looked(g, 1, outcome, at(0)))
	}
}

// A key that is being looked up is not looked up by another at the same time, and no more
// keys are than allowed.
func TestLookUpsAtOnce(t *testing.T) {
	g := New[int](0, 3)
	for key := range 3 {
		_, may := g.Begin(key, at(0))
		require.True(t, may)
	}
	outcome, may := g.Begin(3, at(0))
	require.False(t, may)
	require.Equal(t, Failed, outcome)
	g.End(0, Failed, at(0))
	outcome, may = g.Begin(1, at(0))
	require.False(t, may, "it is under way")
	require.Equal(t, Failed, outcome)
	_, may = g.Begin(3, at(0))
	require.True(t, may)
	g.End(1, Taken, at(0))
	g.End(2, Taken, at(0))
	g.End(3, Taken, at(0))
	known, flights := g.Held()
	require.Zero(t, known+flights)
}

// A flood of random keys does not grow without bound.
func TestMemoryIsBounded(t *testing.T) {
	g := New[int](0, 0)
	for key := range mostKnown + 100 {
		require.True(t, looked(g, key, NotKept, at(0)))
	}
	known, _ := g.Held()
	require.Equal(t, mostKnown, known)
	require.True(t, looked(g, 0, NotKept, at(0)), "the oldest was forgotten")
	g.Begin(-1, at(time.Hour))
	known, _ = g.Held()
	require.Zero(t, known)
	require.Nil(t, g.queue)
}

// Notices are looked at together, once for the first of them.
func TestNoticesAreCollected(t *testing.T) {
	var n Notices[int]
	require.Empty(t, n.Take())
	for range 2 {
		require.True(t, n.Add(1))
		require.False(t, n.Add(2))
		require.False(t, n.Add(1))
		require.Equal(t, map[int]struct{}{1: {}, 2: {}}, n.Take())
	}
	for key := range mostNotices + 10 {
		n.Add(key)
	}
	require.Len(t, n.Take(), mostNotices)
}

// An outcome without a look-up is remembered as long, and not longer for being noted again.
func TestOutcomeIsNoted(t *testing.T) {
	g := New[int](0, 0)
	require.False(t, g.Remembers(1, Unusable, at(0)))
	g.Note(1, Unusable, at(0))
	g.Note(1, Unusable, at(time.Second))
	require.True(t, g.Remembers(1, Unusable, at(32*time.Second-1)))
	require.False(t, g.Remembers(1, Ended, at(time.Second)))
	_, may := g.Begin(1, at(32*time.Second-1))
	require.False(t, may)
	require.False(t, g.Remembers(1, Unusable, at(32*time.Second)))
	known, _ := g.Held()
	require.Zero(t, known)
	g.Note(2, Taken, at(0))
	require.False(t, g.Remembers(2, Taken, at(0)))
}
