package dialog_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FA7: a busy machine takes more than four minutes, and compiling is silent: what is
// built is said before, and the limit leaves room.
func TestMakeSaysWhatIsBuiltAndLeavesTime(t *testing.T) {
	makefile := read(t, "Makefile")
	require.Contains(t, makefile, "\nTEST_TIMEOUT ?= 15m\n")
	require.Contains(t, makefile, "\nbuilding = @echo \"== building $(1)")
	for _, target := range []string{"test", "cover"} {
		_, recipe, found := strings.Cut(makefile, "\n"+target+": ")
		require.True(t, found, target)
		recipe, _, _ = strings.Cut(recipe, "\n\n")
		said, run, found := strings.Cut(recipe, "$(GO) test ")
		require.True(t, found, target)
		require.Contains(t, said, "$(call building,", target)
		require.Contains(t, run, "-timeout $(TEST_TIMEOUT) ", target)
	}
}

// FA6: a Go that cannot run the tests is named in one line, before each package
// says that it cannot be built.
func TestMakeNamesAnOldGo(t *testing.T) {
	_ = read(t, "scripts/need.sh") // go test's cache does not see what sh reads
	require.Contains(t, read(t, "go.mod"), "\ngo 1.25.0\n")
	for version, fits := range map[string]bool{
		"go1.9.7": false, "go1.24.13": false, "go1.25rc1": true, "go1.25.0": true, "go1.26": true, "go2.0": true,
		"devel go1.27-3f1a2b": true, "": false,
	} {
		tool := filepath.Join(t.TempDir(), "go")
		require.NoError(t, os.WriteFile(tool, []byte("#!/bin/sh\necho '"+version+"'\n"), 0o700))
		need := exec.Command("sh", "scripts/need.sh", "go")
		need.Env = append(os.Environ(), "GO="+tool)
		out, err := need.CombinedOutput()
		if fits {
			require.NoError(t, err, "%s: %s", version, out)
			continue
		}
		require.Error(t, err, version)
		require.Equal(t, 1, strings.Count(string(out), "\n"), "%s: %s", version, out)
		require.Contains(t, string(out), "Go 1.25.0 or later is needed and this is "+version)
	}
}
