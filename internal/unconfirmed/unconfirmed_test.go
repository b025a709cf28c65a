package unconfirmed_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/unconfirmed"
)

// call is a call of the tests: its name, and the last byte of its source.
type call struct {
	name   string
	source byte
}

func sourceOf(c call) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, c.source}) }

func TestTheCallThatHasWaitedLongestEndsFirst(t *testing.T) {
	u := unconfirmed.New(3, 2, 0, sourceOf)
	for _, row := range []struct {
		call call
		end  string
	}{
		{call{"a", 1}, ""},
		{call{"b", 2}, ""},
		{call{"c", 2}, ""},
		{call{"d", 2}, "b"}, // the oldest of its source, though a is older
		{call{"e", 1}, "a"}, // the oldest of all
		{call{"f", 1}, "c"},
		{call{"g", 1}, "e"},
	} {
		end, drop := u.Enter(row.call)
		require.Equal(t, row.end, end.name, row.call)
		require.Zero(t, drop, "the released are not bounded")
		require.LessOrEqual(t, u.Len(), 3)
	}
}

func TestACallThatLeavesEndsNoOther(t *testing.T) {
	u := unconfirmed.New(2, 2, 2, sourceOf)
	u.Enter(call{"a", 1})
	u.Enter(call{"b", 1})
	u.Leave(call{"a", 1})
	u.Leave(call{"a", 1}) // twice counts once
	u.Leave(call{"never came", 1})
	end, _ := u.Enter(call{"c", 1})
	require.Zero(t, end)
	require.Equal(t, 2, u.Len())
	end, _ = u.Enter(call{"d", 1})
	require.Equal(t, "b", end.name)
}

func oneSource(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }

func TestTheOldestOfTheReleasedIsDropped(t *testing.T) {
	u := unconfirmed.New(1, 0, 2, oneSource)
	for call := 1; call <= 3; call++ {
		_, drop := u.Enter(call)
		require.Zero(t, drop)
	}
	u.Leave(2) // its BYE was answered
	_, drop := u.Enter(4)
	require.Zero(t, drop)
	end, drop := u.Enter(5)
	require.Equal(t, 4, end)
	require.Equal(t, 1, drop)
}

func TestWithoutABoundNoCallEnds(t *testing.T) {
	u := unconfirmed.New(0, -1, 0, oneSource)
	for call := 1; call <= 1000; call++ {
		end, drop := u.Enter(call)
		require.Zero(t, end)
		require.Zero(t, drop)
	}
	require.Equal(t, 1000, u.Len())
}

func TestNilCountsNothing(t *testing.T) {
	var u *unconfirmed.Calls[int]
	end, drop := u.Enter(1)
	require.Zero(t, end)
	require.Zero(t, drop)
	u.Leave(1)
	require.Zero(t, u.Len())
}
