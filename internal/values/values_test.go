package values

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type key string

func TestValuesAreThoseThatWereSetLast(t *testing.T) {
	var v Values
	require.Nil(t, v.Value(key("a")))
	v.Inherit(context.WithValue(context.Background(), key("a"), "inherited"))
	require.Equal(t, "inherited", v.Value(key("a")))
	v.Set(key("a"), 1)
	v.Set(key("b"), 2)
	require.Equal(t, 1, v.Value(key("a")))
	require.Equal(t, 2, v.Value(key("b")))
	require.Nil(t, v.Value("a"), "a key of another type")
	v.Set(key("a"), nil)
	require.Equal(t, "inherited", v.Value(key("a")))
}

func TestKeysAreComparable(t *testing.T) {
	for _, good := range []any{0, "", key("a"), struct{}{}, new(int), [1]any{1}} {
		require.True(t, IsKey(good), "%v", good)
	}
	var v Values
	v.Set(1, 1)
	for _, bad := range []any{nil, []int{}, map[int]int{}, func() {}, [1]any{[]int{}}, struct{ a any }{[]int{}}} {
		require.False(t, IsKey(bad), "%T", bad)
		require.Nil(t, v.Value(bad), "%T", bad)
	}
}

// No value is lost when many set theirs at once.
func TestValuesAreSetAtOnce(t *testing.T) {
	var v Values
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { v.Set(i, i); _ = v.Value(0) })
	}
	all.Wait()
	for i := range 50 {
		require.Equal(t, i, v.Value(i))
	}
}

// A context with the values keeps its own, and its own end; an inherited context ends
// nothing.
func TestContextHasTheValues(t *testing.T) {
	base, cancelBase := context.WithCancel(context.WithValue(context.Background(), key("base"), "base"))
	var v Values
	v.Inherit(base)
	v.Set(key("a"), "set")
	own, cancel := context.WithCancel(context.WithValue(context.Background(), key("a"), "own"))
	ctx := v.Context(own)
	require.Equal(t, "own", ctx.Value(key("a")))
	require.Equal(t, "base", ctx.Value(key("base")))
	child, stop := context.WithTimeout(ctx, time.Hour)
	defer stop()
	cancelBase()
	require.NoError(t, ctx.Err())
	require.NoError(t, child.Err())
	cancel()
	require.ErrorIs(t, child.Err(), context.Canceled)

	plain := v.Context(context.Background())
	require.NoError(t, plain.Err())
	grandchild, stop := context.WithCancel(plain)
	defer stop()
	require.NoError(t, grandchild.Err(), "the base has ended")
}
