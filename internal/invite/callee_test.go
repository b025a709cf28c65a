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
	_, ok := c.CloseUnlessLast(one, false, false, nil)
	require.False(t, ok, "the last")
	c.Add("two", two)
	c.Add("three", three)
	require.Same(t, two, c.Find("two"))
	require.Same(t, three, c.Tagged("3"))
	require.Equal(t, []*peer{one, two, three}, c.All(nil))

	require.Equal(t, "two", c.Name(two))
	effects, ok := c.CloseUnlessLast(one, false, false, nil)
	require.True(t, ok)
	require.Equal(t, "close 1, end 1", show(effects))
	effects, ok = c.CloseUnlessLast(one, false, false, nil)
	require.True(t, ok, "it has ended already")
	require.Empty(t, effects)
	require.Same(t, one, c.Find("one"), "its name is not given again")
	require.Empty(t, c.Close(one, nil))

	require.Equal(t, "close 2, end 2", show(c.Choose(three, nil)))
	require.Empty(t, c.Choose(three, nil))
	_, ok = c.CloseUnlessLast(three, false, false, nil)
	require.False(t, ok)
	first := &peer{Live("first")} // that of the automatic 180 is not one of them
	require.Equal(t, "close first, end first", show(c.Close(first, nil)))
	require.Equal(t, "close 3, end 3", show(c.Choose(nil, nil)))
}

// RFC 3261 15: where the call sends, once the caller has ended that early dialog.
func TestCalleeSendsInTheOldestThatIsLeft(t *testing.T) {
	first, one, two := &peer{Live("first")}, &peer{Live("1")}, &peer{Live("2")}
	for name, row := range map[string]struct {
		closed         []*peer
		e              *peer
		sends, besides bool
		effects        string
		ok             bool
	}{
		"the first":                     {nil, first, true, false, "close first, end first, select 1", true},
		"the first, the oldest is over": {[]*peer{one}, first, true, false, "close first, end first, select 2", true},
		"the first is the last":         {[]*peer{one, two}, first, true, false, "", false},
		"one beside the first":          {[]*peer{two}, one, false, true, "close 1, end 1", true},
		"one beside another":            {nil, one, false, false, "close 1, end 1", true},
		"one in which the call sends":   {nil, one, true, false, "close 1, end 1, select 2", true},
		"the last":                      {[]*peer{two}, one, true, false, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var c Callee[*peer]
			*first, *one, *two = peer{Live("first")}, peer{Live("1")}, peer{Live("2")}
			c.Add("one", one)
			c.Add("two", two)
			for _, e := range row.closed {
				c.Close(e, nil)
			}
			effects, ok := c.CloseUnlessLast(row.e, row.sends, row.besides, nil)
			require.Equal(t, row.ok, ok)
			require.Equal(t, row.effects, show(effects))
		})
	}
	var c Callee[*peer]
	require.Empty(t, c.Name(first))
}

func TestEarlyDialogsOfACalleeAreBounded(t *testing.T) {
	var c Callee[*peer]
	for i := range MaxForks {
		require.False(t, c.IsFull())
		c.Add(fmt.Sprint(i), &peer{Live(fmt.Sprint(i))})
	}
	require.True(t, c.IsFull())
}
