//go:build interop && linux

package peers

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/program"
)

// process is a program of others, which ends with its test, or with this program.
type process struct {
	*program.Program
	t *testing.T
}

// launch starts a program in a folder of its own.
func launch(t *testing.T, dir string, env []string, path string, args ...string) *process {
	t.Helper()
	p, err := program.Start(program.Command{Path: path, Args: args, Dir: dir, Env: env})
	require.NoError(t, err)
	p.EndsWith(t)
	return &process{p, t}
}

// types gives the program a line of input.
func (p *process) types(line string) {
	p.t.Helper()
	require.NoError(p.t, p.Type(line))
}

// says waits until the program has said something, after the first from bytes, and
// returns the number of bytes until then.
func (p *process) says(from int, text string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	found, err := p.Says(ctx, from, text)
	require.NoError(p.t, err)
	return found
}
