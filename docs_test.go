package dialog_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	testNames = regexp.MustCompile(`\bTest[A-Z]\w+`)
	quotes    = regexp.MustCompile("`([^`]+)`")
	asides    = regexp.MustCompile(`\((was|added|line added)[^|]*`)
	goFiles   = regexp.MustCompile(`^[\w/]+\.go$`)
)

// TestProofsQuoteWhatStands keeps docs/testing.md and docs/rfc.md true: the
// tests they name exist, and the guards quoted stand in the files named.
func TestProofsQuoteWhatStands(t *testing.T) {
	var tests strings.Builder
	for _, file := range sources(t, "_test.go") {
		tests.WriteString(read(t, file))
	}
	for _, page := range []string{"docs/testing.md", "docs/rfc.md"} {
		for _, name := range testNames.FindAllString(read(t, page), -1) {
			if !strings.Contains(tests.String(), "func "+name) {
				t.Errorf("%s: there is no %s", page, name)
			}
		}
	}
	_, rows, _ := strings.Cut(read(t, "docs/testing.md"), "## What proves each row")
	for _, row := range strings.Split(rows, "\n") {
		if cells := strings.Split(strings.ReplaceAll(row, `\|`, "\x00"), "|"); len(cells) > 4 {
			checkQuotes(t, strings.ReplaceAll(cells[3], "\x00", "|"))
		}
	}
}

// checkQuotes reads a cell such as "`file.go`, function: `guard`": each quote is
// in the file named before it. What stands in parentheses is what a test changed.
func checkQuotes(t *testing.T, cell string) {
	source, file := "", ""
	for _, quote := range quotes.FindAllStringSubmatch(asides.ReplaceAllString(cell, ""), -1) {
		if goFiles.MatchString(quote[1]) {
			file = quote[1]
			source = squeezed(read(t, file))
			continue
		}
		for _, part := range strings.Split(quote[1], "…") {
			if !strings.Contains(source, squeezed(part)) {
				t.Errorf("%s: %q does not stand there", file, part)
			}
		}
	}
}

// squeezed drops what differs between a line and its quotation.
func squeezed(code string) string {
	return strings.NewReplacer(" ", "", "\t", "", "\n", "", ";", "").Replace(code)
}

func read(t *testing.T, file string) string {
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(data)
}

func sources(t *testing.T, suffix string) (files []string) {
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, suffix) {
			files = append(files, path)
		}
		return err
	}))
	return files
}
