package chromium

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// installing bounds the time for fetching packages, from a registry that may be slow.
const installing = 5 * time.Minute

// Bundle copies the files of a folder, installs the packages that its package-lock.json
// names, and makes one script of each program and all that it imports. It returns the
// folder of the copies, in which program.js has become program.bundle.js.
func Bundle(t testing.TB, folder string, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	files, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasPrefix(file.Name(), ".") || file.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, file.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, file.Name()), text, 0o600))
	}
	runs(t, dir, "npm", "ci", "--no-audit", "--no-fund")
	for _, program := range programs {
		runs(t, dir, filepath.Join(dir, "node_modules/.bin/esbuild"), program+".js", "--bundle", "--outfile="+program+".bundle.js")
	}
	return dir
}

func runs(t testing.TB, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), installing)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
}
