package dialog_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	glossaryNames = regexp.MustCompile("`([A-Za-z][\\w.]*)`")
	goFiles       = regexp.MustCompile(`\S+\.go`)
)

// TestGlossaryNamesWhatStands keeps docs/glossary.md true: each function and type of
// a row stands in a file of that row, and each file has one of them.
func TestGlossaryNamesWhatStands(t *testing.T) {
	rows := 0
	for _, row := range strings.Split(read(t, "docs/glossary.md"), "\n") {
		names, files := glossaryNames.FindAllStringSubmatch(row, -1), goFiles.FindAllString(row, -1)
		if !strings.HasPrefix(row, "|") || len(files) == 0 {
			continue
		}
		rows++
		require.NotEmpty(t, names, row)
		used := make(map[string]bool)
		for _, name := range names {
			file := declaringFile(t, files, name[1])
			require.NotEmpty(t, file, "%s stands in no file of its row: %s", name[1], row)
			used[file] = true
		}
		require.Len(t, used, len(files), "a file without a function: %s", row)
	}
	require.Greater(t, rows, 200)
}

// declaringFile returns the first of the files that declares a type, a function, or a
// method such as "Dialog.accept".
func declaringFile(t *testing.T, files []string, name string) string {
	receiver, method, isMethod := strings.Cut(name, ".")
	declared := `^(func ` + name + `\b|type ` + name + `\b|(var |const |\t)` + name + `( +=|,? \w))`
	if isMethod {
		declared = `^func \((\w+ )?\*?` + receiver + `(\[\w+\])?\) ` + method + `\(`
	}
	pattern := regexp.MustCompile(`(?m)` + declared)
	for _, file := range files {
		if pattern.MatchString(read(t, file)) {
			return file
		}
	}
	return ""
}
