package tombstone_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/tombstone"
)

const life = 32 * time.Second

var start = time.Unix(1e9, 0)

func key(n int) tombstone.Key {
	return tombstone.Key{CallID: "call" + strconv.Itoa(n), LocalTag: "ours", RemoteTag: "theirs"}
}

func TestACallIsRememberedForItsTime(t *testing.T) {
	s := tombstone.New[int](start, 10)
	_, found := s.Find(key(1))
	require.False(t, found)
	s.Add(start, life, key(1), 7)
	s.Add(start.Add(time.Second), life, key(2), 0)
	rest, found := s.Find(key(1))
	require.True(t, found)
	require.Equal(t, 7, rest)
	rest, found = s.Find(key(2))
	require.True(t, found)
	require.Zero(t, rest)

	for _, row := range []struct {
		at   time.Duration
		left int
		next time.Duration
	}{{0, 2, life}, {life - 1, 2, 1}, {life, 1, time.Second}, {life + time.Second, 0, 0}} {
		next, ok := s.Expire(start.Add(row.at))
		require.Equal(t, row.left > 0, ok, row.at)
		require.Equal(t, row.next, next, row.at)
		require.Equal(t, row.left, s.Len(), row.at)
	}
	_, found = s.Find(key(1))
	require.False(t, found)
}

// All three parts of a key count, and where one ends.
func TestEachPartOfAKeyCounts(t *testing.T) {
	s := tombstone.New[int](start, 10)
	s.Add(start, life, tombstone.Key{CallID: "ab", LocalTag: "c", RemoteTag: "d"}, 0)
	for _, other := range []tombstone.Key{
		{CallID: "a", LocalTag: "bc", RemoteTag: "d"}, {CallID: "ab", LocalTag: "cd"}, {CallID: "ab", LocalTag: "d", RemoteTag: "c"},
		{CallID: "AB", LocalTag: "c", RemoteTag: "d"}, {},
	} {
		_, found := s.Find(other)
		require.False(t, found, "%v", other)
	}
}

func TestTheOldestTombstoneIsForgottenFirst(t *testing.T) {
	s := tombstone.New[int](start, 2)
	for n := range 3 {
		s.Add(start, life, key(n), 1)
	}
	require.Equal(t, 2, s.Len())
	rest, found := s.Find(key(0))
	require.False(t, found)
	require.Zero(t, rest, "nothing of it is left")
	_, found = s.Find(key(2))
	require.True(t, found)
}

func TestClearForgetsAll(t *testing.T) {
	s := tombstone.New[int](start, 2)
	s.Add(start, life, key(1), 1)
	s.Clear()
	require.Zero(t, s.Len())
	_, ok := s.Expire(start)
	require.False(t, ok)
	s.Add(start, life, key(2), 1)
	require.Equal(t, 1, s.Len())
}
