package seal_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/store/seal"
)

func key(id string, fill byte) seal.Key {
	return seal.Key{ID: id, Secret: bytes.Repeat([]byte{fill}, 32)}
}

func keys(t *testing.T, list ...seal.Key) *seal.Keys {
	t.Helper()
	k, err := seal.New(list...)
	require.NoError(t, err)
	return k
}

func TestOpenReturnsTheSealedRecord(t *testing.T) {
	k := keys(t, key("", 1))
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("call"), 1000)} {
		sealed, err := k.Seal(data)
		require.NoError(t, err)
		require.False(t, len(data) > 1 && bytes.Contains(sealed, data))
		opened, err := k.Open(sealed)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, opened))
		again, err := k.Seal(data)
		require.NoError(t, err)
		require.NotEqual(t, sealed, again)
	}
}

func TestARecordThatWasChangedIsNotOpened(t *testing.T) {
	k := keys(t, key("a", 1))
	sealed, err := k.Seal([]byte("the call"))
	require.NoError(t, err)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		_, err := k.Open(changed)
		require.Error(t, err, i)
		_, err = k.Open(sealed[:i])
		require.Error(t, err, i)
	}
	_, err = k.Open([]byte(`{"v":1}`))
	require.ErrorIs(t, err, seal.ErrDamaged)
}

// While a key is being replaced, records of both are opened everywhere.
func TestKeysAreReplacedStepByStep(t *testing.T) {
	before := keys(t, key("old", 1))
	during := keys(t, key("old", 1), key("new", 2))
	after := keys(t, key("new", 2), key("old", 1))
	for _, sealing := range []*seal.Keys{before, during, after} {
		sealed, err := sealing.Seal([]byte("the call"))
		require.NoError(t, err)
		for _, opening := range []*seal.Keys{during, after} {
			opened, err := opening.Open(sealed)
			require.NoError(t, err)
			require.Equal(t, "the call", string(opened))
		}
	}
	sealed, err := after.Seal([]byte("the call"))
	require.NoError(t, err)
	_, err = before.Open(sealed)
	require.ErrorIs(t, err, seal.ErrUnknownKey)
	_, err = keys(t, key("new", 3)).Open(sealed)
	require.ErrorIs(t, err, seal.ErrDamaged)
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	for name, list := range map[string][]seal.Key{
		"none": nil, "short": {{ID: "a", Secret: make([]byte, 16)}},
		"two of a name": {key("a", 1), key("a", 2)}, "long name": {key(string(make([]byte, 256)), 1)},
	} {
		_, err := seal.New(list...)
		require.ErrorIs(t, err, seal.ErrKey, name)
	}
}
