package rate

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Unix(1000, 0)

func taken(take func(time.Time) bool, n int, now time.Time) int {
	got := 0
	for range n {
		if take(now) {
			got++
		}
	}
	return got
}

func TestBucket(t *testing.T) {
	b := NewBucket(10)
	require.Equal(t, 10, taken(b.Take, 100, start))
	require.Equal(t, 5, taken(b.Take, 100, start.Add(500*time.Millisecond)))
	require.Equal(t, 10, taken(b.Take, 100, start.Add(time.Hour)))
	slow := NewBucket(0.5)
	require.Equal(t, 1, taken(slow.Take, 100, start))
	require.Equal(t, 0, taken(slow.Take, 100, start.Add(time.Second)))
	require.Equal(t, 1, taken(slow.Take, 100, start.Add(2*time.Second)))
}

func TestNoRateIsNoLimit(t *testing.T) {
	require.Equal(t, 100, taken(NewBucket(0).Take, 100, start))
	var none *Sources[string] = NewSources[string](-1, 1)
	require.True(t, none.Take("a", start))
}

func TestBucketIsExactUnderContention(t *testing.T) {
	b := NewBucket(100)
	var got atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			got.Add(int64(taken(b.Take, 100, start)))
		}()
	}
	all.Wait()
	require.EqualValues(t, 100, got.Load())
}

func TestSourcesDoNotTakeFromEachOther(t *testing.T) {
	s := NewSources[string](2, 10)
	require.Equal(t, 2, taken(func(now time.Time) bool { return s.Take("a", now) }, 5, start))
	require.Equal(t, 2, taken(func(now time.Time) bool { return s.Take("b", now) }, 5, start))
}

func TestSourcesAreBounded(t *testing.T) {
	s := NewSources[int](1, 100)
	for i := range 10000 {
		s.Take(i, start)
	}
	require.Len(t, s.buckets, 100)
	require.False(t, s.Take(5, start), "an old one still counts")
	require.False(t, s.Take(20000, start), "no room for a new one")
	require.True(t, s.Take(20000, start.Add(time.Second)), "the quiet ones are forgotten")
	require.LessOrEqual(t, len(s.buckets), 100)
}
