package dialog_test

import (
	"regexp"
	"strings"
	"testing"
)

// wallClock is what makes a time of a number, or a number of a time, or takes the
// monotonic reading off: nothing may be timed by the result, since the wall clock can be
// set at any moment.
var wallClock = regexp.MustCompile(`\.(Unix(|Nano|Milli|Micro)|UTC)\(\)|\btime\.(Unix|UnixMilli|UnixMicro|Date|Parse)\(|\.Round\(0\)`)

// timeless are the lines in which that is right.
var timeless = map[string]string{
	"internal/transport/handshake.go":     "time.Unix(1, 0)) // long ago", // wherever the clock is
	"internal/storerecord/storerecord.go": "UnixMilli(",                   // what another process, or machine, reads
	"internal/testcert/testcert.go":       "NotBefore:",                   // what a certificate says
	"snapshot_call.go":                    "now.UnixMilli()",              // what another process reads
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
