package sessiontimer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const s = time.Second

// RFC 4028 4.
func TestSessionExpiresHeaders(t *testing.T) {
	for value, want := range map[string]Expires{
		"":                               {},
		"1800":                           {1800 * s, Undecided},
		" 1800 ; refresher=uas":          {1800 * s, UAS},
		"90;x=y;Refresher=UAC":           {90 * s, UAC},
		`90;x="a;refresher=uas";y`:       {90 * s, Undecided},
		"90;refresher=me":                {90 * s, Undecided},
		"90;refresher":                   {90 * s, Undecided},
		"90;refresher=uac;refresher=uas": {90 * s, UAC},
		"0":                              {},
		"-1":                             {},
		"90s":                            {},
		"1800.5;refresher=uas":           {0, UAS},
		"4294967295":                     {4294967295 * s, Undecided},
		"4294967296":                     {},
		"99999999999999999999":           {},
		"1800, 90":                       {},
	} {
		require.Equal(t, want, ParseExpires(value), value)
	}
	for want, e := range map[string]Expires{
		"90": {90 * s, Undecided}, "90;refresher=uac": {90 * s, UAC}, "4294967295;refresher=uas": {4294967295 * s, UAS},
	} {
		require.Equal(t, want, e.String())
		require.Equal(t, e, ParseExpires(want))
	}
}

// RFC 4028 5.
func TestMinSEHeaders(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "120": 120 * s, " 120 ;x=y": 120 * s, "x": 0, "-5": 0, "4294967296": 0} {
		require.Equal(t, want, ParseMinSE(value), value)
	}
}

// RFC 4028 9: the requests that get 422.
func TestIntervalsThatAreTooSmall(t *testing.T) {
	for name, row := range map[string]struct {
		policy   Policy
		request  Request
		tooSmall bool
		smallest time.Duration
	}{
		"no timer asked for":                       {Policy{}, Request{SupportsTimer: true}, false, 90 * s},
		"the smallest":                             {Policy{}, Request{Expires{90 * s, 0}, 0, true}, false, 90 * s},
		"less than the smallest":                   {Policy{}, Request{Expires{89 * s, 0}, 0, true}, true, 90 * s},
		"a UAC that cannot be told":                {Policy{}, Request{Expires{89 * s, 0}, 0, false}, false, 90 * s},
		"less than our minimum":                    {Policy{MinSE: 120 * s}, Request{Expires{119 * s, UAC}, 0, true}, true, 120 * s},
		"our minimum":                              {Policy{MinSE: 120 * s}, Request{Expires{120 * s, UAS}, 0, true}, false, 120 * s},
		"a minimum of ours that is itself too low": {Policy{MinSE: 30 * s}, Request{Expires{60 * s, 0}, 0, true}, true, 90 * s},
		"our interval does not matter":             {Policy{Interval: 1800 * s}, Request{Expires{90 * s, 0}, 0, true}, false, 90 * s},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.tooSmall, row.policy.IsTooSmall(row.request))
			require.Equal(t, row.smallest, row.policy.Smallest())
		})
	}
}

// RFC 4028 9, table 2. NA are the rows that should not happen.
func TestRefresherThatIsGranted(t *testing.T) {
	for _, row := range []struct {
		supports       bool
		asked, granted Refresher
	}{
		{false, Undecided, UAS},
		{false, UAC, UAS}, // NA
		{false, UAS, UAS}, // NA
		{true, Undecided, UAC},
		{true, UAC, UAC},
		{true, UAS, UAS},
	} {
		for _, r := range []Request{
			{Expires{1800 * s, row.asked}, 0, row.supports}, // the UAC, or a proxy, asks
			{Expires{0, row.asked}, 0, row.supports},        // we do
		} {
			require.Equal(t, Expires{1800 * s, row.granted}, Policy{Interval: 1800 * s}.Grant(r), row)
		}
	}
}

// RFC 4028 9: the interval in the 2xx.
func TestIntervalThatIsGranted(t *testing.T) {
	for name, row := range map[string]struct {
		policy  Policy
		request Request
		granted time.Duration
	}{
		"nobody asks":                            {Policy{}, Request{SupportsTimer: true}, 0},
		"nobody asks, with a Min-SE":             {Policy{MinSE: 200 * s}, Request{MinSE: 100 * s, SupportsTimer: true}, 0},
		"the UAC asks":                           {Policy{}, Request{Expires{600 * s, 0}, 0, true}, 600 * s},
		"the UAC asks for less than we would":    {Policy{Interval: 1800 * s}, Request{Expires{600 * s, 0}, 0, true}, 600 * s},
		"the UAC asks for more than we would":    {Policy{Interval: 600 * s}, Request{Expires{1800 * s, 0}, 0, true}, 1800 * s},
		"a proxy asks":                           {Policy{}, Request{Expires{600 * s, 0}, 0, false}, 600 * s},
		"we ask":                                 {Policy{Interval: 600 * s}, Request{SupportsTimer: true}, 600 * s},
		"we ask a UAC without the timer":         {Policy{Interval: 600 * s}, Request{}, 600 * s},
		"we ask for less than the Min-SE":        {Policy{Interval: 600 * s}, Request{MinSE: 700 * s, SupportsTimer: true}, 700 * s},
		"we ask for less than our own minimum":   {Policy{600 * s, 900 * s}, Request{SupportsTimer: true}, 900 * s},
		"less than 90 s from who cannot be told": {Policy{}, Request{Expires{60 * s, 0}, 0, false}, 90 * s},
		"less than its own Min-SE":               {Policy{}, Request{Expires{100 * s, 0}, 120 * s, true}, 120 * s},
		"a negative configuration is none":       {Policy{Interval: -s}, Request{SupportsTimer: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			granted := row.policy.Grant(row.request)
			require.Equal(t, row.granted, granted.Interval)
			require.Equal(t, row.granted > 0, granted.Refresher != Undecided)
		})
	}
}

// RFC 4028 7.1, 7.4: the timer headers of our requests.
func TestTimerHeadersOfARequest(t *testing.T) {
	agreed := func(e Expires, role Refresher, minSEs ...time.Duration) (timer Timer) {
		for _, minSE := range minSEs {
			timer.NoteMinSE(minSE)
		}
		timer.Agree(time.Time{}, e, role)
		return timer
	}
	for name, row := range map[string]struct {
		timer  Timer
		policy Policy
		asked  Expires
		minSE  time.Duration
	}{
		"nothing wanted":                       {Timer{}, Policy{}, Expires{}, 0},
		"nothing wanted, but for a minimum":    {Timer{}, Policy{MinSE: 200 * s}, Expires{}, 0},
		"wanted":                               {Timer{}, Policy{Interval: 600 * s}, Expires{600 * s, Undecided}, 0},
		"less than the smallest":               {Timer{}, Policy{Interval: 60 * s}, Expires{90 * s, Undecided}, 0},
		"with a minimum of ours":               {Timer{}, Policy{600 * s, 120 * s}, Expires{600 * s, Undecided}, 120 * s},
		"with a minimum above it":              {Timer{}, Policy{600 * s, 700 * s}, Expires{700 * s, Undecided}, 700 * s},
		"the minimum that is the default":      {Timer{}, Policy{600 * s, 90 * s}, Expires{600 * s, Undecided}, 0},
		"agreed, we refresh as UAC":            {agreed(Expires{600 * s, UAC}, UAC), Policy{}, Expires{600 * s, UAC}, 0},
		"agreed, we refresh as UAS":            {agreed(Expires{600 * s, UAS}, UAS), Policy{}, Expires{600 * s, UAC}, 0},
		"agreed, the peer refreshes as UAS":    {agreed(Expires{600 * s, UAS}, UAC), Policy{}, Expires{600 * s, UAS}, 0},
		"agreed, the peer refreshes as UAC":    {agreed(Expires{600 * s, UAC}, UAS), Policy{}, Expires{600 * s, UAS}, 0},
		"agreed, not what we wanted":           {agreed(Expires{600 * s, UAC}, UAC), Policy{Interval: 1800 * s}, Expires{600 * s, UAC}, 0},
		"agreed on less than the smallest":     {agreed(Expires{10 * s, UAC}, UAC), Policy{}, Expires{90 * s, UAC}, 0},
		"turned off, and wanted":               {agreed(Expires{}, UAC), Policy{Interval: 600 * s}, Expires{600 * s, Undecided}, 0},
		"turned off":                           {agreed(Expires{}, UAC), Policy{}, Expires{}, 0},
		"after a 422":                          {agreed(Expires{600 * s, UAC}, UAC, 300*s), Policy{}, Expires{600 * s, UAC}, 300 * s},
		"after a 422 with the default":         {agreed(Expires{600 * s, UAC}, UAC, 90*s), Policy{}, Expires{600 * s, UAC}, 90 * s},
		"after a 422 with less than the least": {agreed(Expires{600 * s, UAC}, UAC, 5*s), Policy{}, Expires{600 * s, UAC}, 90 * s},
		"after several":                        {agreed(Expires{600 * s, UAC}, UAC, 200*s, 700*s, 300*s), Policy{}, Expires{700 * s, UAC}, 700 * s},
		"after a 422, with a larger of ours":   {agreed(Expires{600 * s, UAC}, UAC, 200*s), Policy{MinSE: 500 * s}, Expires{600 * s, UAC}, 500 * s},
	} {
		t.Run(name, func(t *testing.T) {
			asked, minSE := row.timer.Ask(row.policy)
			require.Equal(t, row.asked, asked)
			require.Equal(t, row.minSE, minSE)
		})
	}
}

// RFC 4028 7.3, 7.4: the timer headers of the request after a 422.
func TestTimerHeadersAfterA422(t *testing.T) {
	require.Equal(t, Expires{120 * s, UAC}, Expires{90 * s, UAC}.Raised(120*s))
	require.Equal(t, Expires{1800 * s, UAS}, Expires{1800 * s, UAS}.Raised(120*s))
	require.Equal(t, Expires{120 * s, Undecided}, Expires{}.Raised(120*s))
}

// RFC 4028 7.2, 9, 10: the refresher, and the times of the refresh and the BYE. A 2xx
// without a refresher breaks the rules; the UAC then refreshes.
func TestRefresherAndTimesAfterA2xx(t *testing.T) {
	for name, row := range map[string]struct {
		granted         Expires
		role            Refresher
		refresh, expiry time.Duration
	}{
		"none":                         {Expires{}, UAC, 0, 0},
		"we asked and refresh":         {Expires{1800 * s, UAC}, UAC, 900 * s, 1768 * s},
		"we asked, the peer refreshes": {Expires{1800 * s, UAS}, UAC, 0, 1768 * s},
		"we granted and refresh":       {Expires{1800 * s, UAS}, UAS, 900 * s, 1768 * s},
		"we granted, peer refreshes":   {Expires{1800 * s, UAC}, UAS, 0, 1768 * s},
		"no refresher, we asked":       {Expires{1800 * s, Undecided}, UAC, 900 * s, 1768 * s},
		"no refresher, we granted":     {Expires{1800 * s, Undecided}, UAS, 0, 1768 * s},
		"a third is more than 32 s":    {Expires{97 * s, UAC}, UAC, 48500 * time.Millisecond, 65 * s},
		"a third is 32 s":              {Expires{96 * s, UAC}, UAC, 48 * s, 64 * s},
		"a third is less than 32 s":    {Expires{90 * s, UAC}, UAC, 45 * s, 60 * s},
		"the smallest that can be":     {Expires{1 * s, UAC}, UAC, s / 2, s - s/3},
	} {
		t.Run(name, func(t *testing.T) {
			var timer Timer
			now := time.Unix(1000, 0)
			timer.Agree(now, row.granted, row.role)
			require.Equal(t, row.granted.Interval > 0, timer.Active())
			require.Equal(t, row.refresh, timer.RefreshIn())
			require.Equal(t, row.expiry, timer.ExpiresIn())
			if row.granted.Interval > 0 {
				require.Equal(t, now.Add(row.expiry), timer.ExpiresAt())
				require.False(t, timer.IsExpired(now.Add(row.expiry-1)))
				require.True(t, timer.IsExpired(now.Add(row.expiry)))
			}
			timer.Stop()
			require.False(t, timer.Active())
			require.False(t, timer.IsExpired(now.Add(time.Hour)))
		})
	}
}

// RFC 4028 7.2: the most recent 2xx takes effect, also one that turns the timer off.
func TestTheLatest2xxCounts(t *testing.T) {
	var timer Timer
	now := time.Unix(1000, 0)
	timer.Agree(now, Expires{90 * s, UAC}, UAC)
	timer.Agree(now.Add(40*s), Expires{90 * s, UAS}, UAC)
	require.False(t, timer.IsExpired(now.Add(60*s)))
	require.True(t, timer.IsExpired(now.Add(100*s)))
	require.Zero(t, timer.RefreshIn())
	timer.NoteMinSE(120 * s)
	timer.Agree(now.Add(50*s), Expires{}, UAC)
	require.False(t, timer.IsExpired(now.Add(time.Hour)))
	_, minSE := timer.Ask(Policy{Interval: 600 * s})
	require.Equal(t, 120*s, minSE, "the Min-SE of the dialog stays")
}

// RFC 4028 10: a failed refresh is tried again before the session expires.
func TestRefreshesAreTriedAgain(t *testing.T) {
	for _, row := range []struct{ interval, caller, callee time.Duration }{
		{1800 * s, 225 * s, 112500 * time.Millisecond}, {90 * s, 11250 * time.Millisecond, 5625 * time.Millisecond}, {4 * s, s, s},
	} {
		var timer Timer
		timer.Agree(time.Time{}, Expires{row.interval, UAC}, UAC)
		require.Equal(t, row.caller, timer.RetryIn(true))
		require.Equal(t, row.callee, timer.RetryIn(false))
	}
}
