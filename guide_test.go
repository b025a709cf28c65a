package dialog_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var shownGo = regexp.MustCompile("(?ms)^```go\n(.*?)^```")

// The Go code that the guides show is that of the examples, which run.
func TestGuidesShowWhatTheExamplesRun(t *testing.T) {
	examples := ""
	files, err := filepath.Glob("example*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		examples += squeezed(read(t, file))
	}
	guides, err := filepath.Glob("docs/guide/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, guides)
	for _, guide := range guides {
		for _, m := range shownGo.FindAllStringSubmatch(read(t, guide), -1) {
			if !strings.Contains(examples, squeezed(m[1])) {
				t.Errorf("%s: no example has\n%s", guide, m[1])
			}
		}
	}
}
