package errtext

import (
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAsIsFoundAndNotRead(t *testing.T) {
	kind := errors.New("kind")
	err := As(kind, &fs.PathError{Op: "open", Path: "x", Err: io.EOF})
	require.Equal(t, "open x: EOF", err.Error())
	require.ErrorIs(t, err, kind)
	require.ErrorIs(t, err, io.EOF)
	var path *fs.PathError
	require.ErrorAs(t, err, &path)
}

func TestLineSaysEachThingOnce(t *testing.T) {
	require.NoError(t, Line())
	require.Equal(t, io.EOF, Line(io.EOF))
	other := errors.New("other")
	err := Line(io.EOF, other, errors.New("EOF"))
	require.Equal(t, "EOF; other", err.Error())
	require.ErrorIs(t, err, io.EOF)
	require.ErrorIs(t, err, other)
}
