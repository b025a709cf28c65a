package refersub_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/refersub"
)

// RFC 3515 2.4.6: a NOTIFY names its REFER, or belongs to the first.
func TestTheREFERThatAnEventNames(t *testing.T) {
	two := map[string]string{"1 REFER": "first", "2 REFER": "second"}
	for event, want := range map[string]string{"refer": "first", "refer;id=1": "first", "refer;id=2": "second", "refer;id=3": ""} {
		require.Equal(t, want, refersub.Named(two, event, "1 REFER"), event)
	}
	require.Equal(t, "second", refersub.Named(map[string]string{"2 REFER": "second"}, "refer", "1 REFER"), "the only one")
	require.Empty(t, refersub.Named(map[string]string{"2 REFER": "second", "3 REFER": "third"}, "refer", "1 REFER"), "the first has ended")
}

func TestREFERsAreWaitedForInTheirOrder(t *testing.T) {
	var q refersub.Queue[string]
	next := func() string { r, _ := q.Next(); return r }
	q.Push("a")
	q.Push("b")
	q.Push("c")
	require.Equal(t, "a", next())
	require.Equal(t, "b", next())
	q.PutBack("a")
	require.Equal(t, "a", next(), "nobody waits for it any more")
	q.Drop("b")
	q.PutBack("b")
	require.Equal(t, "c", next())
	_, found := q.Next()
	require.False(t, found)
}

func TestREFERsWithoutAWaiterAreBounded(t *testing.T) {
	var q refersub.Queue[int]
	for i := range 1001 {
		q.Push(i)
	}
	first, found := q.Next()
	require.True(t, found)
	require.Equal(t, 1, first)
}

func TestAREFERIsFollowedOnce(t *testing.T) {
	var f refersub.Followable[string]
	f.Add("a", 2)
	f.Add("b", 2)
	oldest, dropped := f.Add("c", 2)
	require.True(t, dropped)
	require.Equal(t, "a", oldest)
	before := f.All()
	require.False(t, f.Take("a"))
	require.True(t, f.Take("b"))
	require.False(t, f.Take("b"))
	require.False(t, f.Has("b"))
	require.True(t, f.Has("c"))
	require.Equal(t, []string{"b", "c"}, before, "a list that was returned stays")
	_, dropped = f.Add("d", 2)
	require.False(t, dropped)
	require.Equal(t, []string{"c", "d"}, f.All())
}
