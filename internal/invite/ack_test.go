package invite

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 3261 13.3.1.4: T1 after the first, doubling up to T2, until 64*T1.
func TestTimesOfTheRepeated2xx(t *testing.T) {
	const t1, t2 = 500 * time.Millisecond, 4 * time.Second
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := Repetition{Seq: 7}
	now, at := start.Add(r.Begin(start, t1)), []time.Duration(nil)
	for {
		does, wait := r.Fire(now, t2)
		if does == GiveUp {
			break
		}
		require.Equal(t, Again, does)
		at = append(at, now.Sub(start))
		now = now.Add(wait)
	}
	seconds := func(list ...float64) (times []time.Duration) {
		for _, s := range list {
			times = append(times, time.Duration(s*float64(time.Second)))
		}
		return times
	}
	require.Equal(t, seconds(0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5), at)
	require.Equal(t, 64*t1, now.Sub(start))
}

func TestA2xxThatIsHeldIsNotRepeated(t *testing.T) {
	const t1, t2 = time.Second, 4 * time.Second
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := Repetition{Seq: 7}
	r.Begin(now, t1)
	r.Hold()
	for range 100 {
		now = now.Add(t1)
		does, wait := r.Fire(now, t2)
		require.Equal(t, Later, does, "also after 64*T1")
		require.Equal(t, t1, wait)
	}
	require.True(t, r.IsHeld())
	require.Equal(t, t1, r.LetGo(now, t1))
	require.False(t, r.IsHeld())
	require.Equal(t, uint32(7), r.Seq)
	does, wait := r.Fire(now.Add(t1), t2)
	require.Equal(t, Again, does)
	require.Equal(t, 2*t1, wait)
	does, _ = r.Fire(now.Add(64*t1-1), t2)
	require.Equal(t, Again, does)
	does, _ = r.Fire(now.Add(64*t1), t2)
	require.Equal(t, GiveUp, does)
}

// RFC 3261 13.2.2.4: what a repeated 2xx gets, in each state of the ACK.
func TestWhatARepeated2xxGets(t *testing.T) {
	type ack = ACK[string, string]
	for name, row := range map[string]struct {
		steps func(*ack)
		waits bool
		want  Answer
	}{
		"nothing was sent":                 {func(*ack) {}, false, Resume},
		"the application decides":          {func(*ack) {}, true, Nothing},
		"it is being sent":                 {func(a *ack) { a.Begin() }, false, Nothing},
		"it was sent":                      {func(a *ack) { a.Begin(); a.Sent("ack", true, "sdp") }, false, Resend},
		"that of another INVITE waits":     {func(a *ack) { a.Sent("ack", true, "sdp") }, true, Resend},
		"it could not be sent":             {func(a *ack) { a.Begin(); a.Sent("", false, "sdp") }, false, Resume},
		"likewise, and the call is over":   {func(a *ack) { a.Sent("", false, "sdp") }, true, Nothing},
		"no 2xx can come":                  {func(a *ack) { a.Sent("ack", true, "sdp"); a.Forget() }, false, Nothing},
		"it was sent when none could come": {func(a *ack) { a.Begin(); a.Forget(); a.Sent("ack", true, "sdp") }, false, Nothing},
	} {
		t.Run(name, func(t *testing.T) {
			var a ack
			row.steps(&a)
			does, sent, body := a.Again(row.waits)
			require.Equal(t, row.want, does)
			if does == Resend {
				require.Equal(t, "ack", sent)
				require.Equal(t, "sdp", body)
			}
		})
	}
	var a ack
	a.Sent("", false, "sdp")
	_, _, body := a.Again(false)
	require.Equal(t, "sdp", body, "the next attempt has the same body")
}
