package dialog_test

import (
	"flag"
	"testing"
	"time"

	"sipdialog.example/dialog/internal/stress"
)

var (
	stressSeed     = flag.Uint64("stress.seed", 0, "seed of the stress test's first round; 0 takes one at random")
	stressDuration = flag.Duration("stress.duration", 0, "how long the stress test runs; 0 is some seconds")
)

// TestStress does everything at once, at random: internal/stress says what.
func TestStress(t *testing.T) {
	duration := *stressDuration
	switch {
	case duration > 0:
	case testing.Short():
		duration = 2 * time.Second
	default:
		duration = 3 * time.Second
	}
	stress.Run(t, *stressSeed, duration)
}
