package storerecord_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/storerecord"
)

func TestEntryComesBack(t *testing.T) {
	for _, e := range []storerecord.Entry{
		{Fence: 1},
		{Fence: 1<<53 - 1, Owner: "node\x00", Data: []byte{0, 255}},
		{Fence: 7, Ended: true, Expires: time.UnixMilli(1_700_000_000_123)},
		{Fence: 2, Owner: "a", Mark: 12345, Due: time.UnixMilli(-5), Expires: time.UnixMilli(1), Data: bytes.Repeat([]byte("x"), 70_000)},
	} {
		got, err := storerecord.Decode(e.Encode())
		require.NoError(t, err)
		require.Equal(t, e, got)
	}
}

// What is no entry is refused, whatever it is.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(storerecord.Entry{Fence: 3, Owner: "a", Due: time.UnixMilli(9), Data: []byte("call")}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := storerecord.Decode(data)
		if err != nil {
			require.Zero(t, e)
			return
		}
		again, err := storerecord.Decode(e.Encode())
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
