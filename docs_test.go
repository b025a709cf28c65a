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
	asides    = regexp.MustCompile(`\((was|added|line added)[^|]*`)
	// quotes is a function, as "func internal/txn/missingHeader:", or a quotation.
	quotes = regexp.MustCompile("func ((?:\\w+/)*)([\\w.]+):|`([^`]+)`")
)

// TestProofsQuoteWhatStands keeps testdata/proofs.txt and the pages true: the tests
// they name exist, and the guards quoted stand in the functions named.
func TestProofsQuoteWhatStands(t *testing.T) {
	var tests strings.Builder
	for _, file := range sources(t, "_test.go") {
		tests.WriteString(read(t, file))
	}
	for _, page := range []string{"testdata/proofs.txt", "docs/testing.md", "docs/rfc.md"} {
		for _, name := range testNames.FindAllString(read(t, page), -1) {
			if !strings.Contains(tests.String(), "func "+name) {
				t.Errorf("%s: there is no %s", page, name)
			}
		}
	}
	folders := make(map[string]string)
	for _, row := range strings.Split(read(t, "testdata/proofs.txt"), "\n") {
		if row == "" || strings.HasPrefix(row, "#") {
			continue
		}
		cells := strings.Split(row, " | ")
		require.Len(t, cells, 4, row)
		checkQuotes(t, folders, cells[2])
	}
}

// checkQuotes reads a cell such as "func internal/txn/refuse: `guard`": each quote
// is in the function named before it. What stands in parentheses is what a test
// changed.
func checkQuotes(t *testing.T, folders map[string]string, cell string) {
	place, source := "", ""
	for _, m := range quotes.FindAllStringSubmatch(asides.ReplaceAllString(cell, ""), -1) {
		if m[2] != "" {
			place = m[1] + m[2]
			source = squeezed(function(folder(t, folders, m[1]), m[2]))
			continue
		}
		for _, part := range strings.Split(m[3], "…") {
			if source == "" || !strings.Contains(source, squeezed(part)) {
				t.Errorf("%s: %q does not stand there", place, part)
			}
		}
	}
}

// folder is all that a package's files say, its tests left out.
func folder(t *testing.T, known map[string]string, path string) string {
	if known[path] == "" {
		files, err := filepath.Glob(filepath.Join(".", path, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				known[path] += read(t, file)
			}
		}
	}
	return known[path]
}

// function returns the source of a function, or of a method such as "layer.close"
// or "close": of all that have the name.
func function(source, name string) (found string) {
	receiver, method, isMethod := strings.Cut(name, ".")
	if !isMethod {
		receiver, method = `\w+`, name
	}
	begins := regexp.MustCompile(`(?ms)^func (?:\(\w* ?\*?` + receiver + `(?:\[[\w, ]+\])?\) )?` + method + `(?:\[[^\]]*\])?\(.*?\n(?:}\n|\z)`)
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

// sources are the files of the tree with that suffix. What npm has installed is not ours.
func sources(t *testing.T, suffix string) (files []string) {
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, suffix) {
			files = append(files, path)
		}
		return err
	}))
	return files
}

var shownGo = regexp.MustCompile("(?ms)^```go\n(.*?)^```")

// The Go code that the guides show is that of programs and examples that run.
func TestGuidesShowWhatTheExamplesRun(t *testing.T) {
	// Programs run in make interop-sipp, or in tests of their own.
	running := squeezed(strings.Join(programsIn(t, "README.md"), "\n"))
	for _, pattern := range []string{"example*_test.go", "*/example*_test.go", "examples/*/*.go", "bench/peers/*/main.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			running += squeezed(read(t, file))
		}
	}
	guides, err := filepath.Glob("docs/guide/*.md")
	require.NoError(t, err)
	index := read(t, "docs/guide/README.md")
	for _, guide := range guides {
		if name := filepath.Base(guide); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/guide/README.md does not list %s", name)
		}
		for _, m := range shownGo.FindAllStringSubmatch(read(t, guide), -1) {
			if !strings.Contains(running, squeezed(m[1])) {
				t.Errorf("%s: no example has\n%s", guide, m[1])
			}
		}
	}
}

var pageLinks = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

// TestLinksOfThePagesLead keeps the links between the pages, and to files, true.
func TestLinksOfThePagesLead(t *testing.T) {
	for _, page := range sources(t, ".md") {
		for _, m := range pageLinks.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: a link leads to %s, which is not there", page, m[1])
			}
		}
	}
}

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
		declared = `^func \((\w+ )?\*?` + receiver + `(\[[\w, ]+\])?\) ` + method + `\(`
	}
	pattern := regexp.MustCompile(`(?m)` + declared)
	for _, file := range files {
		if pattern.MatchString(read(t, file)) {
			return file
		}
	}
	return ""
}

// wallClock is what makes a time of a number, or a number of a time, or takes the
// monotonic reading off: nothing may be timed by the result, since the wall clock can be
// set at any moment.
var wallClock = regexp.MustCompile(`\.(Unix(|Nano|Milli|Micro)|UTC)\(\)|\btime\.(Unix|UnixMilli|UnixMicro|Date|Parse)\(|\.Round\(0\)`)

// timeless are the lines in which that is right.
var timeless = map[string]string{
	"internal/transport/handshake.go":     "time.Unix(1, 0)) // long ago", // wherever the clock is
	"internal/storerecord/storerecord.go": "UnixMilli(",                   // what another process, or machine, reads
	"internal/testcert/testcert.go":       "NotBefore:",                   // what a certificate says
	"internal/callrecord/callrecord.go":   "now.UnixMilli()",              // what another process reads
}

// FN11: nothing in the library is timed by the wall clock.
func TestNothingIsTimedByTheWallClock(t *testing.T) {
	for _, file := range sources(t, ".go") {
		if strings.HasSuffix(file, "_test.go") || !isLibrary(file) {
			continue
		}
		for i, line := range strings.Split(read(t, file), "\n") {
			allowed := timeless[file]
			if wallClock.MatchString(line) && (allowed == "" || !strings.Contains(line, allowed)) {
				t.Errorf("%s:%d: %s", file, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// isLibrary leaves out programs.
func isLibrary(file string) bool {
	return !strings.Contains(file, "/") || strings.HasPrefix(file, "internal/") || strings.HasPrefix(file, "dialogtest/")
}

// The proxy of docs/cluster.md is the one that make ha runs: each line that the page shows of it
// stands there, in that order.
func TestClusterPageShowsTheProxyThatRuns(t *testing.T) {
	page, proxy := read(t, "docs/cluster.md"), read(t, "interop/ha/kamailio.cfg")
	_, shown, found := strings.Cut(page, "**Kamailio in front")
	require.True(t, found)
	shown, _, found = strings.Cut(shown, "**DNS SRV")
	require.True(t, found)
	lines := 0
	for _, line := range strings.Split(shown, "\n") {
		code, isCode := strings.CutPrefix(line, "    ")
		if !isCode || code == "…" {
			continue
		}
		lines++
		_, rest, found := strings.Cut(proxy, "\n"+code)
		if !found {
			t.Errorf("not there, or not in that order: %q", code)
			continue
		}
		proxy = rest
	}
	require.NotZero(t, lines)
}
