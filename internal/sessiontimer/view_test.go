package sessiontimer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A timer that is restored goes on where it was.
func TestRestoredTimerGoesOn(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var agreed Timer
	agreed.NoteMinSE(120 * time.Second)
	agreed.Agree(then, Expires{Interval: 300 * time.Second, Refresher: UAS}, UAS)
	for name, row := range map[string]struct {
		away     time.Duration
		wait     time.Duration
		expireIn time.Duration
	}{
		"at once":                    {0, 150 * time.Second, 268 * time.Second},
		"before the refresh":         {100 * time.Second, 50 * time.Second, 168 * time.Second},
		"the refresh is overdue":     {200 * time.Second, 0, 68 * time.Second},
		"expired just now":           {268 * time.Second, 0, 32 * time.Second},
		"expired long ago":           {time.Hour, 0, 32 * time.Second},
		"a clock that is far behind": {-24 * time.Hour, 150 * time.Second, 268 * time.Second},
	} {
		now := then.Add(row.away)
		restored := Restore(agreed.View(), now)
		require.Equal(t, row.expireIn, restored.ExpiresAt().Sub(now), name)
		require.True(t, restored.Active(), name)
		require.False(t, restored.IsExpired(now), name)
		wait, ok := agreed.View().Resume(now)
		require.True(t, ok, name)
		require.Equal(t, row.wait, wait, name)
		asked, minSE := restored.Ask(Policy{})
		require.Equal(t, Expires{300 * time.Second, UAC}, asked)
		require.Equal(t, 120*time.Second, minSE)
	}
}

// The peer's refresh is not ours to send, until the session has expired.
func TestRestoredTimerOfThePeers(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var agreed Timer
	agreed.Agree(then, Expires{Interval: 300 * time.Second, Refresher: UAC}, UAS)
	_, ok := agreed.View().Resume(then.Add(267 * time.Second))
	require.False(t, ok)
	wait, ok := agreed.View().Resume(then.Add(268 * time.Second))
	require.True(t, ok)
	require.Zero(t, wait)

	var none Timer
	none.NoteMinSE(time.Minute)
	require.Equal(t, View{MinSE: time.Minute}, none.View())
	restored := Restore(none.View(), then)
	require.False(t, restored.Active())
	_, ok = none.View().Resume(then)
	require.False(t, ok)
}
