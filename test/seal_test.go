package test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/store/memory"
	"sipdialog.example/dialog/store/seal"
)

// sealing encrypts the records of a stack.
func sealing(t *testing.T, id string) func(*dialog.StackConfig) {
	t.Helper()
	keys, err := seal.New(seal.Key{ID: id, Secret: bytes.Repeat([]byte(id[:1]), 32)})
	require.NoError(t, err)
	return func(c *dialog.StackConfig) { c.Seal, c.Open = keys.Seal, keys.Open }
}

// A reader of the store learns nothing of the call, and another process with the key goes on
// with it.
func TestRecordsAreSealed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment(sealing(t, "a"))
		l := w.incoming(p.old, w.peer(peerIP))
		require.NoError(t, p.ends(time.Minute))
		r, err := p.store.Take(context.Background(), dialog.NewStoreKey(l.callID, l.stackTag), "a thief")
		require.NoError(t, err)
		for _, secret := range []string{l.callID, farTag, peerIP, "m=audio"} {
			require.NotContains(t, string(r.Data), secret)
		}
		p.goesOn(l)
	})
}

// A record that cannot be opened ends no call: its peer tries again, perhaps elsewhere.
func TestARecordThatCannotBeOpenedGets503(t *testing.T) {
	for name, change := range map[string]func(*dialog.StackConfig){
		"another key": sealing(t, "b"),
		"no key":      func(*dialog.StackConfig) {},
		"panic": func(c *dialog.StackConfig) {
			c.Seal = func(data []byte) ([]byte, error) { return data, nil }
			c.Open = func([]byte) ([]byte, error) { panic("no") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				store := memory.New()
				old, _ := w.process(stackIP, store, sealing(t, "a"))
				other, _ := w.process(otherIP, store, change)
				third, _ := w.process(proxyIP, store, sealing(t, "a"))
				l := w.incoming(old, w.peer(peerIP))
				require.NoError(t, old.HandOver(context.Background()))
				l.stack = other.Addr()
				for range 2 {
					l.ask("INFO")
					require.Equal(t, 503, l.peer.final("INFO").StatusCode)
				}
				require.Empty(t, other.Dialogs())
				p := &deployment{world: w, new: third}
				p.goesOn(l)
			})
		})
	}
}

// A record that cannot be encrypted is not saved in plain text; the call continues.
func TestARecordThatCannotBeSealedIsNotSaved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.deployment(func(c *dialog.StackConfig) {
			c.Seal = func([]byte) ([]byte, error) { return nil, errors.New("no key") }
			c.Open = c.Seal
		})
		l := w.incoming(p.old, w.peer(peerIP))
		require.Zero(t, p.link.calls("Save"))
		require.EqualValues(t, 1, p.old.Stats().Unsaved)
		l.ask("BYE")
		require.Equal(t, 200, l.peer.final("BYE").StatusCode)
	})
	_, err := dialog.NewStack(&dialog.StackConfig{Store: memory.New(), Seal: func(b []byte) ([]byte, error) { return b, nil }})
	require.ErrorIs(t, err, dialog.ErrInvalidArgument)
}
