package rate

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASourceBeyondItsRateDoesNotUseUpTheRateOfAll(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	admission := NewAdmission(3, 2)
	for _, row := range []struct {
		source netip.Addr
		want   bool
	}{{a, true}, {a, true}, {a, false}, {a, false}, {b, true}, {b, false}} {
		require.Equal(t, row.want, admission.Admits(row.source, now))
	}
	require.True(t, NewAdmission(0, 0).Admits(a, now))
	require.True(t, Admission{}.Admits(a, now))
}
