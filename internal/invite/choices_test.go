package invite

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// RFC 3261 13.2.2.4: the application chooses among the 2xx, one after the other.
func TestChoicesAreAskedForInOrder(t *testing.T) {
	var c Choices[string]
	queue := func(tag string, want Choosing) {
		t.Helper()
		does, ok := c.Queue(tag, "200 of "+tag, false)
		require.True(t, ok)
		require.Equal(t, want, does)
	}
	queue("a", Ask)
	queue("a", Wait) // repeated before it is asked about
	queue("b", Wait)
	queue("c", Wait)

	a, success, ok := c.Next()
	require.True(t, ok)
	require.Equal(t, "200 of a", success)
	_, _, ok = c.Next()
	require.False(t, ok, "it is being asked about")
	queue("a", Wait)
	pending, ok := c.Pending()
	require.True(t, ok)
	require.Equal(t, a, pending)

	_, ok = c.Decide(a + 1)
	require.False(t, ok, "not its turn")
	success, ok = c.Decide(a)
	require.True(t, ok)
	require.Equal(t, "200 of a", success)
	_, ok = c.Decide(a)
	require.False(t, ok, "the first decision stands")
	queue("a", Wait) // it is known until it has been carried out
	released, isOver := c.Decided(false)
	require.Empty(t, released)
	require.False(t, isOver)

	_, ok = c.Decide(a)
	require.False(t, ok, "a late timer")
	b, success, ok := c.Next()
	require.True(t, ok)
	require.Equal(t, "200 of b", success)
	_, ok = c.Decide(b)
	require.True(t, ok)
	released, isOver = c.Decided(true)
	require.Equal(t, []string{"200 of c"}, released)
	require.False(t, isOver)
	_, _, ok = c.Next()
	require.False(t, ok)
	_, ok = c.Pending()
	require.False(t, ok)
	_, ok = c.Decide(b)
	require.False(t, ok)
}

func TestChoicesEndWithTheLast2xx(t *testing.T) {
	var c Choices[int]
	require.False(t, c.Close(), "none waits")
	for i, tag := range []string{"a", "b"} {
		_, ok := c.Queue(tag, i, false)
		require.True(t, ok)
	}
	require.True(t, c.Close())
	for _, isLast := range []bool{false, true} {
		id, _, _ := c.Next()
		_, ok := c.Decide(id)
		require.True(t, ok)
		_, isOver := c.Decided(false)
		require.Equal(t, isLast, isOver)
	}
}

// RFC 3261 9.1, 15: a call that was given up takes the next 2xx, for its BYE.
func TestChoicesOfACallThatWasGivenUp(t *testing.T) {
	var c Choices[int]
	_, ok := c.Queue("a", 1, true)
	require.False(t, ok)
	_, ok = c.Queue("a", 1, false)
	require.True(t, ok)
	does, ok := c.Queue("a", 1, true)
	require.True(t, ok, "it waits already")
	require.Equal(t, Wait, does)
}

func TestChoicesAreBounded(t *testing.T) {
	var c Choices[int]
	for i := range MaxForks {
		does, _ := c.Queue(fmt.Sprint(i), i, false)
		require.NotEqual(t, Decline, does)
	}
	does, ok := c.Queue("x", 0, false)
	require.True(t, ok)
	require.Equal(t, Decline, does)
}
