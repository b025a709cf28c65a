package errtext

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrefixMethodAndReasonStandOnceEach(t *testing.T) {
	kind, reason := errors.New("dialog: transport error"), errors.New("dialog: refused")
	err := error(&Named{"Bye", Explained(kind, reason)})
	require.EqualError(t, err, "dialog: Bye: transport error: refused")
	require.ErrorIs(t, err, kind)
	require.ErrorIs(t, err, reason)
	require.EqualError(t, &Named{"Bye", errors.New("plain")}, "dialog: Bye: plain")
}

func TestTwoFailuresAreJoinedUnlessTheyAreOne(t *testing.T) {
	first, next := errors.New("dialog: first"), errors.New("dialog: next")
	require.NoError(t, Join(nil, nil))
	require.Equal(t, next, Join(nil, next))
	require.Equal(t, first, Join(first, nil))
	require.Equal(t, first, Join(first, errors.New("dialog: first")))
	both := Join(first, next)
	require.EqualError(t, both, "dialog: first: next")
	require.ErrorIs(t, both, next)
}
