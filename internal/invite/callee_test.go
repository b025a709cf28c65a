package invite

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// RFC 3261 12.1.1, 15: each early dialog of a callee ends by itself, and the call with the last.
func TestEarlyDialogsOfACallee(t *testing.T) {
	var c Callee[*peer]
	require.Nil(t, c.Find("one"))
	require.Nil(t, c.Tagged("1"))
	one, two, three := &peer{Live("1")}, &peer{Live("2")}, &peer{Live("3")}
	c.Add("one", one)
	_, ok := c.CloseUnlessLast(one, nil)
	require.False(t, ok, "the last")
	c.Add("two", two)
	c.Add("three", three)
	require.Same(t, two, c.Find("two"))
	require.Same(t, three, c.Tagged("3"))
	require.Equal(t, []*peer{one, two, three}, c.All(nil))

	effects, ok := c.CloseUnlessLast(one, nil)
	require.True(t, ok)
	require.Equal(t, "close 1, end 1", show(effects))
	effects, ok = c.CloseUnlessLast(one, nil)
	require.True(t, ok, "it has ended already")
	require.Empty(t, effects)
	require.Same(t, one, c.Find("one"), "its name is not given again")
	require.Empty(t, c.Close(one, nil))

	require.Equal(t, "close 2, end 2", show(c.Choose(three, nil)))
	require.Empty(t, c.Choose(three, nil))
	_, ok = c.CloseUnlessLast(three, nil)
	require.False(t, ok)
	first := &peer{Live("first")} // that of the automatic 180 is not one of them
	require.Equal(t, "close first, end first", show(c.Close(first, nil)))
	require.Equal(t, "close 3, end 3", show(c.Choose(nil, nil)))
}

func TestEarlyDialogsOfACalleeAreBounded(t *testing.T) {
	var c Callee[*peer]
	for i := range MaxForks {
		require.False(t, c.IsFull())
		c.Add(fmt.Sprint(i), &peer{Live(fmt.Sprint(i))})
	}
	require.True(t, c.IsFull())
}
