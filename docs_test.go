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
	quotes    = regexp.MustCompile("`([^`]+)`(?:, ([\\w.]+):)?")
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
// in the function named before it. What stands in parentheses is what a test
// changed.
func checkQuotes(t *testing.T, cell string) {
	place, source := "", ""
	for _, m := range quotes.FindAllStringSubmatch(asides.ReplaceAllString(cell, ""), -1) {
		if quote := m[1]; goFiles.MatchString(quote) {
			place = quote + ", " + m[2]
			source = squeezed(function(read(t, quote), m[2]))
			continue
		}
		for _, part := range strings.Split(m[1], "…") {
			if source == "" || !strings.Contains(source, squeezed(part)) {
				t.Errorf("%s: %q does not stand there", place, part)
			}
		}
	}
}

// function returns the source of a function, or of a method such as "layer.close"
// or "close": of all that have the name.
func function(source, name string) (found string) {
	receiver, method, isMethod := strings.Cut(name, ".")
	if !isMethod {
		receiver, method = `\w+`, name
	}
	begins := regexp.MustCompile(`(?ms)^func (?:\(\w* ?\*?` + receiver + `\) )?` + method + `\(.*?\n(?:}\n|\z)`)
	return strings.Join(begins.FindAllString(source, -1), "\n")
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
