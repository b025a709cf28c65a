package sessiontimer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Another process has a reason to go on with a session once its refresh is late, and time
// to refresh it before it ends.
func TestDueAfterTheRefreshAndBeforeTheEnd(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		interval, ours, theirs time.Duration
	}{
		{90 * time.Second, 50 * time.Second, 50 * time.Second},
		{120 * time.Second, 75 * time.Second, 78 * time.Second},
		{1800 * time.Second, 1125 * time.Second, 1758 * time.Second},
	} {
		var timer Timer
		require.Zero(t, timer.DueAt())
		timer.Agree(then, Expires{row.interval, UAS}, UAS)
		require.Equal(t, row.ours, timer.DueAt().Sub(then))
		require.Greater(t, row.ours, timer.RefreshIn())
		timer.Agree(then, Expires{row.interval, UAC}, UAS)
		require.Equal(t, row.theirs, timer.DueAt().Sub(then))
		require.Less(t, max(row.ours, row.theirs), timer.ExpiresIn())
		timer.Stop()
		require.Zero(t, timer.DueAt())
	}
}
